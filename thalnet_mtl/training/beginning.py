"""The begin of a run in its directory: at its first step, or at that of its last checkpoint."""

from collections.abc import Mapping
from typing import Any

from thalnet_mtl.config.load import flatten
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.differences import lengths
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.run_files import FINGERPRINTS
from thalnet_mtl.training.append import record_tasks, write_metrics
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.continuation import record_start, resume
from thalnet_mtl.training.environment import run_environment
from thalnet_mtl.training.fingerprint import check_same_data
from thalnet_mtl.training.monitor import Monitor
from thalnet_mtl.training.results import write_topology


def facts_of_run(run: RunContext, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same on all ranks: the configuration and the data."""
    data = {f"data of task '{n}'": [facts[kind][n] for kind in FINGERPRINTS] for n in run.tasks}
    return flatten(run.config) | data


def resume_or_start(
    run: RunContext, directory: RunDirectory, monitor: Monitor, console: Console
) -> bool:
    """Bring a run to the step of its last checkpoint, or to step 0. Returns whether it resumed.

    A run whose strategy cannot be saved starts again.
    """
    resumable = run.state.strategy.resumable
    facts, last = run_environment(run), directory.folder / "checkpoint" / "last.pt"
    run.ranks.check_same(facts_of_run(run, facts))
    if resumable and last.exists():
        check_same_data(directory.folder, facts)
        dropped = resume(run, directory, console)
        record_tasks(run, directory, facts)
        monitor.start_callbacks(run.step, dropped)
        monitor.score_appended()
        monitor.readings.resume()
        directory.record_resumed(facts, run.step)
        write_topology(run, directory, run.step)
        console.print(f"resuming {directory.folder} at step {run.step:,} of {run.total_steps:,}")
        return True
    if not resumable and lengths(directory.differences, run.config):
        raise UserError(
            f"{directory.folder} cannot go on: train.strategy {run.config.train.strategy} cannot "
            f"be saved. Give --out DIR for another run."
        )
    directory.rewind(0, anew=not resumable)
    directory.record_config()
    directory.write_json("environment.json", facts)
    if run.start:
        record_start(run, run.start, directory, console)
    write_metrics(run, directory)
    write_topology(run, directory, 0)
    monitor.start_callbacks(None)
    monitor.report_notices()
    console.print("scoring the untrained network …")
    monitor.start_accuracy_matrix()
    return False
