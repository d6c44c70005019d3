"""What the benchmarks share: runs in processes of their own, their records, tables in READMEs."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MARKS = "<!-- results -->", "<!-- end of results -->"

Record = dict[str, Any]


def train_all(jobs: Mapping[str, Sequence[str]], runs: Path, results: Path, count: int) -> None:
    """Commands of ``thalnet train`` by the name of their run, ``count`` at a time.

    A finished run is not repeated, an interrupted one goes on where it stopped.
    """
    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(train, *job, runs, results) for job in jobs.items()]
    for job in waiting:
        job.result()


def train(name: str, command: Sequence[str], runs: Path, results: Path) -> None:
    """One run, and its record in ``results`` whether it succeeded or not."""
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(runs / f"{name}.log", "a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "thalnet_mtl.cli", "train", *command, "--out", str(folder)],
            stdout=log,
            stderr=log,
        )
    record: Record = {"command": " ".join(["thalnet train", *command])}
    if done.returncode == 0:
        record["result"] = json.loads((folder / "result.json").read_text())
        record["environment"] = json.loads((folder / "environment.json").read_text())
        record["curves"] = curves(folder / "metrics.jsonl")
    else:
        record["failed"] = f"exit status {done.returncode}"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(name, record.get("failed", "done"), flush=True)


def curves(path: Path) -> dict[str, dict[str, list[float]]]:
    """By task: validation metric and mean training loss, by step."""
    wanted = {("train", "loss"), ("validation", "accuracy"), ("validation", "bits_per_character")}
    found: dict[str, dict[str, list[float]]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        if (line["split"], line["metric"]) in wanted:
            curve = found.setdefault(line["task"], {})
            curve.setdefault(f"{line['split']}_step", []).append(line["step"])
            curve.setdefault(f"{line['split']}_{line['metric']}", []).append(
                round(line["value"], 5)
            )
    return found


def with_table(text: str, table: str) -> str:
    """A README with the table between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"
