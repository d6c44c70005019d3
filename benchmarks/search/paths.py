"""Measures whether a change of the data finds the right path, and what that is worth.

    python -m benchmarks.search.paths --seeds 0 1 2 3 4 5 6 7

Three tasks, of which two return, in one pass with hidden boundaries: ``growth.when`` paths against
one path that learns all (never). Data and settings are those of ``drift``. The raw records are in
``results/paths.json``; runs that have one are not trained again, and without seeds ``PATHS.md`` is
only made from them.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean
from typing import Any

from benchmarks.markdown import header, row
from benchmarks.search.drift import DATA, FOLDER, Data, configuration, stream_of, update
from thalnet_mtl.files import write_text
from thalnet_mtl.report.cells import spread
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

RECORDS, TABLE = FOLDER / "results" / "paths.json", FOLDER / "PATHS.md"
ORDER = (0, 1, 2, 0, 1)

Records = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by data and change, seed, and growth


def train(data: Data, change: str, seed: int, growth: str) -> dict[str, Any]:
    """Return the path that trains at the end of each experience, and the final scores.

    Scores are of the test split, normalized: 0 is guessing, 1 a perfect answer.
    """
    config = configuration(data, stream_of(data, change, ORDER), seed, growth)
    run = set_up(config, fetch=lambda name: None)
    step, rule, ends = TrainStep(run), run.state.rule, list[str]()
    assert run.task_stream is not None
    while run.step < run.total_steps:
        grow_if_due(run)
        losses = step(StepInputs(next_batches(run), run.learning_rate()))
        rule.after_step(float(losses.max()))
        run.state.step += 1
        if run.step % data.steps == 0:
            ends.append(run.task_stream.head_name)
    scores = []
    for name, task in run.tasks.items():
        metric = task.metric
        guess = run.guess(name, "test")[metric.name]
        scores.append(metric.normalized_score(run.score(name, "test")[metric.name], guess))
    return {"ends": ends, "paths": len(run.network.adapters), "scores": scores}


def record(seeds: Sequence[int]) -> None:
    """Train the runs that have no record yet, and write their records."""
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    for seed, name, change in product(seeds, DATA, ("abrupt", "blurry")):
        of_change = records.setdefault(f"{name}: {change}", {})
        if str(seed) not in of_change:
            of_change[str(seed)] = {
                growth: train(DATA[name], change, seed, growth) for growth in ("paths", "never")
            }
            write_text(RECORDS, json.dumps(records, separators=(",", ":")) + "\n")
            print(f"{name}: {change}, seed {seed}", flush=True)


def right(ends: Sequence[str]) -> tuple[int, int]:
    """Return how many new tasks have got a path of their own, and how many have found theirs again.

    It counts which path trains at the end of an experience. A new task is right with one that no
    earlier task had then, and one that returns with that which it had.
    """
    homes, new, again = dict[int, str](), 0, 0
    for task, path in zip(ORDER, ends, strict=True):
        again += homes.get(task) == path
        new += task not in homes and bool(homes) and path not in homes.values()
        homes.setdefault(task, path)
    return new, again


def table(records: Records) -> str:
    """Return the table of all data."""
    lines = header(
        "data", "changes", "new tasks with a path of their own", "returning tasks on their path",
        "paths, of 3 tasks", "normalized score, paths", "normalized score, one path", "seeds",
    )  # fmt: skip
    for name, by_seed in records.items():
        data, _, change = name.partition(": ")
        counts = [right(runs["paths"]["ends"]) for runs in by_seed.values()]
        new, again = (sum(column) for column in zip(*counts, strict=True))
        scores = [
            spread([mean(runs[growth]["scores"]) for runs in by_seed.values()])
            for growth in ("paths", "never")
        ]
        paths = mean(runs["paths"]["paths"] for runs in by_seed.values())
        total = 2 * len(by_seed)
        cells = [f"{new} of {total}", f"{again} of {total}", f"{paths:.1f}", *scores]
        lines.append(row(data, change, *cells, str(len(by_seed))))
    return "\n".join(lines)


if __name__ == "__main__":
    update(__doc__, record, table, RECORDS, TABLE)
