"""ThalNet and GRU at 50k parameters on both image tasks: train all runs, collect, tabulate.

    python -m benchmarks.quality.run --epochs 15 --seeds 0 1 2 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
goes on where it stopped. Results go to ``results/`` as they come, one JSON file a run, and the
tables of both READMEs are made from those files alone (``--seeds`` without a number does only
that).
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.shared import Record, train_all, with_table

HERE = Path(__file__).parent
TASKS = {"permuted_mnist": "permuted MNIST", "cifar10": "CIFAR-10 by rows"}
BODIES = {"thalnet": "ThalNet, 4 modules", "gru": "GRU, 4 layers"}
READMES = HERE / "README.md", HERE.parents[1] / "README.md"


def jobs(epochs: int, seeds: Sequence[int]) -> dict[str, list[str]]:
    """All commands by the name of their run."""
    return {
        f"{task}_{body}-{epochs}epochs-seed{seed}": [
            *(f"paper/{task}_{body}", "--train.epochs", str(epochs)),
            *("--train.seed", str(seed), "--evaluate.log_every", "550"),
        ]
        for seed, task, body in product(seeds, TASKS, BODIES)
    }


def scores(record: Record) -> dict[str, Any]:
    """The scores of the one task of a run; the first runs were recorded without its name."""
    [task] = record["result"].get("tasks", {"": record["result"]}).values()
    return task


def table() -> str:
    """All results in Markdown, one row per task, body and length, failures counted."""
    groups: dict[tuple[str, str, int], list[dict]] = {}
    for path in sorted((HERE / "results").glob("*.json")):
        start, length, _ = path.stem.split("-")
        task, _, body = start.rpartition("_")
        key = task, body, int(length.removesuffix("epochs"))
        groups.setdefault(key, []).append(json.loads(path.read_text()))
    lines = [
        "| task | model | parameters | epochs | seeds | test % (each seed) | mean | train % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, body, epochs), records in sorted(groups.items(), reverse=True):
        results = [record["result"] for record in records if "result" in record]
        failed = len(records) - len(results)
        count = f"{len(results)}" + (f" ({failed} failed)" if failed else "")
        if not results:
            lines.append(f"| {TASKS[task]} | {BODIES[body]} | – | {epochs} | {count} | – | – | – |")
            continue
        tests = [100 * scores(r)["test"]["accuracy"] for r in records if "result" in r]
        trains = [100 * scores(r)["train"]["accuracy"] for r in records if "result" in r]
        lines.append(
            f"| {TASKS[task]} | {BODIES[body]} | {results[0]['parameters']['total']:,} "
            f"| {epochs} | {count} | {' · '.join(f'{x:.2f}' for x in tests)} "
            f"| {mean(tests):.2f} | {mean(trains):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: table only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    options = parser.parse_args()
    work = jobs(options.epochs, options.seeds)
    train_all(work, options.runs, HERE / "results", options.jobs)
    for readme in READMES:
        readme.write_text(with_table(readme.read_text(), table()))


if __name__ == "__main__":
    main()
