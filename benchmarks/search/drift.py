"""Measures how often the detector of changes is wrong, and how late it is right.

    python -m benchmarks.search.drift --seeds 0 1 2 3 4 5 6 7

A small network learns streams with hidden boundaries in one pass: without a change, and with four
changes, abrupt or blurry. Their training losses are the raw records, ``results/drift.json``; the
detector runs on them, so that other settings need no training. Streams that have a record are not
trained again; without seeds ``DRIFT.md`` is only made from the records.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.markdown import header, row, with_table
from thalnet_mtl import load_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.files import write_text
from thalnet_mtl.training.change_detection import Cusum
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

FOLDER = Path(__file__).parent
RECORDS, TABLE = FOLDER / "results" / "drift.json", FOLDER / "DRIFT.md"
ORDER = (0, 1, 2, 3, 0)  # the tasks of a stream with changes
SETTINGS = ((0.5, 8.0), (0.25, 12.0), (0.5, 6.0))  # allowance and threshold; the first is default

Streams = Mapping[str, Mapping[str, Sequence[float]]]  # losses, by data and change, and by seed


@dataclass(frozen=True)
class Data:
    """A family of four tasks that differ in one thing.

    Args:
        tasks: in a configuration.
        batch: sequences in a batch.
        steps: of an experience with changes.
        unchanged: steps of a stream without a change.
        repeats: streams without a change for each seed, as short ones say little.
    """

    tasks: Sequence[dict[str, Any]]
    batch: int
    steps: int
    unchanged: int
    repeats: int = 1


DIGITS: dict[str, Any] = {"name": "variant", "of": "digits_rows"}
DATA = {
    "digits, labels permuted": Data(
        [{"name": "digits_rows"}, *(DIGITS | {"label_order": k} for k in (1, 2, 3))], 4, 150, 300, 5
    ),
    "digits, columns permuted": Data(
        [{"name": "digits_rows"}, *(DIGITS | {"input_order": k} for k in (1, 2, 3))], 4, 150, 300, 5
    ),
    "permuted MNIST": Data(
        [{"name": "permuted_mnist", "permutation": k} for k in range(4)], 10, 400, 1600
    ),
    "switching dynamics, two rules": Data(
        [{"name": "switching_dynamics", "rules": 2, "steps": 10, "seed": k} for k in range(4)],
        10, 350, 780, 2,
    ),
}  # fmt: skip


def blur(data: Data, change: str) -> int:
    """Return the steps that a change takes."""
    return data.steps // 3 if change == "blurry" else 0


def stream_of(data: Data, change: str, order: Sequence[int] = ORDER) -> list[dict[str, Any]]:
    """Return a stream with the changes of an order of tasks, or without a change."""
    if change == "none":
        return [{"tasks": ["t0"], "steps": data.unchanged // 2}] * 2
    parts = [{"tasks": [f"t{k}"], "steps": data.steps} for k in order]
    return [parts[0], *(part | {"blur": blur(data, change)} for part in parts[1:])]


def configuration(
    data: Data, stream: Sequence[Mapping[str, Any]], seed: int, growth: str = "never"
) -> Config:
    """Return the configuration of a run."""
    tasks = {f"t{k}": task | {"head": "path1"} for k, task in enumerate(data.tasks)}
    modules = {"low": {"input": True}, "high": {"output": True}}
    return load_config(
        tasks={name: tasks[name] for part in stream for name in part["tasks"]},
        stream=stream,
        modules=modules,
        model={"features": 16},
        growth={"when": growth, **({"modules": modules} if growth != "never" else {})},
        train={
            "boundaries": "hidden",
            "batch": data.batch,
            "optimizer": "adam",
            "learning_rate": 0.003,
            "clip": 1.0,
            "seed": seed,
        },
    )


def losses(data: Data, change: str, seed: int) -> list[float]:
    """Return the training losses of a stream, to three digits."""
    config = configuration(data, stream_of(data, change), seed)
    run = set_up(config, fetch=lambda name: None)
    step, values = TrainStep(run), list[float]()
    while run.step < run.total_steps:
        values.append(float(step(StepInputs(next_batches(run), run.learning_rate())).max()))
        run.state.step += 1
    return [float(f"{value:.3g}") for value in values]


def record(seeds: Sequence[int]) -> None:
    """Train the streams that have no record yet, and write their losses."""
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    for name, data in DATA.items():
        for change in ("none", "abrupt", "blurry"):
            of_change = records.setdefault(f"{name}: {change}", {})
            repeats = data.repeats if change == "none" else 1
            for seed in (1000 * k + seed for k in range(repeats) for seed in seeds):
                if str(seed) not in of_change:
                    of_change[str(seed)] = losses(data, change, seed)
                    print(f"{name}: {change}, seed {seed}", flush=True)
            RECORDS.parent.mkdir(exist_ok=True)
            write_text(RECORDS, json.dumps(records, separators=(",", ":")) + "\n")


def alarms(values: Sequence[float], setting: tuple[float, float]) -> list[int]:
    """Return the steps at which a change is detected."""
    detector = Cusum(*setting)
    return [step for step, loss in enumerate(values) if detector.update(loss)]


def false_alarms(streams: Mapping[str, Sequence[float]], setting: tuple[float, float]) -> str:
    """Return the false alarms per 10,000 steps without a change, with their number."""
    count = sum(len(alarms(values, setting)) for values in streams.values())
    steps = sum(map(len, streams.values()))
    return f"{10_000 * count / steps:.1f} ({count} in {steps:,})"


def detections(
    data: Data, change: str, streams: Mapping[str, Sequence[float]], setting: tuple[float, float]
) -> list[str]:
    """Return how many changes are detected, the median delay from their middle, and other alarms.

    A change is detected by the first alarm after it has begun, up to half an experience after its
    middle.
    """
    delays, changes, other_alarms = list[int](), len(ORDER) - 1, 0
    for values in streams.values():
        steps = alarms(values, setting)
        other_alarms += len(steps)
        for middle in range(data.steps, (changes + 1) * data.steps, data.steps):
            begin = middle - blur(data, change) // 2
            hits = [step for step in steps if begin <= step < middle + data.steps // 2]
            delays += [step - middle for step in hits[:1]]
    delay = f"{median(delays):.0f}" if delays else "–"
    return [f"{len(delays)} of {changes * len(streams)}", delay, str(other_alarms - len(delays))]


def table(records: Streams) -> str:
    """Return the table of all data and settings."""
    lines = header(
        "data", "allowance", "threshold", "false alarms per 10,000 steps without a change",
        "abrupt changes detected", "median delay, steps", "other alarms", "steps of a blur",
        "blurry changes detected", "median delay", "other alarms",
    )  # fmt: skip
    for name, data in DATA.items():
        for setting in SETTINGS:
            streams = {c: records[f"{name}: {c}"] for c in ("none", "abrupt", "blurry")}
            abrupt = detections(data, "abrupt", streams["abrupt"], setting)
            blurry = detections(data, "blurry", streams["blurry"], setting)
            numbers = [f"{value:g}" for value in setting]
            wrong = false_alarms(streams["none"], setting)
            width = str(blur(data, "blurry"))
            lines.append(row(name, *numbers, wrong, *abrupt, width, *blurry))
    return "\n".join(lines)


def update(
    description: str | None,
    record: Callable[[Sequence[int]], None],
    table: Callable[[Mapping[str, Any]], str],
    records: Path,
    page: Path,
) -> None:
    """Train what the command line asks for, and write the table of all records into a page.

    Args:
        description: of the command.
        record: trains some seeds, and writes their records.
        table: makes the table of the records.
        records: their file.
        page: with the table.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: table only")
    options = parser.parse_args()
    record(options.seeds)
    page.write_text(with_table(page.read_text(), table(json.loads(records.read_text()))))


if __name__ == "__main__":
    update(__doc__, record, table, RECORDS, TABLE)
