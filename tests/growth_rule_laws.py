"""The laws that every registered rule of growth keeps, on random streams; as a script also alone::

    python tests/growth_rule_laws.py RULE --examples 20

A rule of your own gets them as soon as it is registered, for example by an entry point. In a test
of your own, call ``rules_keep_their_laws(name, seed, folder)``; further arguments are sections of
the configuration, which it may need.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import kill_and_resume
import pytest
import rich.console
import torch
from run_fixtures import interrupt_at
from torch import Tensor
from toy_tasks import OWN, toy

from thalnet_mtl import registry
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.registry import entries, lookup
from thalnet_mtl.training.growth.base import GrowthRule
from thalnet_mtl.training.trainer import train

PATH = {"low": {"input": True, "output": True}}
# Sections by rule, so that it acts in a run of few steps; all others have their defaults.
SECTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "on_plateau": {"growth": {"policy": "shared", "patience": 1}},
    "search": {"growth": {"prune": True, "cost": 2.0}},
    "paths": {
        "growth": {"recent": 3, "window": 4, "threshold": 0.5, "modules": PATH},
        "train": {"boundaries": "hidden"},
        "modules": PATH,
    },
}
TASKS = ("toy_rows", "toy_turned", "toy_wide")
ONE_SHAPE = TASKS[:2]
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
ACTS = ("begin_experience", "before_step", "end_experience")


def rules_keep_their_laws(name: str, seed: int, folder: Path, **sections: Any) -> None:
    """Train a random stream with a rule, once in a piece and once cut, and check its laws.

    As long as a task is frozen it has the same logits, bit for bit. What a rule attaches leaves
    those of all other tasks as they were, to rounding, if the rule trains nothing itself. And the
    run that was cut ends with the same bits.
    """
    draw = Random(seed)
    config = random_stream(name, draw, sections or SECTIONS.get(name, {}))
    quiet = Console(rich.console.Console(file=io.StringIO()))
    with watched(name):
        train(config, folder / "whole", quiet)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(draw.randrange(sum(e.steps for e in config.stream)), patch)
            train(config, folder / "cut", quiet)
        train(config, folder / "cut", quiet)
    assert kill_and_resume.differences(folder / "whole", folder / "cut") == []


def random_stream(name: str, draw: Random, sections: dict[str, Any]) -> Config:
    """Return two or three tasks one after another, trained with a random optimizer."""
    tasks = {f"t{k}": {"name": draw.choice(TASKS)} for k in range(draw.choice([2, 3]))}
    if sections.get("train", {}).get("boundaries") == "hidden":  # one head, each sequence once
        tasks = {n: {"name": ONE_SHAPE[k % 2], "head": "path1"} for k, n in enumerate(tasks)}
    options = {
        "optimizer": draw.choice([*entries("optimizer")]),
        "weight_decay": 0.1,
        "clip": 0.5,
    }
    options |= {"seed": draw.randrange(1000), "steps": 0} | sections.get("train", {})
    return toy(
        **{part: values for part, values in sections.items() if part not in ("growth", "train")},
        tasks=tasks,
        stream=[{"tasks": [task], "steps": draw.randint(8, 12)} for task in tasks],
        growth={"when": name, "modules": OWN} | sections.get("growth", {}),
        train=options,
        evaluate={"every": 4, "checkpoint_every": 4},
    )


@contextmanager
def watched(name: str) -> Iterator[None]:
    """Let a rule check its laws before and after it acts, within a ``with`` block."""
    rule: type[GrowthRule] = lookup("growth", name)

    def watch(act: str) -> Any:
        def watching(self: GrowthRule) -> Any:
            compare(self, logits(self))
            before = logits(self)
            changes = getattr(rule, act)(self)
            after = logits(self)
            compare(self, after)
            for head in before.keys() & after.keys() if self.separate_rng else ():
                if act != "end_experience":  # where modules may be taken out
                    torch.testing.assert_close(after[head], before[head], **ROUNDING)
            return changes

        return watching

    def compare(self: GrowthRule, now: dict[str, Tensor]) -> None:
        kept = vars(self).setdefault("_frozen_logits", {})
        for head, value in now.items():
            if self.network.adapter(head).spec.frozen:
                assert torch.equal(kept.setdefault(head, value), value), head
            else:
                kept.pop(head, None)

    acts = {act: watch(act) for act in ACTS if act != "before_step" or overrides(rule, act)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._entries["growth"], name, type(rule.__name__, (rule,), acts))
        yield


def overrides(rule: type[GrowthRule], act: str) -> bool:
    return getattr(rule, act) is not getattr(GrowthRule, act)


@torch.no_grad()
def logits(rule: GrowthRule) -> dict[str, Tensor]:
    """Return those of every head, on some training sequences of a task of its shape."""
    found = {}
    for head in rule.network.adapters:
        shape = rule.network.adapter(head).task
        task = next(each for each in rule.run.tasks.values() if each.spec == shape)
        found[head] = rule.network(head, task.training_batch(3, 10, 7, 0).xs)[0]
    return found


def main() -> int:
    """Try the laws with a rule and return the exit status."""
    parser = argparse.ArgumentParser(description="Try the laws of a rule of growth.")
    parser.add_argument("rule")
    parser.add_argument("--examples", type=int, default=10)
    options = parser.parse_args()
    for seed in range(options.examples):
        with tempfile.TemporaryDirectory() as folder:
            rules_keep_their_laws(options.rule, seed, Path(folder))
    print(f"{options.rule}: its laws hold in {options.examples} examples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
