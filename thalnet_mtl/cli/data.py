"""``thalnet data``: data sets, and the data of a configuration."""

import argparse

from thalnet_mtl.cli.check import check_data
from thalnet_mtl.cli.output import print_table
from thalnet_mtl.cli.parser import Commands, add_command
from thalnet_mtl.errors import UserError, one_line, unknown


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
    parser.set_defaults(takes_flags=True)
    parser.add_argument(
        "action",
        choices=("fetch", "ls", "check"),
        help="download data sets; list them; or describe the data of a configuration",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets, or 'all'; check: a CONFIG or several"
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
        size = f"{status.bytes / 1e6:,.3f}" if status.stored else "absent"
        cells = {"data": status.name, "MB": size, "from": status.source}
        rows.append(cells | {"license": status.license})
    print_table(TextTable(rows, ("data", "MB", "from", "license"), numbers=("MB",)))
    print(one_line(str(datasets.root())))
    return 0
