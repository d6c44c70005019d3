"""Measures a whole run of ``thalnet train``: its steps, evaluation, joint steps, growth, a stream.

    python -m benchmarks.speed.whole_run                      # into results/ and the README
    python -m benchmarks.speed.whole_run --parts steps growth --json out.json

Everything is processor time with one thread, which other work on the machine hardly increases.
What is compared alternates in one process; a ratio is the median over rounds.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from rich import console as rich_console

from benchmarks.speed import long_stream
from benchmarks.speed.cases import CASES, Step
from benchmarks.speed.machine import FOLDER, LIMITS, limit_instructions, provenance, record_name
from benchmarks.speed.report import save
from thalnet_mtl import load_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.console import Console
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.setup import fetch_with, set_up

TASKS = {"mnist50": "permuted_mnist", "mnist256": "permuted_mnist", "cifar50": "cifar10_rows"}
STEPS = 50  # in a block: as many as there are between two lines of the log
ROUNDS = 12
JOINT_ROUNDS = 30
NEVER = 10**6  # steps until a validation: it is measured by itself
GROWTHS = 8
Measurement = dict[str, Any]
PARTS: dict[str, Callable[[Path], Iterator[Measurement]]] = {}


def part(function: Callable[[Path], Iterator[Measurement]]) -> Callable[[Path], Any]:
    """Add a function that yields measurements in a folder to those of this benchmark."""
    PARTS[function.__name__] = function
    return function


@contextmanager
def trainer(*configs: str | dict[str, Any], folder: Path) -> Iterator[Trainer]:
    """Have a run at its first step: fused Adam, one thread, no trackers."""
    common = {"trackers": [], "train": {"optimizer": "adam", "threads": 1}}
    complete = resolve_options(load_config(common, *configs), complete=True)
    console = Console(rich_console.Console(file=StringIO()))
    run = set_up(complete, fetch_with(console), folder)
    directory = RunDirectory(folder, complete)
    try:
        started = Trainer(run, directory, console)
        started.resume_or_start()
        yield started
    finally:
        directory.close()


def take_step(trainer: Trainer) -> None:
    """Take the next step of a run, with all that ``thalnet train`` does for it."""
    inputs = trainer.before_step()
    assert inputs is not None
    trainer.after_step(trainer.train_step(inputs))


def timed(function: Callable[[], Any], times: int = 1) -> float:
    """Return the processor time of some calls of a function, in seconds for each."""
    start = process_time()
    for _ in range(times):
        function()
    return (process_time() - start) / times


@part
def steps(folder: Path) -> Iterator[Measurement]:
    """Yield the throughput of a run relative to the bare step, and that of its evaluation."""
    for case, task in TASKS.items():
        config = {
            "model": {"modules": 4, "features": 32, "budget": 0},
            "task": {"name": task},
            "train": {"batch": CASES[case].batch, "epochs": 1000},
            "evaluate": {"every": NEVER, "log_every": STEPS},
        }
        with trainer(config, folder=folder / case) as run:
            bare = Step(CASES[case], run.run.network.body.backend(), "cpu", "fp32")
            count = len(run.run.tasks[task].split("validation"))
            rounds: list[tuple[float, float, float]] = []
            for _ in range(ROUNDS + 1):
                in_run = timed(partial(take_step, run), STEPS)
                alone = timed(bare, STEPS)
                score = timed(partial(run.run.scores, [task], "validation"))
                rounds.append((in_run, alone, score))
        of_run, of_bare, of_score = zip(*rounds[1:], strict=True)
        trained = [CASES[case].batch / seconds for seconds in of_run]
        yield {
            "what": "steps",
            "config": case,
            "throughput_to_bare": median(b / a for a, b in zip(of_run, of_bare, strict=True)),
            "step_seconds": median(of_run),
            "bare_seconds": median(of_bare),
            "rounds": ROUNDS,
        }
        yield {
            "what": "evaluation",
            "config": case,
            "throughput_to_training": median(
                count / seconds / rate for seconds, rate in zip(of_score, trained, strict=True)
            ),
            "sequences_per_second": median(count / seconds for seconds in of_score),
            "rounds": ROUNDS,
        }


@part
def joint(folder: Path) -> Iterator[Measurement]:
    """Yield the time of a joint step of three tasks relative to the sum of steps of each alone.

    All four runs have the same network with modules, encoders and heads for three tasks. One run
    has a batch of each task in a step, the other ones a batch of one task alone.
    """
    config = "joint/three_tasks"
    names = list(load_config(config).tasks)
    options = {"train": {"steps": NEVER}, "evaluate": {"every": NEVER, "batches": 1}}
    streams: list[dict[str, Any]] = [{}]
    for name in names:
        others = [other for other in names if other != name]
        streams.append({"stream": [{"tasks": [name]}, {"tasks": others}]})
    with ExitStack() as stack:
        runs = [
            stack.enter_context(trainer(config, options, stream, folder=folder / f"joint{k}"))
            for k, stream in enumerate(streams)
        ]
        for run in runs:
            take_step(run)
        rounds = [[timed(partial(take_step, run)) for run in runs] for _ in range(JOINT_ROUNDS)]
    yield {
        "what": "joint",
        "tasks": names,
        "to_sum_of_parts": median(whole / sum(parts) for whole, *parts in rounds),
        "seconds": [median(times) for times in zip(*rounds, strict=True)],
        "rounds": JOINT_ROUNDS,
    }


@part
def growth(folder: Path) -> Iterator[Measurement]:
    """Yield the time of growth in a run: by configured changes, and by the rule ``per_task``.

    It is all that a step with growth takes beyond a usual step, but for test scores: the change,
    the optimizer with its flat buffers, records of it in files, and a slower first step.
    """
    common: dict[str, Any] = {
        "model": {"modules": 4, "features": 32, "budget": 0},
        "train": {"batch": 50},
        "evaluate": {"every": NEVER, "batches": 1, "log_every": NEVER},
    }
    changes = [
        {"step": 20 * k, "verb": "attach", "name": f"new{k}", "read_by": ["output"]}
        for k in range(1, GROWTHS + 1)
    ]
    by_hand = common | {"task": {"name": "permuted_mnist"}, "changes": changes}
    by_hand["train"] = {"batch": 50, "steps": 20 * (GROWTHS + 1)}
    tasks = [f"t{k}" for k in range(GROWTHS + 1)]
    by_rule = common | {
        "tasks": {t: {"name": "permuted_mnist", "permutation": k} for k, t in enumerate(tasks)},
        "stream": [{"tasks": [t], "steps": 20} for t in tasks],
        "growth": {"when": "per_task", "modules": {"out": {"output": True, "tasks": ["new"]}}},
    }
    for rule, config in {"changes": by_hand, "per_task": by_rule}.items():
        with trainer(config, folder=folder / rule) as run:
            times = list(_step_times(run))
        usual = median(times)
        grown = [times[20 * k] - usual for k in range(1, GROWTHS + 1)]
        yield {
            "what": "growth",
            "rule": rule,
            "milliseconds": 1e3 * median(grown),
            "most_milliseconds": 1e3 * max(grown),
            "usual_milliseconds": 1e3 * usual,
            "growths": GROWTHS,
        }


def _step_times(run: Trainer) -> Iterator[float]:
    """Take all steps of a run, and yield the time of each until its losses are there."""
    scoring, score = [0.0], run.monitor.score_untrained

    def timed_score(task: str, step: int) -> None:
        scoring[0] += timed(partial(score, task, step))

    run.monitor.score_untrained = timed_score  # type: ignore[method-assign]
    while True:
        start, scored = process_time(), scoring[0]
        inputs = run.before_step()
        if inputs is None:
            return
        losses = run.train_step(inputs)
        yield process_time() - start - (scoring[0] - scored)
        run.after_step(losses)


@part
def stream(folder: Path) -> Iterator[Measurement]:
    """Yield the time of the last experiences of a stream of 100 tasks relative to the first."""
    for rule in ("never", "per_task"):
        words = ["--experiences", "100", "--growth", rule, "--no-report"]
        options = long_stream.parser().parse_args(words)
        parent = folder / f"stream-{rule}"
        parent.mkdir()
        measured = long_stream.measure(options, parent / "run")
        each = measured["each"]
        first, last = each[1:21], each[-20:]
        yield {
            "what": "stream",
            "growth": rule,
            "last_to_first": _mean(last, "seconds") / _mean(first, "seconds"),
            "steps_last_to_first": _mean(last, "steps") / _mean(first, "steps"),
            "seconds": [_mean(first, "seconds"), _mean(last, "seconds")],
            "step_seconds": [_mean(first, "steps"), _mean(last, "steps")],
            "each": [entry["seconds"] for entry in each],
        }


def _mean(rows: Sequence[dict[str, float]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only print these"
    )
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--instructions", choices=LIMITS, default="native")
    options = parser.parse_args()
    limit_instructions(options.instructions)
    record, measurements = provenance("cpu"), list[Measurement]()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.parts:
            for measurement in PARTS[name](Path(folder)):
                shown = {k: v for k, v in measurement.items() if k != "each"}
                print(json.dumps(shown), flush=True)
                measurements.append(measurement)
    record |= {"measurements": measurements}
    if options.json:
        save(record, options.json, publish=False)
    elif options.parts == list(PARTS):  # some of them would replace the record of all
        save(record, FOLDER / "results" / "whole_run" / record_name("cpu"), publish=True)


if __name__ == "__main__":
    main()
