"""The loop: one task, one network, from the first step or from wherever a run stopped."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl import checkpoint, data
from thalnet_mtl.body import map_state
from thalnet_mtl.config import Config, RunError, TrainConfig, UserError
from thalnet_mtl.evaluate import evaluate
from thalnet_mtl.network import Network, build, parameters
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks import Batch, Task
from thalnet_mtl.thalnet import ThalNet
from thalnet_mtl.tracking import RunDirectory, Screen, environment

SMALL_NETWORK = 500_000  # parameters below which a second CPU thread costs more than it brings
READING_BATCH = 20  # sequences over which a dynamic reading is averaged
EXPLODED = 100.0  # times the loss of guessing

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "rmsprop": torch.optim.RMSprop,
    "adam": lambda *args, **options: torch.optim.Adam(*args, fused=True, **options),
    "adamw": lambda *args, **options: torch.optim.AdamW(*args, fused=True, **options),
}


class Diverged(RunError):
    """The loss is not a number any more, or has exploded."""


class Interrupted(RunError):
    """The user asked to stop; everything is saved."""


@dataclass
class Run:
    """All that changes while training, and so all that a checkpoint holds."""

    network: Network
    optimizer: torch.optim.Optimizer
    losses: Tensor  # of the steps since the last line of the log
    step: int = 0
    state: Any = None
    best: float | None = None
    best_step: int = 0
    untrained: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    train_seconds: float = 0.0

    def save(self, path: Path, metrics_size: int) -> None:
        """Write a checkpoint."""
        rng = [torch.get_rng_state()]
        if torch.cuda.is_available():
            rng.append(torch.cuda.get_rng_state())
        content = {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "state": self.state if isinstance(self.state, Tensor | None) else list(self.state),
            "best": self.best,
            "best_step": self.best_step,
            "untrained": self.untrained,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "rng": rng,
            "metrics_size": metrics_size,
        }
        checkpoint.save(path, content)

    def restore(self, path: Path, device: torch.device) -> int:
        """Read a checkpoint; returns the size that the metrics had."""
        content = checkpoint.load(path)
        checkpoint.load_weights(self.network, content["network"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        for name in ("step", "best", "best_step", "untrained", "seconds", "train_seconds"):
            setattr(self, name, content[name])
        self.losses.copy_(content["losses"])
        saved = content["state"]
        if isinstance(saved, list):
            body = self.network.body
            kind = type(body.initial(torch.zeros(1, 1, 1)))
            self.state = kind(*(part.to(device) for part in saved))
        else:
            self.state = saved if saved is None else saved.to(device)
        torch.set_rng_state(content["rng"][0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(content["rng"][1])
        return content["metrics_size"]


def train(config: Config, folder: Path, screen: Screen | None = None) -> dict[str, Any]:
    """Train as configured, in a run directory; the same call again goes on where it stopped.

    Returns what ``result.json`` holds.

    Raises:
        UserError: the configuration cannot be run, or ``folder`` holds another run.
        Diverged: with the step, the task and what to try; the last good checkpoint is kept.
        Interrupted: on Ctrl+C or SIGTERM, after saving.
    """
    screen = screen or Screen()
    begin = time.monotonic()
    device = choose_device(config.train.device)
    task: Task = lookup("task", config.task.name)(config.task)
    torch.manual_seed(config.train.seed)
    network = build(config.model, {task.name: task.interface})
    threads = config.train.threads or (os.cpu_count() if parameters(network) > SMALL_NETWORK else 1)
    torch.set_num_threads(threads or 1)
    if task.source:
        screen.fetch(task.source)
    task.to(device)
    network.to(device)
    options = config.train
    epoch = task.steps("train", options.batch, options.chunk)
    total = options.steps or options.epochs * epoch
    optimizer = OPTIMIZERS[options.optimizer](
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    run = Run(network, optimizer, torch.zeros(config.evaluate.log_every, device=device))
    directory = RunDirectory(folder, config)
    try:
        last = folder / "checkpoint" / "last.pt"
        if (folder / "result.json").exists() and last.exists():
            return checkpoint.read_json(folder / "result.json")
        if last.exists():
            directory.rewind(run.restore(last, device))
            screen.line(f"{folder}: going on at step {run.step:,} of {total:,}")
        else:
            directory.rewind(0)
            source = data.checksums(task.source) if task.source else {}
            directory.write_json("environment.json", environment(device, source))
            run.untrained = _evaluate(run, task, "test", config)
            directory.log(0, task.name, "test", run.untrained)
        title = f"{config.model.body} on {task.label}"
        run.seconds += time.monotonic() - begin
        with screen.progress(title, run.step, total), stop_signals() as stopped:
            _loop(run, task, config, directory, screen, total, epoch, stopped)
        return _finish(run, task, config, directory, total)
    finally:
        directory.close()


def _loop(
    run: Run,
    task: Task,
    config: Config,
    directory: RunDirectory,
    screen: Screen,
    total: int,
    epoch: int,
    stopped: Callable[[], bool],
) -> None:
    options, window = config.train, config.evaluate.log_every
    every = config.evaluate.every or epoch
    save_every = config.evaluate.checkpoint_every or every
    path = directory.folder / "checkpoint"
    while run.step < total:
        begin = time.monotonic()
        batch = task.batch(run.step, options.batch, options.chunk, options.seed)
        rate = learning_rate(run.step, total, options)
        run.losses[run.step % window] = train_step(run, task, batch, rate, options)
        run.step += 1
        done = run.step == total
        logs, looks = run.step % window == 0 or done, run.step % every == 0 or done
        stops = stopped() and not done
        saves = run.step % save_every == 0 or looks or stops
        if logs or saves:
            mean = check_losses(run, task, window)
        run.train_seconds += time.monotonic() - begin
        if logs:
            values = {"loss": mean, "learning_rate": rate}
            directory.log(run.step, task.name, "train", values, seconds=run.train_seconds)
            screen.status(run.step, mean)
        if looks:
            values = _evaluate(run, task, "validation", config)
            value = values[task.metric.name]
            directory.log(run.step, task.name, "validation", values, seconds=run.train_seconds)
            screen.line(
                f"  step {run.step:,}  validation {task.metric.name} {task.metric.format(value)}"
            )
            if run.best is None or task.metric.better(value, run.best):
                run.best, run.best_step = value, run.step
                best = {"step": run.step, "network": run.network.state_dict()}
                checkpoint.save(path / "best.pt", best)
        run.seconds += time.monotonic() - begin
        if saves:
            run.save(path / "last.pt", directory.size)
        if stops:
            raise Interrupted(f"stopped at step {run.step:,} of {total:,}, saved")
        screen.advance(run.step)


def train_step(run: Run, task: Task, batch: Batch, rate: float, options: TrainConfig) -> Tensor:
    """One optimizer step; returns the loss, still on the device."""
    device, bf16 = batch.xs.device.type, options.precision == "bf16"
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        state = None if batch.fresh else run.state
        logits, state = run.network(task.name, batch.xs, state)
    if task.interface.target == "every":
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


def learning_rate(step: int, total: int, options: TrainConfig) -> float:
    """Linear warm-up to the peak, then constant or half a cosine down to 0."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    if options.schedule == "constant":
        return options.learning_rate
    progress = (step - options.warmup) / max(1, total - options.warmup)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def check_losses(run: Run, task: Task, window: int) -> float:
    """Mean loss since the last line of the log, or ``Diverged``."""
    count = (run.step - 1) % window + 1
    losses = run.losses[:count].tolist()
    limit = EXPLODED * math.log(task.interface.classes)
    for k, loss in enumerate(losses):
        if not loss <= limit:
            step = run.step - count + k + 1
            raise Diverged(_advice(f"loss {loss:.4g} at step {step:,} of task '{task.name}'"))
    if not all(bool(p.isfinite().all()) for p in run.network.parameters()):
        raise Diverged(_advice(f"a weight is not finite after step {run.step:,}, '{task.name}'"))
    return sum(losses) / count


