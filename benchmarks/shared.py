"""What the benchmarks share: runs in processes of their own, their records, tables in READMEs."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from thalnet_mtl.metrics.significance import bootstrap_interval
from thalnet_mtl.sweep.workers import thread_environment

MARKS = "<!-- results -->", "<!-- end of results -->"

Record = dict[str, Any]
BySeed = dict[int, Record]


def train_all(jobs: Mapping[str, Sequence[str]], runs: Path, results: Path, count: int) -> None:
    """Commands of ``thalnet train`` by the name of their run, ``count`` at a time.

    A finished run is not repeated, an interrupted one goes on where it stopped. On a GPU ``count``
    processes share the runs among themselves, each of them ``beside.WIDTH`` at a time.
    """
    jobs = {name: command for name, command in jobs.items() if not done(results / f"{name}.json")}
    with ThreadPoolExecutor(count) as pool:
        if torch.cuda.is_available():
            parts = [dict(list(jobs.items())[k::count]) for k in range(count)]
            waiting = [pool.submit(train_beside, part, runs, results) for part in parts if part]
        else:
            waiting = [pool.submit(train, *job, runs, results, count) for job in jobs.items()]
    for job in waiting:
        job.result()


def done(path: Path) -> bool:
    """Whether a run has a record and did not fail."""
    return path.exists() and "result" in json.loads(path.read_text())


def train(name: str, command: Sequence[str], runs: Path, results: Path, count: int) -> None:
    """One run of ``count`` at a time, and its record in ``results`` whether it succeeded or not."""
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(runs / f"{name}.log", "a") as log:
        subprocess.run(
            [sys.executable, "-m", "thalnet_mtl.cli", "train", *command, "--out", str(folder)],
            stdout=log,
            stderr=log,
            env=thread_environment(count),
        )
    write_record(name, command, folder, results)


def train_beside(jobs: Mapping[str, Sequence[str]], runs: Path, results: Path) -> None:
    """Some runs side by side on a GPU, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.beside", str(runs), str(results)]
    subprocess.run(command, input=json.dumps(jobs), text=True)


def write_record(name: str, command: Sequence[str], folder: Path, results: Path) -> None:
    """What stays of a run: its result, or the last line that it said."""
    record: Record = {"command": " ".join(["thalnet train", *command])}
    if (folder / "result.json").exists():
        record["result"] = json.loads((folder / "result.json").read_text())
        record["environment"] = json.loads((folder / "environment.json").read_text())
        record["curves"] = curves(folder / "metrics.jsonl")
        readings = folder / "model" / "reading_weights.safetensors"
        if readings.exists():
            record["readings"] = read_strengths(readings)
    else:
        log = folder.with_name(f"{name}.log")
        said = log.read_text().strip().splitlines() if log.exists() else []
        record["failed"] = said[-1][:300] if said else "no word"
    results.mkdir(exist_ok=True, parents=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(name, record.get("failed", "done"), flush=True)


def read_strengths(path: Path) -> dict[str, dict[str, float]]:
    """As ``strengths``, of the readings that a run left."""
    with safe_open(path, "pt") as file:
        slots = json.loads(file.metadata()["slots"])
        matrices = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return strengths(matrices, slots)


def strengths(matrices: Mapping[str, Tensor], slots: Mapping[str, int]) -> dict[str, dict]:
    """How strongly each module reads each other: root mean square of that block of R."""
    return {
        name: {
            source: round(float(block.square().mean().sqrt()), 6)
            for source, block in zip(slots, matrix.split([*slots.values()], 1), strict=True)
        }
        for name, matrix in matrices.items()
    }


def load_records(folder: Path) -> dict[str, Record]:
    """All records of a folder by the name of their run."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def by_seed(folder: Path) -> dict[str, BySeed]:
    """Records of ``NAME-seedN`` by name, then by seed."""
    found: dict[str, BySeed] = {}
    for name, record in load_records(folder).items():
        start, dash, seed = name.rpartition("-seed")
        if dash:
            found.setdefault(start, {})[int(seed)] = record
    return found


def as_named(folder: Path) -> Path:
    """A folder of the benchmarks as a command would name it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and 95 % bootstrap interval; of equal values, the one."""
    if len(set(values)) < 2:
        return f"{values[0]:,.{digits}f}" if values else "–"
    low, high = bootstrap_interval([float(value) for value in values])
    return f"{mean(values):,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def head(*cells: str) -> list[str]:
    """The first lines of a table in Markdown."""
    return [row(*cells), "|" + "---|" * len(cells)]


def row(*cells: str) -> str:
    """One of its lines."""
    return f"| {' | '.join(cells)} |"


def commands(records: Iterable[Record]) -> str:
    """What repeats the numbers of a table, folded away; SEED where runs differ in no more."""
    found: dict[str, set[str]] = {}
    for record in records:
        words = re.sub(r"(--train\.seed) \d+", r"\1 SEED", record["command"])
        found.setdefault(words, set()).add(record["command"])
    lines = [words if len(own) > 1 else own.pop() for words, own in found.items()]
    return "\n".join([
        "<details><summary>Each number again: the commands</summary>", "",
        "```bash", *lines, "```", "", "</details>",
    ])  # fmt: skip


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
