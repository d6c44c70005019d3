"""Compares criteria by which test sequences choose their path where the task is unknown.

    python -m benchmarks.paths.run --seeds 0 1 2 3 4
    python -m benchmarks.paths.run                       # only the table, from the records

A run that has a record in ``results/`` is not repeated.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.markdown import header, row, with_table
from benchmarks.paths.criteria import CRITERIA
from thalnet_mtl import load_config, load_run, train
from thalnet_mtl.models.path_choice import SAMPLES
from thalnet_mtl.report.cells import spread
from thalnet_mtl.tasks.batch import Batch, concatenate

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
BATCH = 50  # sequences that choose together


def tasks_of(stream: str, seed: int) -> dict[str, dict[str, Any]]:
    """Return the tasks of a stream by name."""
    small = {"name": "variant", "train_per_class": 400}
    digits = {"name": "variant", "of": "digits_rows"}
    few = digits | {"train_per_class": 20, "sample_seed": 1 + seed}
    if stream == "permutations":
        numbers = range(10 * seed, 10 * seed + 5)
        return {
            f"p{k}": small | {"of": {"name": "permuted_mnist", "permutation": k}} for k in numbers
        }
    if stream == "class_pairs":
        return {f"s{k}": small | {"of": f"split_mnist_{k}", "sample_seed": seed} for k in range(5)}
    if stream == "columns":
        orders = {f"order{k}": digits | {"input_order": 10 * seed + k} for k in (1, 2)}
        return {"digits": digits, **orders}
    return {"digits": digits, "again": few, "labels": few | {"label_order": 7}}


STREAMS = {
    "permutations": "MNIST, 5 permutations",
    "columns": "digits, 3 orders of the columns",
    "class_pairs": "MNIST, 5 pairs of classes",
    "same_inputs": "digits; fewer of them; with other labels",
}


def measure(stream: str, seed: int) -> dict[str, Any]:
    """Train a stream and return the shares of right choices by criterion."""
    tasks = tasks_of(stream, seed)
    config = load_config(
        tasks=tasks,
        stream=[{"tasks": [name]} for name in tasks],
        model={"modules": 3, "features": 24, "budget": 150_000},
        growth={"when": "per_task", "modules": {"own": {"input": True, "output": True}}},
        train={"steps": 250, "batch": 32, "optimizer": "adam", "learning_rate": 0.003,
               "clip": 5, "seed": seed},
        evaluate={"every": 250, "log_every": 250, "batches": 2},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder)
        run = load_run(folder)
    loaded = {name: run.task(name).load("cpu") for name in tasks}
    fits = {name: first(task, "train") for name, task in loaded.items()}
    tests = [first(task, "test") for task in loaded.values()]
    ends = np.cumsum([len(batch.ys) for batch in tests])[:-1].tolist()
    criteria = {}
    with torch.no_grad():
        for title, criterion in CRITERIA.items():
            scores = criterion(run.network, fits, concatenate(tests, None))
            parts = zip(tasks, np.split(scores, ends, axis=1), strict=True)
            criteria[title] = {name: choices(part, list(tasks), name) for name, part in parts}
    return {"stream": stream, "seed": seed, "criteria": criteria}


def first(task: Any, split: str) -> Batch:
    """Return up to 1,000 sequences of a split, chosen by chance."""
    data = task.sequences(split, 1)
    places = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    batch: Batch = task.to_batch(data.select(places.sort().values))
    return batch


def choices(scores: np.ndarray, paths: list[str], own: str) -> dict[str, Any]:
    """Return the share of sequences by chosen path, and that of batches that choose their own."""
    chosen = np.bincount(scores.argmax(0), minlength=len(paths)) / scores.shape[1]
    sums = [scores[:, k : k + BATCH].sum(1) for k in range(0, scores.shape[1] - BATCH + 1, BATCH)]
    together = float(np.mean([paths[int(total.argmax())] == own for total in sums]))
    return {"chosen": dict(zip(paths, chosen.tolist(), strict=True)), "batches": together}


def report(results: Path) -> str:
    """Return the table of all records."""
    lines = header("criterion", *STREAMS.values())
    for title in CRITERIA:
        cells = []
        for stream in STREAMS:
            own, batches = [], []
            for path in sorted(results.glob(f"{stream}_*.json")):
                tasks = json.loads(path.read_text())["criteria"][title]
                own.append(100 * np.mean([t["chosen"][name] for name, t in tasks.items()]))
                batches.append(100 * np.mean([t["batches"] for t in tasks.values()]))
            cells.append(f"{spread(own, 1)}; {np.mean(batches):.0f}" if own else "–")
        lines.append(row(title, *cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--streams", nargs="+", choices=list(STREAMS), default=list(STREAMS))
    options = parser.parse_args()
    for seed in options.seeds:
        for stream in options.streams:
            path = RESULTS / f"{stream}_{seed}.json"
            if not path.exists():
                RESULTS.mkdir(exist_ok=True)
                path.write_text(json.dumps(measure(stream, seed), indent=1) + "\n")
                print(path.name, flush=True)
    readme = FOLDER / "README.md"
    readme.write_text(with_table(readme.read_text(), report(RESULTS)))


if __name__ == "__main__":
    main()
