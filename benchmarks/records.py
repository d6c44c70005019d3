"""Records of training runs: what is kept of a run directory, and how it is read back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from thalnet_mtl.config.yaml_text import parse_yaml
from thalnet_mtl.runs.summaries import RunSummary, read_summaries

Record = dict[str, Any]
RunsBySeed = dict[int, Record]

CURVES = {("train", "loss"), ("validation", "accuracy"), ("validation", "bits_per_character")}


def write_record(
    name: str, command: Sequence[str], folder: Path, results: Path, error: str = ""
) -> None:
    """Write the record of a run: its result, or the error that ended it without one."""
    record: Record = {"command": " ".join(["thalnet train", *command])}
    if (config := folder / "config.yaml").exists():
        record["config"] = parse_yaml(config.read_text(), str(config))
    if (folder / "result.json").exists():
        record["result"] = json.loads((folder / "result.json").read_text())
        record["environment"] = json.loads((folder / "environment.json").read_text())
        record["curves"] = read_curves(folder / "metrics.jsonl")
        weights = folder / "model" / "reading_weights.safetensors"
        if weights.exists():
            record["readings"] = read_strengths(weights)
    else:
        record["failed"] = error[:300] or "the run ended without a message"
    results.mkdir(exist_ok=True, parents=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(name, record.get("failed", "done"), flush=True)


def read_curves(path: Path) -> dict[str, dict[str, list[float]]]:
    """Return the validation metric and the mean training loss of each task with their steps."""
    curves: dict[str, dict[str, list[float]]] = {}
    with path.open() as lines:
        for line in map(json.loads, lines):
            if (line["split"], line["metric"]) in CURVES:
                curve = curves.setdefault(line["task"], {})
                curve.setdefault(f"{line['split']}_step", []).append(line["step"])
                curve.setdefault(f"{line['split']}_{line['metric']}", []).append(
                    round(line["value"], 5)
                )
    return curves


def read_strengths(path: Path) -> dict[str, dict[str, float]]:
    """Return the reading strengths of the weights that a run saved."""
    with safe_open(path, "pt") as file:
        slots = json.loads(file.metadata()["slots"])
        matrices = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return reading_strengths(matrices, slots)


def reading_strengths(
    matrices: Mapping[str, Tensor], slots: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Return how strongly each module reads each slot: root mean square of that block of R."""
    return {
        name: {
            source: round(float(block.square().mean().sqrt()), 6)
            for source, block in zip(slots, matrix.split([*slots.values()], 1), strict=True)
        }
        for name, matrix in matrices.items()
    }


def load_records(folder: Path, names: str = "*") -> dict[str, Record]:
    """Return the records of a folder whose names match a pattern, by the name of their run."""
    paths = sorted(folder.glob(f"{names}.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def load_runs(folder: Path) -> list[RunSummary]:
    """Return all runs of a folder as ``thalnet table`` reads them."""
    paths = sorted(folder.glob("*.json"))
    return read_summaries(paths)[0] if paths else []


def load_by_seed(folder: Path) -> dict[str, RunsBySeed]:
    """Return the records of the runs ``NAME-seedN`` by name, then by seed."""
    runs: dict[str, RunsBySeed] = {}
    for name, record in load_records(folder, "*-seed*").items():
        start, _, seed = name.rpartition("-seed")
        runs.setdefault(start, {})[int(seed)] = record
    return runs


def is_finished(path: Path) -> bool:
    """Return whether a run has a record and did not fail."""
    return path.exists() and "result" in json.loads(path.read_text())


def succeeded(runs: RunsBySeed) -> RunsBySeed:
    """Return the runs that have a result."""
    return {seed: record for seed, record in runs.items() if "result" in record}


def seed_count(done: int, failed: int) -> str:
    """Return the number of seeds as a table shows it, with the failures where there are any.

    >>> seed_count(8, 0), seed_count(2, 3)
    ('8', '2 (3 failed)')
    """
    return f"{done}" + (f" ({failed} failed)" if failed else "")
