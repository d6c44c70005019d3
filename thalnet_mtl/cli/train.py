"""``thalnet train``: train the runs of a configuration, one after another or stacked."""

import argparse
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from thalnet_mtl.cli.fields import describe_overview
from thalnet_mtl.cli.output import (
    announce_imports,
    print_runs,
    print_unused,
    resume_hint,
    write_report,
)
from thalnet_mtl.cli.parser import Commands, add_command, add_config_arguments
from thalnet_mtl.cli.processes import process_group
from thalnet_mtl.config.load import load_configs, with_seeds
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import Interrupted, RunError
from thalnet_mtl.runs.names import run_name

if TYPE_CHECKING:
    from thalnet_mtl.console import Console
    from thalnet_mtl.training.ranks import Ranks


EPILOG = """The same command resumes a run that was interrupted; with more train.steps or
train.epochs it goes on with a finished one, if train.schedule is constant.
On two processes: torchrun --nproc-per-node 2 -m thalnet_mtl train CONFIG"""


def add_train_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        train,
        epilog=f"{EPILOG}\n\n{describe_overview()}",
        usage="thalnet train CONFIG [CONFIG ...] [--out DIR] [--seeds N ... [--stacked]]\n"
        "                     [--from RUN] [--section.field value ...]",
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--stacked", action="store_true", help="train all seeds at once, in one process"
    )


def train(options: argparse.Namespace) -> int:
    """Train a network, print its scores and write a report."""
    with process_group() as ranks:
        folders, out = _train_runs(options, ranks)
        if not ranks or ranks.writes:
            print_runs(folders)
            write_report(folders, out / "report.html")
    return 0


def _train_runs(options: argparse.Namespace, ranks: "Ranks | None") -> tuple[list[Path], Path]:
    """Train the runs that are not finished. Returns the folders of all, and that of the report.

    Args:
        options: of the command.
        ranks: the processes that train them; None for one.
    """
    from thalnet_mtl.console import Console
    from thalnet_mtl.training.checks import check_joint_options
    from thalnet_mtl.training.finished import is_finished
    from thalnet_mtl.training.flags import changed_values, check_effect
    from thalnet_mtl.training.stackable import check_stackable

    announce_imports()
    console = Console()
    runs = load_configs(options.config, options.flags)
    name = run_name(options.config, changed_values(options.config, options.flags))
    if options.seeds or options.stacked:
        runs, name = with_seeds(runs, options.seeds, options.flags), f"{name}-seeds"
    out = options.out or Path("runs") / name
    folders = {out / name if name else out: config for name, config in runs.items()}
    for config in runs.values():
        check_joint_options(config)
        if options.stacked:
            check_stackable(config)
    check_effect(runs.values(), options.flags)
    print_unused(runs.values())

    def find() -> set[Path]:
        return {f for f, config in folders.items() if is_finished(f, config, console)}

    finished = ranks.first(find) if ranks else find()
    if len(finished) < len(folders):
        console.print(f"{out}: {_description(runs)}")
        _train(folders, finished, options, console)
    return list(folders), out


def _train(
    folders: Mapping[Path, Config],
    finished: Collection[Path],
    options: argparse.Namespace,
    console: "Console",
) -> None:
    """Train the runs that are not finished, one after another or stacked."""
    from thalnet_mtl.training.stacked import train_stacked
    from thalnet_mtl.training.trainer import train

    at_once = len(options.seeds) if options.stacked else 1
    remaining = iter(folders.items())
    group = next(iter(folders)).absolute().parent.name if len(folders) > 1 else ""
    options.began = True
    while batch := dict(islice(remaining, at_once)):
        batch = {folder: config for folder, config in batch.items() if folder not in finished}
        if not batch:
            continue
        folder, config = next(iter(batch.items()))
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in batch)
            console.print(f"{names}: {config.model.body} on {', '.join(config.named_tasks)}")
        try:
            if options.stacked:
                train_stacked(batch, console, group)
            else:
                train(config, folder, console, group=group)
        except Interrupted as stop:
            raise RunError(f"{stop}; {resume_hint(options, stop.saved)}") from None
        except KeyboardInterrupt:
            saved = any((folder / "checkpoint" / "last.pt").exists() for folder in folders)
            state = "the last checkpoint is kept" if saved else "nothing was saved yet"
            raise RunError(f"interrupted, {state}; {resume_hint(options, saved)}") from None


def _description(runs: Mapping[str, Config]) -> str:
    """Return what is trained: a run by its network, tasks and seed, several by their names."""
    if len(runs) > 1:
        return f"{len(runs)} runs: {', '.join(runs)}"
    [config] = runs.values()
    tasks = ", ".join(config.named_tasks)
    return f"{config.model.body} on {tasks}, seed {config.train.seed}"
