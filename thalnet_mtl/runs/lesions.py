"""Scores of a run with each module lesioned in turn: ``lesions.json``, for reports.

``thalnet evaluate RUN --lesions`` writes it, after the run has ended. Entries for weights of
another step than those that it scores are dropped: the run has gone on since.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import attempt, read_fields, write_text
from thalnet_mtl.json_fields import typed

LESIONS = "lesions.json"


@dataclass(frozen=True)
class TaskLesions:
    """Scores of the network on a task as it is, and without each module that runs for the task."""

    step: int  # of the weights
    split: str
    batches: int  # scored at most; 0: all
    scores: Mapping[str, float]  # by metric, the main one first
    without: Mapping[str, Mapping[str, float]]  # by module


def read_lesions(folder: Path) -> dict[str, TaskLesions]:
    """Read the lesions of a run by task; {} if there are none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / LESIONS
    if not path.exists():
        return {}
    content = read_fields(path)
    lesions: dict[str, TaskLesions] = typed(content, dict[str, TaskLesions], str(path))
    for task, entry in lesions.items():
        if any(scores.keys() != entry.scores.keys() for scores in entry.without.values()):
            raise UserError(f"{path}: {task} is damaged: its modules have other metrics.")
    return lesions


def record_lesions(folder: Path, lesions: Mapping[str, TaskLesions]) -> Path:
    """Add lesions of tasks to those of a run, and return the file."""
    path = folder / LESIONS
    steps = {entry.step for entry in lesions.values()}
    kept = {task: entry for task, entry in read_lesions(folder).items() if entry.step in steps}
    content = {task: asdict(entry) for task, entry in (kept | dict(lesions)).items()}
    with attempt(f"write {path}"):
        write_text(path, json.dumps(content, indent=2) + "\n")
    return path
