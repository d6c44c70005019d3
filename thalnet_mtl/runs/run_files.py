"""Files of a run directory beside its configuration, result and topology, read and checked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_fields
from thalnet_mtl.json_fields import require, typed

ScoreMatrix = Float[np.ndarray, "stage task"]
ReadingWeights = Float[np.ndarray, "context center"]

# Keys of ``environment.json`` with checksums by task, and the data that they are of.
FINGERPRINTS = {"fingerprints": "training", "held_out_fingerprints": "validation or test"}
_ENVIRONMENT: dict[str, Any] = {
    **dict.fromkeys(("python", "platform", "processor", "device"), str),
    "commit": str | None,
    "cores": int | None,
    "threads": int,
    "packages": Mapping[str, str | None],
    "data": Mapping[str, Mapping[str, str]] | None,
    "notices": Mapping[str, Sequence[str]],
    "scalings": Mapping[str, Sequence[Mapping[str, Sequence[float]] | None]],
    **dict.fromkeys(FINGERPRINTS, Mapping[str, str]),
    "resumed": Sequence[Mapping[str, Any]],
    "lineage": Sequence[Mapping[str, Any]],
}


def read_environment(path: Path) -> dict[str, Any]:
    """Read ``environment.json``, whose keys have depended on the version; {} if there is none.

    Raises:
        UserError: the file is damaged, or a value has another type.
    """
    content = read_fields(path) if path.exists() else {}
    for key, kind in _ENVIRONMENT.items():
        if key in content:
            typed(content[key], kind, f"{path}: {key}")
    return content


def lineage_lines(folder: Path) -> list[str]:
    """Return a line on each time that a run started from another one, or went on changed.

    Raises:
        UserError: ``environment.json`` is damaged.
    """
    path, lines = folder / "environment.json", list[str]()
    for entry in read_environment(path).get("lineage", ()):
        require(entry, ("run", "step", "weights", "date"), f"{path}: lineage")
        place, changed = f"step {entry['step']:,}", entry.get("changed")
        if changed is None:
            place = f"{entry['run']}, {place}" if entry["step"] else str(entry["run"])
            lines.append(f"started from {place} (weights {entry['weights'][:12]}), {entry['date']}")
        else:
            values = ", ".join(f"{name} {there} → {now}" for name, (there, now) in changed.items())
            lines.append(f"went on at {place} with {values}, {entry['date']}")
    return lines


def read_reading_weights(
    path: Path,
) -> tuple[dict[str, ReadingWeights], dict[str, int], list[str]]:
    """Read reading weights by module, widths of the slots, and names of dynamic readings.

    All are empty if there is no file.

    Raises:
        UserError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return {}, {}, []
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            widths = typed(json.loads(metadata["slots"]), dict[str, int], "slots")
            dynamic = typed(json.loads(metadata["dynamic"]), list[str], "dynamic")
            weights = {name: file.get_tensor(name) for name in widths}
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    shapes = {weight.shape[1:] for weight in weights.values()}
    if min(widths.values(), default=1) < 1 or (widths and shapes != {(sum(widths.values()),)}):
        raise UserError(f"{path} is damaged: its weights are not as wide as its slots.")
    return weights, widths, dynamic


def read_accuracy_matrix(path: Path, tasks: Sequence[str]) -> ScoreMatrix:
    """Read ``accuracy_matrix.csv``: a row a stage, a column a task; NaN for an empty cell.

    Raises:
        UserError: there is no file, or it is damaged.
    """
    if not path.exists():
        raise UserError(f"{path.parent} has no {path.name}: the run has not finished.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header, *rows = [line.split(",") for line in lines]
        if header[1:] != list(tasks) or any(len(row) != len(header) for row in rows):
            raise ValueError("its columns are not the tasks of the run")
        return np.array([[float(x or "nan") for x in row[1:]] for row in rows])
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
