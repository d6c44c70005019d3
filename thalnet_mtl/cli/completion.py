"""``thalnet --print-completion SHELL``: a script by which a shell completes commands and flags."""

import argparse
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_origin

from thalnet_mtl.cli.parser import path
from thalnet_mtl.config.files import config_names
from thalnet_mtl.config.overlay import OPTIONS, registry_kind
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown

SHELLS = ("bash", "zsh", "tcsh")
# Names hold colons (avalanche:ewc), at which bash would break a word.
BASH = """
COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}
_thalnet_configs() {{
  compgen -W "{names}" -- "$1"
  compgen -f -X '!*.y*ml' -- "$1"
  compgen -f -X '!*.py' -- "$1"
  compgen -d -S / -- "$1"
}}
"""


def completion_script(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """Return the script for a shell.

    Args:
        parser: of all commands.
        words: the name of the shell.

    Raises:
        UserError: there is no such shell, or shtab is not installed.
    """
    if not words:
        raise UserError(f"--print-completion needs a shell. Allowed: {', '.join(SHELLS)}.")
    if words[0] not in SHELLS:
        raise unknown("shell", words[0], SHELLS)
    if words[1:]:
        raise UserError(f"unknown argument '{words[1]}' after --print-completion {words[0]}.")
    if importlib.util.find_spec("shtab") is None:
        raise UserError("--print-completion needs shtab: pip install 'thalnet-mtl[completion]'.")
    import shtab

    _complete_values(parser)
    names = " ".join(config_names())
    preamble = BASH.format(names=names) if words[0] == "bash" else ""
    script: str = shtab.complete(parser, words[0], preamble=preamble)
    return script


def _complete_values(parser: argparse.ArgumentParser) -> None:
    """Add the flags of configurations to a parser and those below it, and what completes values."""
    import shtab

    names = " ".join(config_names())
    configs = {
        "bash": "_thalnet_configs",
        "zsh": f"_alternative 'configs:configuration:({names})' 'files:file:_files'",
        "tcsh": f"({names})",
    }
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_values(inner)
        elif action.dest in ("config", "name") and action.metavar == "CONFIG":
            action.complete = configs  # type: ignore[attr-defined]
        elif action.type is path:
            folder = action.metavar in ("RUN", "DIR")
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
    if parser.get_default("takes_flags"):
        for flag, choices in flags_with_choices():
            parser.add_argument(flag, choices=choices or None, metavar="VALUE")


def flags_with_choices() -> Iterator[tuple[str, list[str]]]:
    """Yield the flags of sections with a fixed set of fields, with their values if they are few.

    Options of everything that such a field may name are among them.
    """
    from thalnet_mtl.config.catalog import catalog

    for section in (leaf for leaf in fields(Config) if is_dataclass(leaf.type)):
        section_type: Any = section.type
        for leaf in fields(section_type):
            if leaf.name != OPTIONS and get_origin(leaf.type) is not dict:
                yield f"--{section.name}.{leaf.name}", _choices(leaf)
        if kind := registry_kind(section_type):
            options: dict[str, list[str]] = {}
            for entry in catalog(kind).values():
                for name, option in entry.options.items():
                    values = option.schema.get("enum", [])
                    values = ["true", "false"] if option.schema.get("type") == "boolean" else values
                    options[name] = [str(value) for value in values if value != ""]
            yield from ((f"--{section.name}.{name}", values) for name, values in options.items())


def _choices(leaf: Field[Any]) -> list[str]:
    from thalnet_mtl.config.catalog import catalog

    if kind := leaf.metadata.get("names"):
        return list(catalog(kind))
    return ["true", "false"] if leaf.type is bool else list(leaf.metadata.get("choices", ()))
