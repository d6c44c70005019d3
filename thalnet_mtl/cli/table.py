"""``thalnet table``: fold the seeds of runs into a table, and test its rows against one of them."""

import argparse
import sys
from collections.abc import Sequence

from thalnet_mtl.cli.output import print_table
from thalnet_mtl.cli.parser import Commands, add_command, path
from thalnet_mtl.errors import UserError, one_line
from thalnet_mtl.files import write_text

FORMATS = ("text", "markdown", "latex", "csv")
COLUMNS = """columns, for TASK of a run and METRIC of 'thalnet list metrics':
  ACC, AIA, forgetting, BWT, FWT, min-ACC  measures of a stream; TASK.forgetting
  test, validation.METRIC, TASK.test       scores; also train, untrained, gap
                                           (train − test)
  gain, skill, transfer, steps_to_90       relative to --single; also TASK.gain
  intransigence                            relative to --joint
  parameters, parameters.trainable, parameters.frozen, parameters.start, steps,
  best_step, seconds, multiply_adds, stored

examples:
  thalnet table runs/sweep
  thalnet table runs/sweep --rows train.strategy --columns ACC,forgetting
  thalnet table runs/sweep --against naive --as latex --out table.tex
"""


def add_table_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        table,
        epilog=COLUMNS,
        usage="thalnet table RUN [RUN ...] [--rows FIELD ...] [--columns COLUMN ...]\n"
        "                     [--against ROW] [--test COLUMN ...] [--fold FIELD ...]\n"
        "                     [--single RUN ...] [--joint RUN ...]\n"
        "                     [--titles NAME=TITLE ...] [--decimals N ...]\n"
        "                     [--as {text,markdown,latex,csv}] [--out FILE]",
    )
    parser.add_argument(
        "runs", type=path, nargs="+", metavar="RUN",
        help="run directories, folders of them such as that of a sweep, or records of runs",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="+", action="extend", default=[], metavar="FIELD",
        help="fields of the configuration that tell rows apart, or 'run' for names of runs "
        "(default: all in which the runs differ)",
    )  # fmt: skip
    parser.add_argument(
        "--columns", nargs="+", action="extend", default=[], metavar="COLUMN", help="see below"
    )
    parser.add_argument(
        "--fold", nargs="+", action="extend", default=[], metavar="FIELD",
        help="fields, or sections, to average over like the seed, such as 'stream'",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="ROW", default="",
        help="row to compare the others with, or FIELD=VALUE for the row that differs in one field",
    )  # fmt: skip
    parser.add_argument(
        "--test", nargs="+", action="extend", default=[], metavar="COLUMN",
        help="columns to compare (default: the first)",
    )  # fmt: skip
    for kind, names in (("single", "a single task each"), ("joint", "joint training")):
        parser.add_argument(
            f"--{kind}", type=path, nargs="+", action="extend", default=[], metavar="RUN",
            help=f"runs of {names}, for columns relative to them",
        )  # fmt: skip
    parser.add_argument(
        "--titles", nargs="+", action="extend", default=[], metavar="NAME=TITLE",
        help="titles of columns, fields and values; rows named here come first",
    )  # fmt: skip
    parser.add_argument(
        "--decimals", nargs="+", action="extend", default=[], metavar="N",
        help="decimals of all columns, or COLUMN=N",
    )  # fmt: skip
    parser.add_argument("--as", dest="format", default="text", choices=FORMATS, help="format")
    parser.add_argument("--out", type=path, metavar="FILE", help="write to a file")


def table(options: argparse.Namespace) -> int:
    """Print runs as a table, with seeds folded to mean and interval, and tests."""
    from thalnet_mtl.report.make_table import table as make

    result = make(
        options.runs,
        rows=split(options.rows),
        columns=split(options.columns),
        against=options.against,
        test=split(options.test),
        fold=split(options.fold),
        single=options.single,
        joint=options.joint,
        titles=dict(_named(text, "--titles") for text in options.titles),
        decimals=_decimals(options.decimals),
    )
    if options.format == "text" and not options.out:
        print_table(result.renderable())
        return 0
    text: str = getattr(result, options.format)()
    if options.out:
        write_text(options.out, text.rstrip("\n") + "\n")
        print(f"table: {one_line(str(options.out))}")
    else:
        print(text.rstrip("\n"))
    if options.format == "csv":  # the other formats hold the notes
        for note in result.notes():
            print(f"note: {note}", file=sys.stderr)
    return 0


def split(words: Sequence[str]) -> list[str]:
    """Return the names in some words, which commas may separate.

    >>> split(["ACC,forgetting", "BWT"])
    ['ACC', 'forgetting', 'BWT']
    """
    return [name.strip() for word in words for name in word.split(",") if name.strip()]


def _named(text: str, flag: str) -> tuple[str, str]:
    """Return name and value of a word NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{flag} {text}: expected NAME=VALUE.")
    return name, value


def _decimals(words: Sequence[str]) -> dict[str, int]:
    """Return decimals by the name of a column; those of all columns by ''."""
    decimals = {}
    for word in words:
        name, value = _named(word, "--decimals") if "=" in word else ("", word)
        if not value.isdecimal() or int(value) > 10:
            raise UserError(f"--decimals {word}: expected a number from 0 to 10, or COLUMN=N.")
        decimals[name] = int(value)
    return decimals
