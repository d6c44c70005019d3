"""Runs on switching dynamics, whose right number of modules is known."""

from typing import Any

from thalnet_mtl import load_config
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

GRU = {"input": True, "output": True}


def switching(rules: int = 2, modules: int = 1, **sections: Any) -> RunContext:
    """Return a run on switching dynamics, whose modules read only themselves."""
    names = [f"m{k}" for k in range(1, 1 + modules)]
    sections = {
        "task": {"name": "switching_dynamics", "rules": rules},
        "modules": {name: {**GRU, "reads": [name]} for name in names},
        "model": {"features": 3, "module": "gru", "reading": "linear"},
        "growth": {"modules": {"m": GRU}},
        "train": {"steps": 2000, "batch": 64, "optimizer": "adam", "learning_rate": 0.01},
        **sections,
    }
    return set_up(load_config(**sections), fetch=print)


def trained(run: RunContext, steps: int) -> RunContext:
    """Return a run after some steps."""
    train_step = TrainStep(run)
    for _ in range(steps):
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1
    return run


def snapshot(run: RunContext) -> dict[str, Any]:
    """Return what a decision must leave as it is."""
    state = run.state.state_dict()
    return {key: state[key] for key in ("network", "optimizer", "topology", "batches_seen", "step")}
