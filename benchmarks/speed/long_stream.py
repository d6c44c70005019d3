"""Processor time and memory of each experience of a long stream of small tasks.

    python benchmarks/speed/long_stream.py --experiences 200 --strategy ewc --out FILE.json

The evaluation of all tasks that have a head, for the matrix of scores and the validation curves,
grows with the tasks by definition: it is measured apart from everything else, with the lines that
it logs. ``evaluate.every`` and ``evaluate.batches`` say how often and on how much it is done.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich import console as rich_console

from thalnet_mtl import SequenceTask, TaskSpec, load_config, register, train
from thalnet_mtl.cli.main import main as thalnet
from thalnet_mtl.console import Console
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.step import TrainStep

PER_TASK = {"when": "per_task", "policy": "frozen"}


@register("task", "brightest")
def brightest(turn: int = 0) -> SequenceTask:
    """Column that is brightest in the first row: 4 rows of 3, with the columns turned."""

    def load() -> dict[str, Any]:
        xs = torch.randint(256, (260, 4, 3), generator=torch.Generator().manual_seed(turn))
        ys = (xs[:, 0].argmax(-1) + turn) % 3
        parts = {"train": slice(0, 160), "validation": slice(160, 200), "test": slice(200, 260)}
        return {name: (xs[part].to(torch.uint8), ys[part]) for name, part in parts.items()}

    return SequenceTask("brightest", load, TaskSpec(3, 3, steps=4), scale=255)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiences", type=int, default=100)
    parser.add_argument("--tasks", type=int, help="that return in turn (one for each experience)")
    parser.add_argument("--steps", type=int, default=20, help="of each experience")
    parser.add_argument("--strategy", default="naive")
    parser.add_argument("--growth", default="never", choices=["never", "per_task"])
    parser.add_argument("--no-report", dest="report", action="store_false", help="write no page")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of the run, to look at")
    return parser


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measurement = measure(options, options.keep or Path(folder) / "run")
    if options.out:
        options.out.write_text(json.dumps(measurement, separators=(",", ":")) + "\n")
    print(json.dumps({key: value for key, value in measurement.items() if key != "each"}, indent=1))


def configuration(options: argparse.Namespace) -> dict[str, Any]:
    names = [f"t{number:03}" for number in range(options.tasks or options.experiences)]
    growth: dict[str, Any] = {"when": options.growth}
    if options.growth == "per_task":
        growth["modules"] = {"side": {"features": 4, "output": True, "tasks": ["new"]}}
    return {
        "tasks": {name: {"name": "brightest", "turn": k} for k, name in enumerate(names)},
        "stream": [
            {"tasks": [names[number % len(names)]], "steps": options.steps}
            for number in range(options.experiences)
        ],
        "model": {"modules": 3, "features": 6, "budget": 0},
        "growth": growth,
        "train": {"strategy": options.strategy, "batch": 10, "learning_rate": 0.01},
        "strategy": {"memory": 200} if options.strategy in ("replay", "gem", "agem") else {},
        "evaluate": {"every": options.steps, "log_every": 10},
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train, and return seconds of processor time and megabytes by experience.

    ``seconds`` are without evaluation; ``steps`` are those of them in training steps, which are
    forward and backward passes and the update of the optimizer.
    """
    each: list[dict[str, float]] = []
    state = {"evaluation": 0.0, "steps": 0.0, "last": 0.0, "written": 0.0}
    after_step = Trainer.after_step

    def timed(function: Callable[..., Any], name: str = "evaluation") -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            start = time.process_time()
            result = function(*args, **named)
            state[name] += time.process_time() - start
            return result

        return call

    def timed_step(trainer: Trainer, losses: Any) -> None:
        over = trainer.run.step + 1 == trainer.run.experience.stop
        after_step(trainer, losses)
        if over:
            now, bytes_written = time.process_time(), written()
            checkpoint = sum(
                f.stat().st_size for f in (folder / "checkpoint").rglob("*") if f.is_file()
            )
            each.append({
                "seconds": round(now - state["last"] - state["evaluation"], 4),
                "evaluation": round(state["evaluation"], 4),
                "steps": round(state["steps"], 4),
                "resident_mb": round(resident(), 2),
                "written_kb": round(bytes_written - state["written"], 1),
                "checkpoint_kb": round(checkpoint / 1e3, 1),
            })  # fmt: skip
            state.update(last=now, evaluation=0.0, steps=0.0, written=written())

    methods: list[tuple[Any, str, Any]] = [
        (RunContext, "scores", timed(RunContext.scores)),
        (RunDirectory, "log", timed(RunDirectory.log)),
        (TrainStep, "__call__", timed(TrainStep.__call__, "steps")),
        (Trainer, "after_step", timed_step),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in methods]
    for owner, name, method in methods:
        setattr(owner, name, method)
    path = folder.parent / "config.yaml"
    path.write_text(json.dumps(configuration(options)))
    config = load_config(str(path))
    said = StringIO()
    console = Console(rich_console.Console(file=said, width=100))
    start = state["last"] = time.process_time()
    train(config, folder, console)
    trained = time.process_time()
    for owner, name, method in before:
        setattr(owner, name, method)
    if options.report:
        assert thalnet(["report", str(folder)]) == 0
    reported = time.process_time()
    return {
        "experiences": options.experiences,
        "tasks": options.tasks or options.experiences,
        "strategy": options.strategy,
        "growth": options.growth,
        "seconds": round(trained - start, 2),
        "evaluation": round(sum(e["evaluation"] for e in each), 2),
        "first": mean(each[1:21]),
        "last": mean(each[-20:]),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        "printed_kb": round(len(said.getvalue()) / 1e3, 1),
        "report_seconds": round(reported - trained, 2),
        "report_mb": round(report_size(folder) / 1e6, 3),
        "each": each,
    }


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(sum(row[key] for row in rows) / len(rows), 4) for key in rows[0]}


def report_size(folder: Path) -> int:
    page = folder / "report.html"
    return page.stat().st_size if page.exists() else 0


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def written() -> float:
    """Return the kilobytes that this process has written."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"]) / 1e3


if __name__ == "__main__":
    main()
