"""Going on with a run, finished or not, for more steps or on other hardware.

At its last step a run is saved before what only an end brings, so that it goes on as if it had been
longer from the start: to the same bits, with the same log. Streams are saved after that, since the
end of an experience is part of what follows.
"""

import shlex
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.published import is_published
from thalnet_mtl.runs.differences import ROUNDING, STREAM, lengths, shown
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.append import differences_to_one_run
from thalnet_mtl.training.checkpoint import load_best, restore_best, resume_run, save_run
from thalnet_mtl.training.checks import fixed_length
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.fingerprint import check_agreement, weights_checksum
from thalnet_mtl.training.scores import EarlyStopping
from thalnet_mtl.training.start import Start
from thalnet_mtl.training.start_folder import FILE
from thalnet_mtl.training.state import DUE, KEEPING_BEST


def resume(
    run: RunContext, directory: RunDirectory, console: Console
) -> frozenset[tuple[int, str]]:
    """Bring a run to the step of its last checkpoint, with the configuration of today.

    Returns:
        steps, and the names for trackers, of the values that were logged after the checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or the run cannot go on to that many steps. The
            directory is left as it is.
    """
    folder, different = directory.folder, directory.differences
    path = folder / "checkpoint" / "last.pt"
    size = resume_run(path, run)
    directory.check_log(size)
    longer = {f: different[f] for f in lengths(different, run.config) if f != STREAM}
    check_length(run, folder, shown(longer))
    if longer and not run.continual:  # a callback may have ended the shorter run
        run.state.stopping = EarlyStopping()
    if different:
        entry = lineage(folder, run.step, weights_checksum(run.network))
        changed = {field: [there, now] for field, (now, there) in different.items()}
        directory.reopen(run.step, entry | {"changed": changed})
    if STREAM in different and (reason := differences_to_one_run(run)):
        console.print(f"note: a run of the whole stream at once would be another one: {reason}")
    due = due_after_step(run)
    ended = DUE[-1] in run.state.due and DUE[-1] not in due
    if ended and not run.continual:  # this was the end of a shorter run
        restore_best(path)
        run.state.due = [name for name in run.state.due if name in due]
    dropped = directory.rewind(size)
    rounding = {field: different[field] for field in different if field in ROUNDING}
    for line in shown(rounding):
        console.print(f"note: {line}, from step {run.step:,} on: results may differ by rounding")
    return dropped


def due_after_step(run: RunContext) -> list[str]:
    """Return the parts of ``DUE`` that follow the last step of a run."""
    if run.step == run.last_experience.stop:
        return list(KEEPING_BEST if run.keeps_best else DUE)
    due = {"log": run.step % run.config.evaluate.log_every == 0, "validate": validates(run)}
    return [name for name in DUE if due.get(name)]


def next_due(run: RunContext) -> int:
    """Return the first step, from the next one on, after which something may be due.

    Something is due where the log, a validation, a checkpoint or the end of an experience is.
    """
    options, step = run.config.evaluate, run.step
    epoch = options.every or run.epoch
    times = [every for every in (options.log_every, epoch, options.checkpoint_every) if every]
    return min(run.experience.stop, *(step + every - step % every for every in times))


def due_after_early_stop(run: RunContext) -> list[str]:
    """Return what follows a validation after which no task of the experience trains any more."""
    return [] if run.active_in(run.last_experience) else due_after_stop(run, validated=True)


def due_after_stop(run: RunContext, validated: bool) -> list[str]:
    """Return what is left to do at the last step where an experience ends before it was planned.

    Args:
        run: after that step; what is due after any step is done.
        validated: whether the run was validated at this step.
    """
    done = {"log": run.step % run.config.evaluate.log_every == 0, "validate": validated}
    return [name for name in (KEEPING_BEST if run.keeps_best else DUE) if not done.get(name)]


def end_experience_now(run: RunContext) -> None:
    """Let the experience end at this step, and plan the next ones from here on."""
    before = [e.stop for e in run.stream[: run.last_experience.number - 1]]
    run.state.due = due_after_stop(run, validates(run))
    if not run.keeps_best:  # else it is recorded when the best weights are restored
        run.state.stopping.ends = [*before, run.step]


def validates(run: RunContext) -> bool:
    """Return whether a validation follows the last step of a run, wherever the run ends."""
    every = run.config.evaluate.every or run.steps_per_epoch(run.last_experience.tasks)
    return run.step % every == 0


def save_before_end(run: RunContext, directory: RunDirectory) -> None:
    """Save a run at its last step, so that it can go on as if it had been longer.

    If it would not have been validated at this step, its best weights so far are saved as well.
    """
    check_agreement(run)
    folder = directory.folder / "checkpoint"
    best = {} if validates(run) or not run.state.scores.best_step else load_best(folder)
    save_run(folder / "last.pt", run, directory.size, best=best)


def check_length(run: RunContext, folder: Path, changed: Collection[str]) -> None:
    """Raise ``UserError`` unless a run may have the configured number of steps from here on.

    Args:
        run: at the step at which it goes on.
        folder: of the run.
        changed: texts for the fields that differ and change the number of steps.
    """
    asked = f" ({', '.join(changed)})" if changed else ""
    if run.step > run.total_steps:
        raise UserError(
            f"{folder} has taken {run.step:,} steps already, more than {run.total_steps:,}{asked}. "
            f"Give --out DIR for another run."
        )
    if changed and (reason := fixed_length(run.config)):
        raise UserError(
            f"{folder} cannot go on to another length{asked}: {reason}. Give --from {folder} "
            f"--out DIR to start another run from its weights, or --out DIR alone to start anew."
        )


def record_start(run: RunContext, start: Start, directory: RunDirectory, console: Console) -> None:
    """Show and record what a new run takes from the network that it starts from."""
    inheritance = start.inheritance
    console.print(f"starting from {start.title}")
    for line in inheritance.lines():
        console.print(line)
    entry = lineage(start.folder, start.step, weights_checksum(start.network))
    directory.record_lineage(entry | inheritance.as_json())
    directory.write_json(FILE, {"topology": run.network.describe()})


def lineage(parent: Path, step: int, weights: str) -> dict[str, Any]:
    """Return an entry of ``lineage`` in ``environment.json``.

    Args:
        parent: the run that the weights are of.
        step: after which they were saved.
        weights: their checksum.
    """
    return {
        "run": str(parent if is_published(parent) else parent.absolute()),
        "step": step,
        "weights": weights,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