def _advice(what: str) -> str:
    return (
        f"{what}: training has diverged. Lower --train.learning_rate, set --train.clip 1, or "
        f"choose a bounded reading (weight_norm). The last good checkpoint is kept."
    )


def _evaluate(run: Run, task: Task, split: str, config: Config) -> dict[str, float]:
    look = config.evaluate
    return evaluate(run.network, task, split, look.batch, config.train.chunk, look.batches)


def _finish(
    run: Run, task: Task, config: Config, directory: RunDirectory, total: int
) -> dict[str, Any]:
    """Read the test set with the best weights, and write what stays of the run."""
    begin = time.monotonic()
    folder, look, chunk = directory.folder, config.evaluate, config.train.chunk
    path = folder / "checkpoint" / "best.pt"
    checkpoint.load_weights(run.network, checkpoint.load(path)["network"], path)
    scores = {split: _evaluate(run, task, split, config) for split in ("validation", "test")}
    # As much of the training part as of the test part, so that the two can be set side by side.
    batches = look.batches or task.steps("test", look.batch, chunk)
    scores["train"] = evaluate(run.network, task, "train", look.batch, chunk, batches)
    for split, values in scores.items():
        directory.log(run.step, task.name, f"best_{split}", values)
    count = parameters(run.network)
    result = {
        "body": config.model.body,
        "task": task.label,
        "metric": task.metric.name,
        "higher_is_better": task.metric.higher_is_better,
        **scores,
        "untrained": run.untrained,
        "best_step": run.best_step,
        "steps": total,
        "parameters": {"total": count, "trainable": count, "frozen": 0},
        "seed": config.train.seed,
        "seconds": round(run.seconds + time.monotonic() - begin, 2),
        "train_seconds": round(run.train_seconds, 2),
        "evaluation_batches": look.batches,
    }
    checkpoint.save_model(folder / "model", run.network, config, result)
    if isinstance(run.network.body, ThalNet):
        _save_readings(run.network, task, folder / "model" / "reading_weights.safetensors")
    metric = task.metric.name
    rows = [("stage", task.name), (0, run.untrained[metric]), (1, scores["test"][metric])]
    text = "".join(f"{stage},{value}\n" for stage, value in rows)
    checkpoint.write_text(folder / "accuracy_matrix.csv", text)
    directory.write_json("result.json", result)
    return result


def _save_readings(network: Network, task: Task, path: Path) -> None:
    """R of every module and the widths of the slots; dynamic ones as the mean over some inputs."""
    assert isinstance(network.body, ThalNet)
    xs = next(task.batches("validation", READING_BATCH, READING_BATCH)).xs
    with torch.no_grad():
        weights = network.body.reading_weights(network.port(task.name).encode(xs))
    slots = {name: slot.stop - slot.start for name, slot in network.body.slots.items()}
    contents = {name: weight.contiguous().cpu() for name, weight in weights.items()}
    save_file(contents, path, metadata={"slots": json.dumps(slots)})


def choose_device(name: str) -> torch.device:
    """'auto' takes the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device 'cuda': no GPU that PyTorch can use. Allowed: auto, cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl+C or SIGTERM into a wish; the second stops at once."""
    wishes: list[int] = []

    def wish(number: int, frame: Any) -> None:
        wishes.append(number)
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
