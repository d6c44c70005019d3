"""Commands that read run directories: ``compare``, ``report``, ``inspect`` and ``export``."""

import argparse
from pathlib import Path

from thalnet_mtl.cli.output import print_runs, print_table, write_report
from thalnet_mtl.cli.parser import RUN, Commands, add_command, path
from thalnet_mtl.errors import UserError, one_line
from thalnet_mtl.published import is_published, local_folder


def add_compare_command(commands: Commands) -> None:
    """Add the command and its options."""
    _add_runs(add_command(commands, compare))


def add_report_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, report)
    _add_runs(parser)
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="default: report.html in the first run directory"
    )


def add_inspect_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, inspect)
    parser.add_argument("folder", type=path, metavar="RUN", help=RUN)
    parser.add_argument(
        "--backends",
        action="store_true",
        help="also print which backends can compute each task here, and why others cannot",
    )


def add_export_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, export)
    parser.add_argument("folder", type=path, metavar="RUN", help=RUN)
    parser.add_argument(
        "--to",
        required=True,
        choices=("safetensors", "torch", "onnx"),
        help="safetensors: weights; torch, onnx: a program for one step",
    )
    parser.add_argument(
        "--lengths",
        action="store_true",
        help="torch, onnx: a program for padded sequences with their lengths, not for one step",
    )
    parser.add_argument(
        "--license", metavar="ID", help="torch, onnx: of the weights, as 'mit' (default: unknown)"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="torch, onnx: the task to export, if there are several"
    )
    parser.add_argument("--out", type=path, metavar="FILE", help="default: in RUN/export")


def compare(options: argparse.Namespace) -> int:
    """Print the results of runs side by side."""
    print_runs(options.runs, options.baseline)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the results of runs to one HTML file."""
    pulled = is_published(options.runs[0])
    out = options.out or (Path() if pulled else options.runs[0]) / "report.html"
    write_report(options.runs, out, options.baseline)
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Print the modules and tasks of a run, and the changes made to them."""
    from thalnet_mtl.report.inspection import topology_table

    print_table(topology_table(local_folder(options.folder)))
    if options.backends:
        from thalnet_mtl.models.build import lines_on_backends
        from thalnet_mtl.training.trained_run import load_run

        run = load_run(options.folder)
        for line in lines_on_backends(run.config, run.network):
            print(one_line(line))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the network of a run in a format that other programs read."""
    from thalnet_mtl.training.trained_run import load_run

    for name in ("task", "lengths", "license") if options.to == "safetensors" else ():
        if getattr(options, name):
            raise UserError(f"--{name} has no effect: --to safetensors writes all weights.")
    run = load_run(options.folder)
    license = {"license": options.license} if options.license else {}
    path = run.export(options.to, options.out, options.task, lengths=options.lengths, **license)
    print(one_line(str(path)))
    for line in run.usage(options.to, path, options.task, lengths=options.lengths):
        print(one_line(line))
    return 0


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=path,
        nargs="+",
        metavar="RUN",
        help="run directories, folders of them, zoo:NAME or hub:OWNER/NAME",
    )
    parser.add_argument(
        "--baseline",
        type=path,
        nargs="+",
        action="extend",
        default=[],
        metavar="RUN",
        help="finished runs of a single task, as reference",
    )
