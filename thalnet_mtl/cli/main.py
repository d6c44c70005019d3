"""Dispatch of commands, and exit statuses: 0, 2 for a mistake of the user, 1 for other failures."""

import argparse
import os
import sys
from collections.abc import Sequence

import thalnet_mtl
from thalnet_mtl.cli.completion import SHELLS, completion_script
from thalnet_mtl.cli.config import add_config_command
from thalnet_mtl.cli.data import add_data_command
from thalnet_mtl.cli.evaluate import add_evaluate_command
from thalnet_mtl.cli.inspect import (
    add_compare_command,
    add_export_command,
    add_inspect_command,
    add_report_command,
)
from thalnet_mtl.cli.listing import add_list_command
from thalnet_mtl.cli.parser import Parser, split_flags
from thalnet_mtl.cli.processes import is_silent
from thalnet_mtl.cli.push import add_push_command
from thalnet_mtl.cli.sweep import add_sweep_command, sweep
from thalnet_mtl.cli.table import add_table_command
from thalnet_mtl.cli.train import add_train_command, train
from thalnet_mtl.errors import USER_ERRNOS, RunError, UserError, describe_os_error, one_line
from thalnet_mtl.files import attempt
from thalnet_mtl.signals import signals_interrupt
from thalnet_mtl.streams import PatientStream, patient_output
from thalnet_mtl.training.launched import check_alone

MOST_THREADS = 1024
EXAMPLES = """examples:
  thalnet train digits                 train a ThalNet in seconds, no download
  thalnet train digits --train.seed 1  the same with another seed
  thalnet compare runs/*               print the results of all runs
  thalnet list configs                 print what can be trained
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a mistake is one line on standard error.

    Output that cannot be written ends no command; status 1 if that is not what its reader wanted.
    """
    with patient_output() as output:
        try:
            with signals_interrupt():
                status = _run(arguments)
        except SystemExit as end:  # after --help
            status = end.code if isinstance(end.code, int) else 0
            raise SystemExit(_output_status(output, status)) from None
        return _output_status(output, status)


def _output_status(output: PatientStream, status: int) -> int:
    """Return the status of a command, or 1 with a line on output that could not be written."""
    output.flush()
    if status or not output.problem or isinstance(output.problem, BrokenPipeError):
        return status
    return _complain(f"cannot write the output: {output.problem.strerror}")


def _run(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit status; print a mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:  # 'thalnet help train', as git and pip have it
        words = [*words[1:], "--help"]
    parser, options = make_parser(), argparse.Namespace(began=False)
    try:
        with attempt("find the current folder", "Change to one that exists."):
            os.getcwd()
        rest, flags = split_flags(words)
        if not rest and not flags:
            parser.print_help()
            return 0
        if rest[:1] in (["-V"], ["--version"]):
            print(f"thalnet {thalnet_mtl.__version__}")
            return 0
        if rest[:1] == ["--print-completion"]:
            print(completion_script(parser, rest[1:]))
            return 0
        options = parser.parse_args(rest)
        if flags and "takes_flags" not in options:
            raise UserError(
                f"--{next(iter(flags))} is a flag of 'thalnet train', 'sweep', 'data check' and "
                f"'config show' or 'check' only."
            )
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if threads.isdecimal() and int(threads) > MOST_THREADS:  # OpenMP would crash
            raise UserError(f"OMP_NUM_THREADS is {threads}; there are at most {MOST_THREADS:,}.")
        if options.run is not train:
            check_alone(f"thalnet {rest[0]}")
        options.flags, options.command = flags, words
        options.began = options.run not in (train, sweep)  # which set it once they have begun
        status: int = options.run(options)
        return status
    except UserError as error:
        return 2 if is_silent(error) else _complain(str(error), 2)
    except RunError as error:
        return 1 if is_silent(error) else _complain(str(error))
    except OSError as error:  # a path of the user is their mistake, all else the machine's
        return _complain(describe_os_error(error), 2 if error.errno in USER_ERRNOS else 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _complain(
            "not enough memory; what is saved is kept. Lower train.batch, evaluate.batch or the "
            "size of the model, or raise train.accumulate."
        )
    except KeyboardInterrupt:
        saved = "everything saved so far is kept" if options.began else "nothing was saved yet"
        return _complain(f"interrupted; {saved}")


def _complain(text: str, status: int = 1) -> int:
    """Print one line on standard error, and return the exit status."""
    print(f"thalnet: {one_line(text)}", file=sys.stderr)
    return status


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory is exhausted, in the words of Python or PyTorch."""
    signs = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = Parser(
        prog="thalnet",
        description="Train, evaluate and compare ThalNets and baselines.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-V", "--version", action="store_true", help="print the version of this package"
    )
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        help="print a script by which a shell completes commands and flags",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser
    )
    for add in (
        add_train_command,
        add_sweep_command,
        add_evaluate_command,
        add_compare_command,
        add_table_command,
        add_report_command,
        add_inspect_command,
        add_export_command,
        add_push_command,
        add_data_command,
        add_list_command,
        add_config_command,
    ):
        add(commands)
    return parser
