"""ThalNet and GRU at 50k parameters on both image tasks: train all runs, collect, tabulate.

    python benchmarks/quality/run.py --epochs 15 --seeds 0 1 2 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
goes on where it stopped. Results go to ``results/`` as they come, one JSON file a run, and the
tables of both READMEs are made from those files alone (``--seeds`` without a number does only
that).
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
TASKS = {"permuted_mnist": "permuted MNIST", "cifar10": "CIFAR-10 by rows"}
BODIES = {"thalnet": "ThalNet, 4 modules", "gru": "GRU, 4 layers"}
MARKS = "<!-- results -->", "<!-- end of results -->"
READMES = HERE / "README.md", HERE.parents[1] / "README.md"


def train(task: str, body: str, seed: int, epochs: int, runs: Path) -> None:
    """One run, and its record in ``results/`` whether it succeeded or not."""
    name = f"{task}_{body}-{epochs}epochs-seed{seed}"
    folder = runs / name
    command = [
        *("train", f"paper/{task}_{body}", "--train.epochs", str(epochs)),
        *("--train.seed", str(seed), "--evaluate.log_every", "550"),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with open(runs / f"{name}.log", "a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "thalnet_mtl.cli", *command, "--out", str(folder)],
            stdout=log,
            stderr=log,
        )
    record: dict[str, object] = {"command": "thalnet " + " ".join(command)}
    if done.returncode == 0:
        record["result"] = json.loads((folder / "result.json").read_text())
        record["environment"] = json.loads((folder / "environment.json").read_text())
        record["curve"] = curve(folder / "metrics.jsonl")
    else:
        record["failed"] = f"exit status {done.returncode}"
    HERE.joinpath("results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(name, record.get("failed", "done"), flush=True)


def curve(path: Path) -> dict[str, list[float]]:
    """Validation accuracy and mean training loss, by step."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = {"validation": "accuracy", "train": "loss"}
    curves: dict[str, list[float]] = {}
    for split, metric in wanted.items():
        chosen = [x for x in lines if (x["split"], x["metric"]) == (split, metric)]
        curves[f"{split}_step"] = [x["step"] for x in chosen]
        curves[f"{split}_{metric}"] = [round(x["value"], 5) for x in chosen]
    return curves


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
        tests = [100 * result["test"]["accuracy"] for result in results]
        trains = [100 * result["train"]["accuracy"] for result in results]
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
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = product(options.seeds, TASKS, BODIES)
        jobs = [
            pool.submit(train, task, body, seed, options.epochs, options.runs)
            for seed, task, body in runs
        ]
    for job in jobs:
        job.result()
    for readme in READMES:
        readme.write_text(with_table(readme.read_text(), table()))


def with_table(text: str, table: str) -> str:
    """A README with the table between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"


if __name__ == "__main__":
    main()
