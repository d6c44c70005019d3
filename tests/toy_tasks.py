"""Tasks and configurations small enough to train in a moment, registered as a user's would be."""

from typing import Any

import torch

from thalnet_mtl.config.options import declared_options
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import Config
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.losses import CrossEntropy
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.topology.spec import TaskSpec

# What the command line is given to train the first of them.
TOY = [
    "debug",
    "--task.name=toy_rows",
    "--model.features=6",
    "--model.modules=3",
    "--train.steps=20",
]


@register("task", "toy_rows")
def toy_rows() -> SequenceTask:
    """Which column is brightest in the first row: 4 rows of 3."""

    def load() -> dict[str, Any]:
        xs = torch.randint(256, (460, 4, 3), generator=torch.Generator().manual_seed(0))
        ys = xs[:, 0].argmax(-1)
        xs = xs.to(torch.uint8)
        parts = {"train": slice(0, 300), "validation": slice(300, 360), "test": slice(360, 460)}
        return {name: (xs[part], ys[part]) for name, part in parts.items()}

    return SequenceTask("toy_rows", load, TaskSpec(3, 3, steps=4), scale=255)


@register("task", "toy_turned")
def toy_turned() -> SequenceTask:
    """``toy_rows`` with other answers: the next column."""
    before = toy_rows()

    def load() -> dict[str, Any]:
        return {name: (xs, (ys + 1) % 3) for name, (xs, ys) in before.read_splits().items()}

    return SequenceTask("toy_turned", load, TaskSpec(3, 3, steps=4), scale=255)


@register("task", "toy_wide")
def toy_wide() -> SequenceTask:
    """Whether the first row is bright on the left: 5 rows of 4."""

    def load() -> dict[str, Any]:
        xs = torch.randint(256, (300, 5, 4), generator=torch.Generator().manual_seed(1))
        ys = (xs[:, 0, 0] > xs[:, 0, 3]).long()
        xs = xs.to(torch.uint8)
        parts = {"train": slice(0, 200), "validation": slice(200, 240), "test": slice(240, 300)}
        return {name: (xs[part], ys[part]) for name, part in parts.items()}

    return SequenceTask("toy_wide", load, TaskSpec(4, 2, steps=5), scale=255)


@register("task", "toy_text")
def toy_text() -> TextTask:
    """A text of five letters with some order in it."""

    def load() -> dict[str, torch.Tensor]:
        noise = torch.randint(2, (3000,), generator=torch.Generator().manual_seed(0))
        text = (torch.arange(3000) % 3 + noise).to(torch.uint8)
        return {"train": text[:2000], "validation": text[2000:2500], "test": text[2500:]}

    return TextTask("toy_text", load, vocabulary=5)


@register("task", "toy_kinds")
def toy_kinds(
    answer: str = "class",
    lengths: bool = False,
    missing: float = 0.0,
    rows: int = 200,
    seed: int = 2,
) -> SequenceTask:
    """A target of some kind about the same sequences: 6 steps of 3 numbers.

    ``answer`` is class, each (a class at every step), labels or numbers; ``missing`` is the share
    of targets that are not there, in a random pattern of each answer.
    """

    def load() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        xs = torch.rand(rows, 6, 3, generator=generator)
        steps = torch.randint(1, 7, (rows,), generator=generator)
        steps[0] = 6
        ys = {
            "class": xs.sum(1).argmax(1),
            "each": xs.argmax(2),
            "labels": (xs.mean(1)[:, :2] > 0.5).float(),
            "numbers": xs.mean(1)[:, :1],
        }[answer]
        gone = torch.rand(ys.shape, generator=torch.Generator().manual_seed(len(answer))) < missing
        ys = ys.masked_fill(gone, float("nan") if ys.is_floating_point() else -100)
        data = (xs, ys, steps) if lengths else (xs, ys)
        cuts = {"train": slice(0, rows - 60), "validation": slice(rows - 60, rows - 30)}
        cuts["test"] = slice(rows - 30, rows)
        return {name: tuple(part[cut] for part in data) for name, cut in cuts.items()}

    widths = {"class": 3, "each": 3, "labels": 2, "numbers": 1}
    spec = TaskSpec(3, widths[answer], every_step=answer == "each", steps=6)
    target = "class" if answer == "each" else answer
    return SequenceTask("toy_kinds", load, spec, target=target)


@register("task", "toy_weighted")
def toy_weighted() -> SequenceTask:
    """``toy_kinds`` with classes of unequal weight, one of them 0."""
    kinds, loss = toy_kinds(), CrossEntropy(class_weights=[0.0, 1.0, 5.0])
    return SequenceTask("toy_weighted", kinds.read_splits, kinds.spec, loss=loss)


JOINT: dict[str, Any] = {
    "tasks": {"toy_rows": {}, "toy_text": {}},
    "modules": {
        "rows": {"input": True, "output": True, "tasks": ["toy_rows"]},
        "text": {"input": True, "output": True, "tasks": ["toy_text"]},
        "trunk": {},
    },
}
GROWTH = [
    {"step": 10, "verb": "attach", "name": "late", "read_by": ["trunk", "text"]},
    {"step": 20, "verb": "clone", "name": "twin", "source": "trunk"},
    {"step": 20, "verb": "route", "name": "rows", "source": "twin"},
    {"step": 25, "verb": "freeze", "name": "trunk"},
    {"step": 30, "verb": "unfreeze", "name": "trunk"},
    {"step": 40, "verb": "detach", "name": "late"},
]

# One task of three shapes after another, 20 steps each.
STREAM: dict[str, Any] = {
    "tasks": {"toy_rows": {}, "toy_wide": {}, "toy_text": {}},
    "stream": [{"tasks": [task], "steps": 20} for task in ("toy_rows", "toy_wide", "toy_text")],
}
OWN = {"in": {"input": True}, "out": {"output": True}}
PER_TASK: dict[str, Any] = {"when": "per_task", "modules": OWN}
GROWING: dict[str, dict[str, Any]] = {
    "never": {},
    "frozen": PER_TASK,
    "shared": PER_TASK | {"policy": "shared"},
    "plateau": {
        "when": "on_plateau",
        "policy": "shared",
        "patience": 1,
        "modules": {"more": {}},
    },
}


def knobs_of(strategy: str, **values: Any) -> dict[str, Any]:
    """Those of some options that a strategy has."""
    declared = declared_options("strategy", strategy)
    return {name: value for name, value in values.items() if name in declared}


def toy(**sections: Any) -> Config:
    """A configuration of seconds: 6 features, 60 steps, everything else by section."""
    tree: dict[str, Any] = {
        "model": {"features": 6, "modules": 3},
        "task": {"name": "toy_rows"},
        "train": {"steps": 60, "batch": 10, "chunk": 7, "learning_rate": 0.01},
        "evaluate": {"every": 20, "batch": 24, "log_every": 8, "checkpoint_every": 6},
    }
    if "tasks" in sections:
        del tree["task"]
    for name, values in sections.items():
        tree[name] = tree.get(name, {}) | values if isinstance(values, dict) else values
    return overlay(Config(), tree, "test")
