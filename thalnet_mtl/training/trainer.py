"""Training as configured: a run is set up on one process, or on each of several, and trained."""

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from thalnet_mtl.config.load import check_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.fingerprint import check_data_from_python
from thalnet_mtl.training.finished import is_finished
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.rank_folder import folder_of
from thalnet_mtl.training.ranks import Ranks, process_group
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.tracking.callback import Callback
from thalnet_mtl.training.tracking.callbacks import make_callbacks
from thalnet_mtl.training.tracking.tracker import Tracker
from thalnet_mtl.training.unregistered_tasks import UnregisteredTasks, unregistered_tasks


def train(
    config: Config,
    folder: Path | str,
    console: Console | None = None,
    tasks: UnregisteredTasks = (),
    start: Path | str = "",
    callbacks: Sequence[Callback] = (),
    group: str = "",
) -> RunResult:
    """Train as configured, in a run directory; the same call again resumes where it stopped.

    Args:
        config: of a single run.
        folder: the run directory.
        console: for progress; by default standard output.
        tasks: tasks that are not registered, which the configuration names as if they were; a
            mapping to give them other names.
        start: run, or saved network, to start from, instead of ``start.run`` in ``config``.
        callbacks: called while the run trains, beside the trackers in ``config``.
        group: name of the runs that this one belongs to, for trackers; by default that of a sweep.

    In processes that ``torchrun`` has started, each calls this and computes a share of every
    batch; one writes.

    Returns:
        the result, where ``result.tasks["digits_rows"].test`` is the test score of that task.

    Raises:
        UserError: the configuration cannot be run, or ``folder`` holds another run.
        Diverged: with the step, the task and what to try; the last good checkpoint is kept.
        Interrupted: on Ctrl+C, SIGTERM or SIGHUP, after saving.
    """
    folder, began = Path(folder), time.monotonic()
    with process_group() as ranks, ExitStack() as opened:
        console = (console or Console()) if ranks.writes else Console.silent()
        with ranks.agreed():
            config = check_config(config)
            if start:
                config = replace(config, start=replace(config.start, run=str(start)))
            from_python = opened.enter_context(unregistered_tasks(tasks, config))
            config = resolve_options(config, complete=True)
        ranks.check_same({"folder": folder})  # each may have thought of a run of its own
        result = ranks.first(lambda: finished_result(folder, config, from_python, console))
        if result:
            return result
        own = opened.enter_context(folder_of(ranks, folder))
        with ranks.agreed():
            named = callbacks_of(ranks, config, callbacks)
            run = set_up(config, fetch_with(console), own, ranks)
            directory = opened.enter_context(closing(RunDirectory(own, config)))
        result = Trainer(run, directory, console, began, named, group).fit()
        return ranks.first(lambda: result)


def finished_result(
    folder: Path, config: Config, from_python: Collection[str], console: Console
) -> RunResult | None:
    """Return the result of a run that has finished; None if it has not."""
    if not is_finished(folder, config, console):
        return None
    check_data_from_python(folder, from_python, config)
    return RunResult.load(folder)


def callbacks_of(
    ranks: Ranks, config: Config, callbacks: Sequence[Callback]
) -> dict[str, Callback]:
    """Return the callbacks of a rank by name: trackers belong to the one that writes."""
    if ranks.writes:
        return make_callbacks(config, callbacks)
    return make_callbacks(Config(), [c for c in callbacks if not isinstance(c, Tracker)])
