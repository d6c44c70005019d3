"""The loop: some tasks, one network, from the first step or from wherever a run stopped."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.schema import ChangeConfig, Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import RunError
from thalnet_mtl.files import read_json
from thalnet_mtl.metrics.summary import ContinualSummary
from thalnet_mtl.models.build import selected_backend
from thalnet_mtl.runs.directory import RunDirectory, check_same
from thalnet_mtl.signals import stop_signals
from thalnet_mtl.tasks import datasets as data
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training import growth
from thalnet_mtl.training.checkpoint import save_checkpoint
from thalnet_mtl.training.environment import environment
from thalnet_mtl.training.results import finish, measure_cost, test_batches, write_topology
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.state import NOT_TRAINED, Run
from thalnet_mtl.training.step import train_step

UNTRAINED_BATCHES = 10  # of the test part: enough to see what guessing scores
DIVERGENCE_FACTOR = 100.0  # times the loss of guessing


class Diverged(RunError):
    """The loss is not a number any more, or has exploded."""


class Interrupted(RunError):
    """The user asked to stop; everything is saved."""


def train(
    config: Config,
    folder: Path,
    screen: Console | None = None,
) -> dict[str, Any]:
    """Train as configured, in a run directory; the same call again goes on where it stopped.

    Returns what ``result.json`` holds.

    Raises:
        UserError: the configuration cannot be run, or ``folder`` holds another run.
        Diverged: with the step, the task and what to try; the last good checkpoint is kept.
        Interrupted: on Ctrl+C or SIGTERM, after saving.
    """
    screen = screen or Console()
    if (folder / "result.json").exists():
        check_same(folder, config)
        return read_json(folder / "result.json")
    started = time.monotonic()
    run = set_up(config, fetch_with(screen))
    directory = RunDirectory(folder, config)
    try:
        resume_or_start(run, directory, screen)
        run.seconds += time.monotonic() - started
        what = run.tasks if len(run.tasks) == 1 else [f"{len(run.tasks)} tasks"]
        title = f"{config.model.body} on {next(iter(what))}"
        levels = {selected_backend(config, run.network, port) for port in run.network.adapters} - {
            ""
        }
        if levels:
            screen.print(f"computed by {', '.join(sorted(levels))} (--train.ops)")
        with (
            screen.progress(title, run.step, run.total),
            stop_signals(announce_stop(screen)) as stop,
        ):
            run.strategy.fit(Trainer(run, directory, screen, stop.requested))
        screen.print(f"scoring the weights of step {run.best_step:,} …")
        result = finish(run, directory)
        if run.continual:
            screen.print(ContinualSummary.from_json(result["continual"], "result").line())
        return result
    finally:
        directory.close()


@dataclass
class Trainer:
    """A run that is being trained, with all that it writes to."""

    run: Run
    directory: RunDirectory
    screen: Console
    stopped: Callable[[], bool]

    def run_steps(self) -> None:
        """Take all remaining steps."""
        loop_alone(self.run, self.directory, self.screen, self.stopped)


def resume_or_start(run: Run, directory: RunDirectory, screen: Console) -> None:
    """Bring a run to where its last checkpoint left it, or to step 0 and a first checkpoint."""
    last = directory.folder / "checkpoint" / "last.pt"
    resumable = run.strategy.resumable
    if last.exists() and resumable:
        directory.rewind(run.restore(last))
        directory.record_resumed(surroundings(run), run.step)
        write_topology(run, directory, run.step)
        screen.print(f"{directory.folder}: going on at step {run.step:,} of {run.total:,}")
        return
    directory.rewind(0, anew=not resumable)
    start(run, directory, screen)
    if resumable:
        run.save(last, directory.size)


def surroundings(run: Run) -> dict[str, Any]:
    """What ``environment.json`` holds."""
    sources = {task.source for task in run.tasks.values() if task.source}
    return environment(run.device, {source: data.checksums(source) for source in sorted(sources)})


def start(run: Run, directory: RunDirectory, screen: Console) -> None:
    """Write down what is there before the first step."""
    directory.write_json("environment.json", surroundings(run))
    write_topology(run, directory, 0)
    screen.print("scoring the untrained network …")
    for name in run.attached_tasks:
        score_untrained(run, name, directory)
    values = {n: run.untrained[n][run.tasks[n].metric.name] for n in run.attached_tasks}
    run.matrix.append(values)
    if run.continual:
        run.costs.append(measure_cost(run))


def score_untrained(run: Run, task: str, directory: RunDirectory) -> None:
    """Score a task that nothing has learned yet: closely, if others are learned before it."""
    batches = test_batches(run, task)
    if not run.continual:
        batches = min(batches, UNTRAINED_BATCHES)
    run.untrained[task] = run.score(task, "test", batches)
    directory.log(run.step, task, "test", run.untrained[task])


# What a step is asked for, a batch of each task and a learning rate, and what is given back.
Steps = Generator[tuple[dict[str, Batch], float], Tensor, None]


def loop_alone(
    run: Run, directory: RunDirectory, screen: Console, stopped: Callable[[], bool]
) -> None:
    """Take the steps of one run."""
    steps = loop(run, directory, screen, stopped)
    try:
        request = next(steps)
        while True:
            request = steps.send(train_step(run, *request))
    except StopIteration:
        return
    finally:
        steps.close()


def loop(run: Run, directory: RunDirectory, screen: Console, stopped: Callable[[], bool]) -> Steps:
    """Change, ask for a step, log, look and save until all is done or someone wants to stop."""
    total = run.total
    changes: dict[int, list[ChangeConfig]] = {}
    for what in run.config.changes:
        changes.setdefault(what.step, []).append(what)
    while run.step < total and (run.active_tasks or run.step == run.experience.start):
        begin = time.monotonic()
        for what in changes.get(run.step, []):
            screen.print(f"  step {run.step:,}  {run.change(what)}")
            write_topology(run, directory, run.step)
        begin_experience(run, directory, screen)
        if not run.active_tasks:  # what has not stopped early is frozen by a change
            break
        rate = run.rate()
        losses = yield next_batches(run), rate
        stops = stopped() and run.step + 1 < total
        if after_step(run, directory, screen, losses, rate, begin, stops):
            run.save(directory.folder / "checkpoint" / "last.pt", directory.size)
        if stops:
            raise Interrupted(f"stopped at step {run.step:,} of {total:,}, saved")
    if run.step < total:
        missed = sum(what.step >= run.step for what in run.config.changes)
        also = f"; {missed} later changes were not made" if missed else ""
        screen.print(f"no task improves any more: ended at step {run.step:,} of {total:,}{also}")


def after_step(
    run: Run,
    directory: RunDirectory,
    screen: Console,
    losses: Tensor,
    rate: float,
    begin: float,
    stops: bool = False,
) -> bool:
    """After a step that began at a time: log, validate, end an experience. Whether to save now."""
    look, now = run.config.evaluate, run.experience
    every = look.every or run.epoch
    run.losses[run.step % look.log_every] = losses
    run.step += 1
    over = run.step == now.stop
    logs, looks = run.step % look.log_every == 0 or over, run.step % every == 0 or over
    saves = run.step % (look.checkpoint_every or every) == 0 or looks or stops
    if logs or saves:
        means = mean_losses(run)
    run.train_seconds += time.monotonic() - begin
    if logs:
        for name, loss in means.items():
            values = {"loss": loss, "learning_rate": rate}
            directory.log(run.step, name, "train", values, seconds=run.train_seconds)
        screen.log_losses(run.step, means)
    if looks:
        validate(run, directory, screen)
    if over:
        end_experience(run, now, directory, screen)
    run.seconds += time.monotonic() - begin
    screen.advance(run.step)
    return saves


def begin_experience(run: Run, directory: RunDirectory, screen: Console) -> None:
    """Grow if it is time; score what is new."""
    now = run.experience
    begins = run.step == now.start
    if not begins and run.config.growth.when != "on_plateau":
        return
    if run.continual and begins:
        screen.print(f"experience {now.number} of {len(run.stream)}: {', '.join(now.tasks)}")
    before = run.attached_tasks
    with run.separate_rng():
        made = growth.grow_if_due(run)
    for change in made:
        screen.print(f"  step {run.step:,}  {change}")
        write_topology(run, directory, run.step)
    for name in run.attached_tasks:
        if name not in before:
            score_untrained(run, name, directory)


def end_experience(run: Run, over: Experience, directory: RunDirectory, screen: Console) -> None:
    """Let the strategy keep what it needs; fill a row of the accuracy matrix."""
    run.strategy.after_experience(over)
    if not run.continual:
        return
    run.losses.fill_(NOT_TRAINED)  # are logged, and not those of the next one
    row: dict[str, float] = {}
    for name in run.attached_tasks:
        metric, values = run.tasks[name].metric, run.score(name, "test")
        row[name] = values[metric.name]
        directory.log(run.step, name, "test", values, experience=over.number)
    run.matrix.append(row)
    run.costs.append(measure_cost(run))
    shown = ", ".join(f"{name} {run.tasks[name].metric.format(v)}" for name, v in row.items())
    screen.print(f"  step {run.step:,}  test after experience {over.number}: {shown}")


def mean_losses(run: Run) -> dict[str, float]:
    """Mean loss of every task since the last line of the log, or ``Diverged``."""
    count = (run.step - 1) % len(run.losses) + 1
    rows = run.losses[:count].tolist()
    for k, row in enumerate(rows):
        for (name, task), loss in zip(run.tasks.items(), row, strict=True):
            if not loss <= DIVERGENCE_FACTOR * math.log(max(2, task.spec.classes)):
                raise diverged(f"loss {loss:.4g} at step {run.step - count + k + 1:,}", name)
    if not all(bool(weight.isfinite().all()) for weight in run.network.parameters()):
        what = f"a weight that is not finite after step {run.step:,}"
        raise diverged(what, ", ".join(run.tasks))
    means: dict[str, float] = {}
    for name, column in zip(run.tasks, zip(*rows, strict=True), strict=True):
        drawn = [loss for loss in column if loss != NOT_TRAINED]
        means |= {name: sum(drawn) / len(drawn)} if drawn else {}
    return means


def diverged(what: str, tasks: str) -> Diverged:
    """The error, with what may help."""
    return Diverged(
        f"{what} of task '{tasks}': training has diverged. Lower --train.learning_rate, set "
        f"--train.clip 1, or choose a bounded reading (weight_norm). The last checkpoint before "
        f"it is kept."
    )


def validate(run: Run, directory: RunDirectory, screen: Console) -> None:
    """Score the validation parts; keep the weights that are best for all tasks together.

    Together is the mean over the tasks of where they stand between guessing and perfection. Of
    several experiences the last weights are kept, good or bad: their scores are the last row of R.
    """
    levels, learning = [], run.active_tasks
    for name in run.attached_tasks:
        task, metric, values = (
            run.tasks[name],
            run.tasks[name].metric,
            run.score(name, "validation"),
        )
        value = values[metric.name]
        directory.log(run.step, name, "validation", values, seconds=run.train_seconds)
        which = f"{name} " if len(run.tasks) > 1 else ""
        screen.log_score(run.step, which, metric, value)
        levels.append(metric.normalized_score(value, task.spec.classes))
        best = run.best_by_task.get(name)
        if best is None or metric.better(value, best["value"]):
            since = 0 if best is None or name in learning else best["since"]  # stopped stays so
            run.best_by_task[name] = {"step": run.step, "value": value, "since": since}
        elif run.batches_seen[name] > best["taken"]:
            best["since"] += 1
        run.best_by_task[name]["taken"] = run.batches_seen[name]
    level = sum(levels) / len(levels)
    if level > run.best_level or not run.best_step or run.continual:
        run.best_level, run.best_step = level, run.step
        content = {"step": run.step, "topology": run.network.describe()}
        content |= {"network": run.network.state_dict(), "config": flatten(run.config)}
        save_checkpoint(directory.folder / "checkpoint" / "best.pt", content)


def announce_stop(screen: Console) -> Callable[[int], None]:
    """Return what tells the user that the run stops after the current step."""
    return lambda count: screen.print(
        "stopping after this step and saving; press Ctrl+C again to abort"
    )
