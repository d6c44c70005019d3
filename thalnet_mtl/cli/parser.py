"""Arguments of the command line: flags of a configuration, commands, and one-line errors."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from thalnet_mtl.config.load import closest_flag
from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.values import check_type
from thalnet_mtl.errors import UserError, unknown

Commands = Any  # what argparse's add_subparsers returns; its class is private


def split_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate ``--section.field value`` and ``--section.field=value`` from other arguments.

    ``--from RUN`` stands for ``--start.run RUN``. The only list that is a flag is ``--trackers``.

    >>> split_flags(["digits", "--train.seed", "3", "--out", "runs/a"])
    (['digits', '--out', 'runs/a'], {'train.seed': '3'})
    """
    rest: list[str] = []
    flags: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if word == "--sbatch":  # its value begins with --, which argparse would not take for one
            rest.append("=".join([word, *islice(words, 1)]))
            continue
        word = re.sub(r"^--from(?=$|=)", "--start.run", word)
        match = re.fullmatch(r"--(trackers|[a-z_]+(?:\.\w+)+)(?:=(.*))?", word, re.DOTALL)
        if match is None:
            rest.append(word)
            continue
        value = match[2] if match[2] is not None else next(words, None)
        if value is None:
            raise UserError(f"{word} needs a value.")
        if match[1] in flags:
            raise UserError(f"--{match[1]} is given twice.")
        flags[match[1]] = value
    return rest, flags


RUN = "run directory, zoo:NAME or hub:OWNER/NAME"  # what a command reads


def path(text: str) -> Path:
    """Return the path that an argument names, with ``~`` replaced by the home.

    An empty one, as of a variable of the shell that is not set, is no path.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"there is no home for '{text}'") from None


def whole_number(text: str) -> int:
    """Return the whole number that an argument is, written as in a file."""
    try:
        number: int = check_type(text, int, "")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix(": ").rstrip(".")) from None
    return number


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake as a ``UserError`` with the closest match."""

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Refuse unknown and repeated arguments, where the options of the command are known."""
        self._check_once(args[0] if args and args[0] is not None else sys.argv[1:])
        namespace, rest = super().parse_known_args(*args, **options)
        if rest:
            close = self._closest_option(rest[0].removeprefix("--"))
            hint = f" Did you mean '--{close}'?" if close else ""
            raise UserError(f"unknown argument '{rest[0]}'.{hint} See {self.prog} --help.")
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        match = re.match(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if match:
            kind = match[1].lower() if match[1].isupper() else match[1]
            if kind == "command" and match[2] in {section.name for section in fields(Config)}:
                raise UserError(
                    f"'{match[2]}' is no command but a section of configurations: see 'thalnet "
                    f"config help {match[2]}'."
                )
            raise unknown(kind, match[2], match[3].replace("'", "").split(", "))
        raise UserError(f"{message}. See {self.prog} --help.")

    def _check_once(self, words: Sequence[str]) -> None:
        """Raise if an option that does not collect values is given twice."""
        for action in self._actions:
            named = [w for w in words if w.partition("=")[0] in action.option_strings]
            if len(named) > 1 and not isinstance(action, argparse._ExtendAction):
                raise UserError(f"{named[1].partition('=')[0]} is given twice.")

    def _closest_option(self, word: str) -> str:
        options = [name[2:] for action in self._actions for name in action.option_strings]
        if any(action.dest == "config" for action in self._actions):
            return closest_flag(word, options)
        return next(iter(get_close_matches(word, options, n=1)), "")


def add_command(
    commands: Commands, run: Callable[[argparse.Namespace], int], name: str = "", **options: Any
) -> argparse.ArgumentParser:
    """Add a command that calls ``run``, with the name and the docstring of that function."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name or run.__name__,
        help=run.__doc__,
        description=run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )
    parser.set_defaults(run=run)
    return parser


def add_config_names(parser: argparse.ArgumentParser) -> None:
    """Add a configuration, which files and flags describe."""
    parser.set_defaults(takes_flags=True)
    parser.add_argument(
        "config", nargs="+", metavar="CONFIG",
        help="name or YAML file, later ones override; or Python file with entries of your own",
    )  # fmt: skip


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``train`` and ``sweep`` have in common."""
    add_config_names(parser)
    parser.add_argument("--out", type=path, metavar="DIR", help="output folder (runs/CONFIG)")
    parser.add_argument(  # ``split_flags`` takes it, as ``start.run``
        "--from",
        type=path,
        metavar="RUN",
        help=f"start from the network of another run: {RUN}",
    )
    parser.add_argument(
        "--seeds", type=whole_number, nargs="+", default=[], metavar="N", help="one run per seed"
    )
