"""``thalnet sweep``: train all combinations of values and seeds, in parallel processes."""

import argparse
from contextlib import closing
from pathlib import Path

from thalnet_mtl.cli.output import print_table, resume_hint
from thalnet_mtl.cli.parser import Commands, add_command, add_config_arguments, whole_number
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import RunError, one_line
from thalnet_mtl.runs.names import run_name, safe_name


def add_sweep_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        sweep,
        epilog="The same command resumes a sweep; with more seeds or values it adds runs to it.\n"
        "Fields of --grid and flags: see 'thalnet train --help'.\n"
        "With --on ray, runs go to the cluster that RAY_ADDRESS names, or to one that is\n"
        "started on this machine; all nodes must share the file system of DIR.",
        usage="thalnet sweep CONFIG [CONFIG ...] [--out DIR] [--seeds N ...] [--jobs N]\n"
        "                     [--grid section.field=value,value ...] [--on ray]\n"
        "                     [--section.field value ...]",
    )
    add_config_arguments(parser)
    parser.add_argument("--grid", nargs="+", action="extend", default=[], metavar="KEY=A,B",
                        help="values of a field, one run each")  # fmt: skip
    parser.add_argument(
        "--jobs", type=whole_number, metavar="N", help="runs at a time (as many as there are cores)"
    )
    parser.add_argument("--on", choices=("ray",), help="run on a cluster, not on this machine")


def sweep(options: argparse.Namespace) -> int:
    """Train all combinations of values and seeds, each in its own process."""
    from thalnet_mtl.sweep.plan import options_without_effect, parse, plan

    values = parse(options.grid)
    bases = load_configs(options.config, options.flags, swept=values)
    planned = plan(bases, values, options.seeds, options.flags)
    for line in options_without_effect(bases, planned):
        print(f"note: {one_line(line)}")
    from thalnet_mtl.training.flags import changed_values, check_effect

    configs = [planned_run.config for planned_run in planned]
    check_effect(configs, options.flags)
    check_effect(configs, values, "--grid {}")
    flags = changed_values(options.config, options.flags, values)
    name = safe_name("-".join([run_name(options.config, flags), "sweep", *values]))
    from thalnet_mtl.sweep.summary import sweep_table
    from thalnet_mtl.sweep.sweep import Sweep
    from thalnet_mtl.sweep.workers import make_workers
    from thalnet_mtl.training.setup import check_buildable

    out = options.out or Path("runs") / name
    workers = make_workers(options.on, options.jobs)
    with closing(workers), closing(Sweep(out, bases, planned, check_buildable)) as runs:
        options.began = True
        try:
            runs.run(workers)
        except RunError as stop:
            raise RunError(f"{stop}; {resume_hint(options)}") from None
    print_table(sweep_table(planned, runs.status, runs.out, runs.failures))
    print(f"record: {one_line(str(runs.out / 'sweep.json'))}")
    failed = [name for name, status in runs.status.items() if status == "failed"]
    by_users = [name for name in failed if runs.entries[name].exit_status == 2]
    return 0 if not failed else 2 if failed == by_users else 1
