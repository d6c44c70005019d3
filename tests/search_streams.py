"""Streams of digits for the search: the task of before again, with few samples."""

from thalnet_mtl import load_config
from thalnet_mtl.training.setup import set_up

MODULES = {"low": {"input": True}, "high": {"output": True}}
FIRST = {"name": "digits_rows"}
SMALL = {"name": "variant", "of": "digits_rows", "train_per_class": 20, "sample_seed": 1}


def stream_of(*tasks, steps=256, answers=None, **sections):
    named = {f"t{k}": task for k, task in enumerate(tasks, 1)}
    defaults = {
        "tasks": named,
        "stream": answers or [{"tasks": [name]} for name in named],
        "modules": MODULES,
        "model": {"features": 12},
        "growth": {"when": "search", "modules": MODULES},
        "train": {"steps": steps, "batch": 32, "optimizer": "adam", "learning_rate": 0.01},
        "evaluate": {"every": steps, "log_every": steps},
    }
    for section, values in sections.items():
        defaults[section] = {**defaults.get(section, {}), **values}
    return load_config(**defaults)


def at_the_race(*tasks):
    """Return a run at the begin of its second experience."""
    run = set_up(stream_of(*tasks, steps=32), fetch=print)
    run.state.step = 32
    run.network.freeze(task="t1").update_optimizer(run.state.optimizer)
    run.forget_trainable_tasks()
    return run
