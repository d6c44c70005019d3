"""Fingerprints of data, by which a run notices that it goes on with others, and of weights."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.checksum import add_tensor
from thalnet_mtl.ops.inputs import inputs_by_name
from thalnet_mtl.runs.run_files import FINGERPRINTS, read_environment
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.splits.sequences import Sequences
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.setup import make_tasks

LARGEST = 64 * 2**20  # bytes of inputs that are read; of more, evenly spaced sequences
MOST_STORED = 256  # sequences that are read where they are not in memory


def fingerprint(task: Task, chunk: int, split: str = "train") -> str:
    """Return a checksum of a split of the data of a task, the same on every device.

    It covers all targets and lengths, and the inputs up to ``LARGEST`` bytes; beyond, those of
    evenly spaced sequences.

    Args:
        task: with its data loaded.
        chunk: of a text, tokens in a sequence.
        split: train, validation or test.
    """
    data, digest = task.sequences(split, chunk), hashlib.sha1(usedforsecurity=False)
    count = LARGEST // max(1, data.bytes_per_sequence())
    count = min(len(data), max(1, count if isinstance(data, Sequences) else MOST_STORED))
    places = torch.arange(count) * len(data) // count
    sample = data if isinstance(data, Sequences) and count == len(data) else data.select(places)
    inputs = inputs_by_name(sample.xs)
    parts = {**{f"input {name}": xs for name, xs in inputs.items()}, "targets": data.ys}
    for name, part in parts.items():
        add_tensor(digest, name, part)
    if data.lengths is not None:
        add_tensor(digest, "lengths", data.lengths)
    return digest.hexdigest()


def fingerprints(tasks: Mapping[str, Task], chunk: int) -> dict[str, dict[str, str]]:
    """Return checksums of the training data, and of validation and test data, by task."""
    held_out = ("validation", "test")
    return {
        "fingerprints": {name: fingerprint(task, chunk) for name, task in tasks.items()},
        "held_out_fingerprints": {
            name: "-".join(fingerprint(task, 1, split) for split in held_out)
            for name, task in tasks.items()
        },
    }


def check_same_data(folder: Path, current: Mapping[str, Any]) -> None:
    """Raise if a run began with other data; runs of earlier versions have no fingerprints.

    Args:
        folder: of the run.
        current: what ``fingerprints`` returns today, perhaps beside other things.

    Raises:
        UserError: the data of a task differs; says which.
    """
    path = folder / "environment.json"
    recorded = read_environment(path)
    for kind, title in FINGERPRINTS.items():
        for name, checksum in current[kind].items():
            if recorded.get(kind, {}).get(name, checksum) != checksum:
                raise UserError(
                    f"task '{name}': its {title} data is not that with which {folder} began: its "
                    f"fingerprint is not that in {path}. Restore the data, or start in another "
                    f"folder."
                )


def check_data_from_python(folder: Path, from_python: Collection[str], config: Config) -> None:
    """Raise if the data of tasks that are given from Python is not that with which a run began.

    Args:
        folder: of the run.
        from_python: the names of those tasks in the registry.
        config: of the run.

    Raises:
        UserError: it differs; says of which task.
    """
    names = [name for name, task in config.named_tasks.items() if task.name in from_python]
    tasks = make_tasks(config) if names else {}
    loaded = {name: tasks[name].load("cpu") for name in names}
    check_same_data(folder, fingerprints(loaded, config.train.chunk))


def weights_checksum(network: nn.Module) -> str:
    """Return a checksum of the weights of a network, the same whatever file they stand in."""
    digest = hashlib.sha256(usedforsecurity=False)
    for name, weight in sorted(network.state_dict().items()):
        add_tensor(digest, name, weight)
    return digest.hexdigest()


def check_agreement(run: RunContext) -> None:
    """Raise unless all ranks of a run have the same weights and random state, to the bit.

    Every rank computes for itself all but the gradients of the task losses, and decides for itself
    how the network grows. If that is not the same on all, their weights drift apart.

    Raises:
        UserError: something differs; says what, and on which rank.
    """
    if run.ranks.several:
        digest = hashlib.sha256(usedforsecurity=False)
        add_tensor(digest, "random state", torch.get_rng_state())
        facts = {"weights": weights_checksum(run.network), "a random state": digest.hexdigest()}
        run.ranks.check_same(
            {f"{what} at step {run.step:,} with checksum": sum for what, sum in facts.items()},
            "Code of your own must do the same on all of them, with the random numbers of torch; "
            "and they need processors of one kind.",
        )
