"""``thalnet data`` and ``thalnet list``: data sets, and the names that a configuration may use."""

import argparse
import inspect
from textwrap import fill
from typing import Any

from thalnet_mtl.cli.check import check_data
from thalnet_mtl.cli.output import print_table
from thalnet_mtl.cli.parser import Commands, add_command
from thalnet_mtl.config.load import config_names
from thalnet_mtl.config.options import describe_options
from thalnet_mtl.errors import UserError, one_line, unknown

# What the command line calls a kind, and what the registry does.
KINDS = {
    "tasks": "task",
    "streams": "stream",
    "bodies": "body",
    "modules": "module",
    "readings": "reading",
    "strategies": "strategy",
    "growth": "growth",
    "weightings": "weighting",
    "losses": "loss",
    "metrics": "metric",
}


def add_data_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        data,
        epilog="Data sets are stored in $THALNET_DATA (~/.cache/thalnet).\n"
        "\nYour own data, in YAML: 'thalnet data check my.yaml' shows it before training.\n"
        "  task: {name: csv, path: a.csv, inputs: [x], outputs: [y], window: 24}\n"
        "'thalnet list tasks csv' explains the options of that task.",
    )
    parser.add_argument(
        "action",
        choices=("fetch", "ls", "check"),
        help="download data sets; list them; or describe the data of a configuration",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets, or 'all'; check: a CONFIG or several"
    )


def add_list_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, list_names, "list")
    kinds = ("configs", *KINDS)
    parser.add_argument("kind", metavar="kind", choices=kinds, help="one of %(choices)s")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="explain the options of one of them"
    )


def data(options: argparse.Namespace) -> int:
    """Download data sets, list them, or check the data of a configuration."""
    if options.action == "check":
        return check_data(options)
    if options.flags:
        raise UserError(f"--{next(iter(options.flags))} is a flag of 'data check', not of 'data'.")
    from thalnet_mtl.console import Console
    from thalnet_mtl.data import datasets
    from thalnet_mtl.report.layout import TextTable

    for name in options.names:
        if name not in ("all", *datasets.SOURCES):
            raise unknown("data set", name, ["all", *datasets.SOURCES])
    names = options.names if options.names and "all" not in options.names else datasets.SOURCES
    if options.action == "fetch":
        if not options.names:
            allowed = ", ".join(datasets.SOURCES)
            raise UserError(f"name at least one data set. Allowed: all, {allowed}.")
        for name in names:
            with Console().downloads() as report:
                datasets.fetch(name, report)
    rows = []
    for status in (status for status in datasets.statuses() if status.name in names):
        megabytes, kilobytes = f"{status.bytes / 1e6:.1f} MB", f"{status.bytes / 1e3:.0f} kB"
        size = megabytes if status.bytes >= 1e5 else kilobytes if status.stored else "absent"
        cells = {"data": status.name, "size": size, "from": status.source}
        rows.append(cells | {"license": status.license})
    print_table(TextTable(rows, ("data", "size", "from", "license")))
    print(one_line(str(datasets.root())))
    return 0


def list_names(options: argparse.Namespace) -> int:
    """List the names of one kind, each with its options and a line on what it is."""
    from thalnet_mtl.report.layout import TextTable

    if options.kind == "configs":
        if options.name:
            raise UserError("list configs takes no name; 'thalnet data check CONFIG' shows data.")
        rows = config_names()
    else:
        from thalnet_mtl.registry import entries, lookup

        kind = KINDS[options.kind]
        if options.name:
            return _explain(kind, lookup(kind, options.name))
        rows = {name: _summary(kind, entry) for name, entry in entries(kind).items()}
    table = [{"name": name, "text": text} for name, text in rows.items()]
    print_table(TextTable(table, ("name", "text"), header=False))
    return 0


def _explain(kind: str, entry: Any) -> int:
    """Print the whole docstring of an entry, and its options."""
    print(inspect.cleandoc(entry.__doc__ or "").replace("``", ""))
    if described := describe_options(kind, entry):
        print(fill(f"Options: {', '.join(described)}.", 80, break_on_hyphens=False))
    return 0


def _summary(kind: str, entry: Any) -> str:
    """Return the first line of a docstring without its markup, kinds of target, and options."""
    text = (entry.__doc__ or "").partition("\n")[0].replace("``", "")
    if targets := getattr(entry, "targets", ()):
        text += f" Targets: {', '.join([targets] if isinstance(targets, str) else targets)}."
    options = ", ".join(describe_options(kind, entry))
    return f"{text} Options: {options}." if options else text
