"""The loop: one task, one network, from the first step or from wherever a run stopped."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl import checkpoint, data
from thalnet_mtl.body import map_state
from thalnet_mtl.config import Config, RunError, flatten
from thalnet_mtl.network import parameters
from thalnet_mtl.run import UNTRAINED_BATCHES, Run, prepare
from thalnet_mtl.tasks import Batch
from thalnet_mtl.thalnet import ThalNet
from thalnet_mtl.tracking import RunDirectory, Screen, check_same, environment

READING_BATCH = 20  # sequences over which a dynamic reading is averaged
EXPLODED = 100.0  # times the loss of guessing


class Diverged(RunError):
    """The loss is not a number any more, or has exploded."""


class Interrupted(RunError):
    """The user asked to stop; everything is saved."""


def train(config: Config, folder: Path, screen: Screen | None = None) -> dict[str, Any]:
    """Train as configured, in a run directory; the same call again goes on where it stopped.

    Returns what ``result.json`` holds.

    Raises:
        UserError: the configuration cannot be run, or ``folder`` holds another run.
        Diverged: with the step, the task and what to try; the last good checkpoint is kept.
        Interrupted: on Ctrl+C or SIGTERM, after saving.
    """
    screen = screen or Screen()
    if (folder / "result.json").exists():
        check_same(folder, config)
        return checkpoint.read_json(folder / "result.json")
    begin = time.monotonic()
    run = prepare(config, screen.fetch)
    directory = RunDirectory(folder, config)
    try:
        begin_or_resume(run, directory, screen)
        run.seconds += time.monotonic() - begin
        title = f"{config.model.body} on {run.task.label}"
        with screen.progress(title, run.step, run.total), stop_signals(screen) as stopped:
            loop(run, directory, screen, stopped)
        screen.line(f"scoring the weights of step {run.best_step:,} …")
        return finish(run, directory)
    finally:
        directory.close()


def begin_or_resume(run: Run, directory: RunDirectory, screen: Screen) -> None:
    """Bring a run to where its last checkpoint left it, or to step 0 and a first checkpoint."""
    last = directory.folder / "checkpoint" / "last.pt"
    source = data.checksums(run.task.source) if run.task.source else {}
    about = environment(run.device, source)
    if last.exists():
        directory.rewind(run.restore(last))
        directory.record_resumed(about, run.step)
        screen.line(f"{directory.folder}: going on at step {run.step:,} of {run.total:,}")
        return
    directory.rewind(0)
    directory.write_json("environment.json", about)
    screen.line("scoring the untrained network …")
    run.untrained = run.score("test", min(look_at(run), UNTRAINED_BATCHES))
    directory.log(0, run.task.name, "test", run.untrained)
    run.save(last, directory.size)


def look_at(run: Run) -> int:
    """Batches of an evaluation of the test part."""
    look = run.config.evaluate
    return look.batches or run.task.steps("test", look.batch, run.config.train.chunk)


def loop(run: Run, directory: RunDirectory, screen: Screen, stopped: Callable[[], bool]) -> None:
    """Step, log, look and save until all steps are done or someone wants to stop."""
    options, look, task = run.config.train, run.config.evaluate, run.task
    every = look.every or run.epoch
    total = run.total
    while run.step < total:
        begin = time.monotonic()
        batch = task.batch(run.step, options.batch, options.chunk, options.seed)
        rate = run.rate()
        run.losses[run.step % look.log_every] = train_step(run, batch, rate)
        run.step += 1
        done = run.step == total
        logs, looks = run.step % look.log_every == 0 or done, run.step % every == 0 or done
        stops = stopped() and not done
        saves = run.step % (look.checkpoint_every or every) == 0 or looks or stops
        if logs or saves:
            loss = mean_loss(run)
        run.train_seconds += time.monotonic() - begin
        if logs:
            values = {"loss": loss, "learning_rate": rate}
            directory.log(run.step, task.name, "train", values, seconds=run.train_seconds)
            screen.status(run.step, loss)
        if looks:
            validate(run, directory, screen)
        run.seconds += time.monotonic() - begin
        if saves:
            run.save(directory.folder / "checkpoint" / "last.pt", directory.size)
        if stops:
            raise Interrupted(f"stopped at step {run.step:,} of {total:,}, saved")
        screen.advance(run.step)


def train_step(run: Run, batch: Batch, rate: float) -> Tensor:
    """One optimizer step; returns the loss, still on the device."""
    options = run.config.train
    bf16 = options.precision == "bf16"
    with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bf16):
        state = None if batch.fresh else run.state
        logits, state = run.network(run.task.name, batch.xs, state)
    if run.task.interface.target == "every":
        run.state = map_state(Tensor.detach, state)
    loss = F.cross_entropy(logits.flatten(0, -2).float(), batch.ys.flatten())
    run.optimizer.zero_grad()
    loss.backward()
    if options.clip:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), options.clip)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    return loss.detach()


def mean_loss(run: Run) -> float:
    """Mean loss since the last line of the log, or ``Diverged``."""
    count = (run.step - 1) % len(run.losses) + 1
    losses = run.losses[:count].tolist()
    limit = EXPLODED * math.log(run.task.interface.classes)
    what = ""
    for k, loss in enumerate(losses):
        if not loss <= limit:
            what = f"loss {loss:.4g} at step {run.step - count + k + 1:,}"
            break
    else:
        if not all(bool(weight.isfinite().all()) for weight in run.network.parameters()):
            what = f"a weight that is not finite after step {run.step:,}"
    if what:
        raise Diverged(
            f"{what} of task '{run.task.name}': training has diverged. Lower "
            f"--train.learning_rate, set --train.clip 1, or choose a bounded reading "
            f"(weight_norm). The last checkpoint before it is kept."
        )
    return sum(losses) / count


def validate(run: Run, directory: RunDirectory, screen: Screen) -> None:
    """Score the validation part, and keep the weights if they are the best so far."""
    metric, values = run.task.metric, run.score("validation")
    value = values[metric.name]
    directory.log(run.step, run.task.name, "validation", values, seconds=run.train_seconds)
    screen.line(f"  step {run.step:,}  validation {metric.name} {metric.format(value)}")
    if not run.best or metric.better(value, run.best[metric.name]):
        run.best, run.best_step = values, run.step
        best = {"step": run.step, "network": run.network.state_dict()}
        path = directory.folder / "checkpoint" / "best.pt"
        checkpoint.save(path, best | {"config": flatten(run.config)})


def finish(run: Run, directory: RunDirectory) -> dict[str, Any]:
    """Read the test set with the best weights, and write what stays of the run."""
    begin = time.monotonic()
    folder, look, metric = directory.folder, run.config.evaluate, run.task.metric.name
    path = folder / "checkpoint" / "best.pt"
    best = checkpoint.load_of(path, run.config)
    checkpoint.load_weights(run.network, best["network"], path)
    # As much of the training part as of the test part, so that the two can be set side by side.
    train = run.score("train", look_at(run))
    scores = {"validation": run.best, "test": run.score("test"), "train": train}
    for split, values in scores.items():
        directory.log(run.step, run.task.name, f"best_{split}", values)
    count = parameters(run.network)
    result = {
        "body": run.config.model.body,
        "task": run.task.label,
        "metric": metric,
        "higher_is_better": run.task.metric.higher_is_better,
        **scores,
        "untrained": run.untrained,
        "best_step": run.best_step,
        "steps": run.total,
        "parameters": {"total": count, "trainable": count, "frozen": 0},
        "seed": run.config.train.seed,
        "seconds": round(run.seconds + time.monotonic() - begin, 2),
        "train_seconds": round(run.train_seconds, 2),
        "evaluation_batches": look.batches,
    }
    checkpoint.save_model(folder / "model", run.network, run.config, result)
    save_readings(run, folder / "model" / "reading_weights.safetensors")
    rows = [("stage", run.task.name), (0, run.untrained[metric]), (1, scores["test"][metric])]
    matrix = "".join(f"{stage},{value}\n" for stage, value in rows)
    checkpoint.write_text(folder / "accuracy_matrix.csv", matrix)
    directory.write_json("result.json", result)
    return result


def save_readings(run: Run, path: Path) -> None:
    """R of every module and the widths of the slots; dynamic ones as the mean over some inputs."""
    net = run.network.body
    if not isinstance(net, ThalNet):
        return
    xs = next(run.task.batches("validation", READING_BATCH, READING_BATCH)).xs
    with torch.no_grad():
        port = run.network.port(run.task.name)
        weights = net.reading_weights(port.encode(xs), sub_steps=port.sub_steps)
    slots = {name: slot.stop - slot.start for name, slot in net.slots.items()}
    dynamic = [cell.name for cell in net.parts if cell.reading.dynamic]
    about = {"slots": json.dumps(slots), "dynamic": json.dumps(dynamic)}
    checkpoint.save_tensors(path, weights, about)


@contextmanager
def stop_signals(screen: Screen) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl+C or SIGTERM into a wish; the second stops at once."""
    wishes: list[int] = []

    def wish(number: int, frame: Any) -> None:
        wishes.append(number)
        screen.line("stopping after this step; again to stop at once")
        signal.signal(number, old[number])

    old: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in old:
            signal.signal(number, wish)
    except ValueError:  # only the main thread may; elsewhere nobody presses Ctrl+C
        old.clear()
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
