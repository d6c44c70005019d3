"""``thalnet train``: train the runs of a configuration, one after another or stacked."""

import argparse
from itertools import islice
from pathlib import Path

from thalnet_mtl.cli.fields import describe_overview
from thalnet_mtl.cli.output import print_runs, resume_hint, write_report
from thalnet_mtl.cli.parser import Commands, add_command, add_config_arguments
from thalnet_mtl.config.load import load_configs, with_seeds
from thalnet_mtl.errors import Interrupted, RunError
from thalnet_mtl.runs.names import run_name


def add_train_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        train,
        epilog=f"The same command resumes a run that was interrupted.\n\n{describe_overview()}",
        usage="thalnet train CONFIG [CONFIG ...] [--out DIR] [--seeds N ... [--stacked]]\n"
        "                     [--section.field value ...]",
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--stacked", action="store_true", help="train all seeds at once, in one process"
    )


def train(options: argparse.Namespace) -> int:
    """Train a network, print its scores and write a report."""
    runs = load_configs(options.config, options.flags)
    from thalnet_mtl.training.flags import changed_values, check_effect

    name = run_name(options.config, changed_values(options.config, options.flags))
    if options.seeds or options.stacked:
        runs, name = with_seeds(runs, options.seeds, options.flags), f"{name}-seeds"
    out = options.out or Path("runs") / name
    from thalnet_mtl.console import Console
    from thalnet_mtl.training.stacked import check, train_stacked
    from thalnet_mtl.training.trainer import train

    console = Console()
    folders = {out / name if name else out: config for name, config in runs.items()}
    at_once = len(options.seeds) if options.stacked else 1
    remaining = iter(folders.items())
    for config in runs.values() if options.stacked else ():
        check(config)  # all of them, before the first is trained
    check_effect(runs.values(), options.flags)
    options.began = True
    while batch := dict(islice(remaining, at_once)):
        folder, config = next(iter(batch.items()))
        if len(runs) > 1:
            names = ", ".join(folder.name for folder in batch)
            console.print(f"{names}: {config.model.body} on {', '.join(config.named_tasks)}")
        try:
            if options.stacked:
                train_stacked(batch, console)
            else:
                train(config, folder, console)
        except Interrupted as stop:
            raise RunError(f"{stop}; {resume_hint(options, stop.saved)}") from None
        except KeyboardInterrupt:
            saved = any((folder / "checkpoint" / "last.pt").exists() for folder in folders)
            kept = "the last checkpoint is kept" if saved else "nothing was saved yet"
            raise RunError(f"interrupted, {kept}; {resume_hint(options, saved)}") from None
    print_runs(list(folders))
    write_report(list(folders), out / "report.html")
    return 0
