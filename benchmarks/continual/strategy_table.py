"""Writes ``STRATEGIES.md``: which strategy works with which kind of target.

    python -m benchmarks.continual.strategy_table

A cell says whether a stream of two tasks of that kind is accepted. What an accepted cell does is
tested in ``tests/strategies/test_every_target.py`` and ``tests/avalanche/test_every_target.py``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.markdown import header, row
from thalnet_mtl.config.options import declared_options
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries, register
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.setup import make_strategy, set_up

FILE = Path(__file__).with_name("STRATEGIES.md")
STEPS = 11  # of an experience; Avalanche's RWalk needs more than ten
PARTS = {"train": slice(0, 60), "validation": slice(60, 80), "test": slice(80, 100)}

INTRODUCTION = """# Which strategy works with which kind of target

Written by `python -m benchmarks.continual.strategy_table`; do not edit. A cell is a stream of two
tasks of this kind. *Works* means that a test trains it and checks what the strategy remembers; of
our own strategies also that an interrupted run resumes to the same bits. *No* means that a run is
refused before its first step, with the line below the table.

`strategy.choice: per_class` and Avalanche's GDumb balance classes. A sequence with several labels,
or with a class at every step, counts as the rarest of them. A task with numbers, or with the next
token as its target, counts as one class.
"""

Data = dict[str, tuple[Any, ...]]


def sequences() -> Tensor:
    """Return (100, 4, 3) numbers in [0, 1]."""
    return torch.rand(100, 4, 3, generator=torch.Generator().manual_seed(0))


def split(xs: Any, ys: Any, lengths: Tensor | None = None) -> Data:
    """Return the three splits of a data set."""
    data = {}
    for name, part in PARTS.items():
        inputs = {key: x[part] for key, x in xs.items()} if isinstance(xs, dict) else xs[part]
        data[name] = (inputs, ys[part]) + (() if lengths is None else (lengths[part],))
    return data


def turn_class(ys: Tensor, turned: bool) -> Tensor:
    """Return classes, or the next class in their place."""
    return (ys + turned) % 3


@register("task", "table_class")
def one_class(turned: bool = False) -> Task:
    """The largest number of the last step, by its place."""
    xs = sequences()
    return SequenceTask("table_class", split(xs, turn_class(xs[:, -1].argmax(-1), turned)))


@register("task", "table_classes")
def classes(turned: bool = False) -> Task:
    """The largest number of each step, by its place."""
    xs = sequences()
    return SequenceTask("table_classes", split(xs, turn_class(xs.argmax(-1), turned)))


@register("task", "table_labels")
def labels(turned: bool = False) -> Task:
    """The numbers of the last step that are above a half; some labels are missing."""
    xs = sequences()
    ys = ((xs[:, -1] > 0.5) ^ turned).float()
    ys[::7, 0] = ys[5::10] = torch.nan
    return SequenceTask("table_labels", split(xs, ys), target="labels")


@register("task", "table_numbers")
def numbers(turned: bool = False) -> Task:
    """Two numbers of the last step, in [-1, 1]; some are missing."""
    xs = sequences()
    ys = (2 * xs[:, -1, :2] - 1) * (-1) ** turned
    ys[::7, 0] = ys[5::10] = torch.nan
    return SequenceTask("table_numbers", split(xs, ys), target="numbers")


@register("task", "table_numbers_every_step")
def numbers_every_step(turned: bool = False) -> Task:
    """Two numbers of each step, in [-1, 1]; some are missing."""
    xs = sequences()
    ys = (2 * xs[..., :2] - 1) * (-1) ** turned
    ys[::7, 1] = torch.nan
    return SequenceTask("table_numbers_every_step", split(xs, ys), target="numbers")


@register("task", "table_text")
def text(turned: bool = False) -> Task:
    """The next of five letters: usually the next in the alphabet, or the one before."""
    noise = torch.randint(2, (600,), generator=torch.Generator().manual_seed(0))
    tokens = (torch.arange(600) % 3 + noise).to(torch.uint8)
    tokens = tokens.flip(0) if turned else tokens
    parts = {"train": tokens[:400], "validation": tokens[400:500], "test": tokens[500:]}
    return TextTask("table_text", lambda: parts, vocabulary=5)


@register("task", "table_lengths")
def lengths(turned: bool = False) -> Task:
    """The largest number of the last step, in sequences of one to four steps."""
    xs, counts = sequences(), torch.arange(100) % 4 + 1
    last = xs[torch.arange(100), counts - 1]
    return SequenceTask("table_lengths", split(xs, turn_class(last.argmax(-1), turned), counts))


@register("task", "table_inputs")
def inputs(turned: bool = False) -> Task:
    """The largest number of the last step, in two inputs of one and two numbers."""
    xs = sequences()
    ys = turn_class(xs[:, -1].argmax(-1), turned)
    return SequenceTask("table_inputs", split({"left": xs[..., :1], "right": xs[..., 1:]}, ys))


KINDS: dict[str, str] = {
    "one class": "table_class",
    "a class at every step": "table_classes",
    "labels": "table_labels",
    "numbers": "table_numbers",
    "numbers at every step": "table_numbers_every_step",
    "next token": "table_text",
    "unequal lengths": "table_lengths",
    "named inputs": "table_inputs",
}


def strategies() -> list[str]:
    """Return the built-in strategies, ours first."""
    names = [name for name in entries("strategy") if not name.startswith("toy_")]
    return sorted(names, key=lambda name: ":" in name)


def configuration(name: str, kind: str, steps: int = STEPS, **sections: dict[str, Any]) -> Config:
    """Return the configuration of a strategy and a kind of target; ``sections`` come last."""
    entry = {"name": KINDS[kind]}
    tree: dict[str, Any] = {
        "tasks": {"a": entry, "b": entry | {"turned": True}},
        "stream": [{"tasks": [task], "steps": steps} for task in "ab"],
        "model": {"modules": 3, "features": 4},
        "strategy": {"memory": 12} if "memory" in declared_options("strategy", name) else {},
        "train": {"strategy": name, "batch": 10, "chunk": 4, "learning_rate": 0.01},
        "evaluate": {"every": 20, "batch": 20, "log_every": 8, "checkpoint_every": 6},
    }
    for section, values in sections.items():
        tree[section] = tree[section] | values
    return overlay(Config(), tree, "table")


def refusal(run: RunContext, strategy: str) -> str:
    """Return the line with which a run is refused with a strategy, or '' if it is accepted."""
    run.config = replace(run.config, train=replace(run.config.train, strategy=strategy))
    try:
        make_strategy(run)
    except UserError as error:
        return str(error)
    return ""


def refusals() -> dict[tuple[str, str], str]:
    """Return the line with which each strategy refuses each kind of target, or ''."""
    lines = {}
    for kind in KINDS:
        run = set_up(configuration("naive", kind), fetch=lambda name: None)
        lines |= {(strategy, kind): refusal(run, strategy) for strategy in strategies()}
    return lines


def table() -> str:
    """Return the content of ``STRATEGIES.md``."""
    refused, notes = refusals(), list[str]()
    lines = header("strategy", *KINDS)
    for strategy in strategies():
        cells = []
        for kind in KINDS:
            reason = refused[strategy, kind]
            if reason and reason not in notes:
                notes.append(reason)
            cells.append(f"no ({notes.index(reason) + 1})" if reason else "works")
        lines.append(row(f"`{strategy}`", *cells))
    numbered = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([INTRODUCTION, *lines, "", *numbered, ""])


if __name__ == "__main__":
    FILE.write_text(table())
