"""A new path for data that no path of a network fits: of its own, or as a search decides."""

from copy import deepcopy
from operator import itemgetter

import torch

from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.ops.inputs import map_inputs
from thalnet_mtl.runs.topology_file import DecisionEntry
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.search.by_hand import TRAIN, search
from thalnet_mtl.training.search.candidates import Candidate, apply, candidates

ALONE = Candidate("alone")
NAME = "path_of_its_own"  # of a path that is only built to know its size


def alone(network: Network, config: Config, spec: TaskSpec, path: str) -> list[TopologyChange]:
    """Add a path with modules of its own, ``growth.modules``. Returns the changes."""
    return apply(ALONE, network, config, {path: spec}, path)


def largest(
    network: Network, config: Config, spec: TaskSpec, searches: bool
) -> tuple[Candidate, int]:
    """Return the candidate for a new path with the most parameters, and their number.

    Args:
        network: with the paths that may be reused; it stays as it is.
        config: of the run.
        spec: the shape of the data.
        searches: whether a search decides; otherwise the path has modules of its own.
    """
    every = {c for head in network.adapters for c in candidates(network, config, spec, head)}
    sizes = dict[Candidate, int]()
    with torch.random.fork_rng({p.device for p in network.parameters() if p.is_cuda}):
        for candidate in sorted(every, key=str) if searches else (ALONE,):
            copied = deepcopy(network)
            apply(candidate, copied, config, {NAME: spec}, NAME)
            sizes[candidate] = count_parameters(copied) - count_parameters(network)
    chosen = max(sizes, key=sizes.__getitem__)
    return chosen, sizes[chosen]


def searched(
    network: Network, config: Config, task: Task, path: str, batch: Batch, budget: int, price: float
) -> tuple[list[TopologyChange], DecisionEntry]:
    """Add a path as a search on a batch decides. Returns the changes, and the record.

    Args:
        network: whose paths may be reused; they are frozen.
        config: of the run.
        task: with the shape, the target and the loss of the data.
        path: name of the new path.
        batch: the data; every fifth sequence is for validation.
        budget: steps with which the search reckons.
        price: see ``Search``.
    """
    data = [batch.xs, batch.ys, *([] if batch.lengths is None else [batch.lengths])]
    fifths = torch.arange(len(batch.ys), device=batch.ys.device) % 5 == 0
    splits = {
        name: tuple(map_inputs(itemgetter(rows), part) for part in data)
        for name, rows in (("train", ~fifths), ("validation", fifths), ("test", fifths))
    }
    decision = search(
        network,
        SequenceTask(path, splits, task.spec, target=task.target.name, loss=task.loss_function),
        budget=budget,
        train={name: getattr(config.train, name) for name in TRAIN},
        growth={"modules": as_plain(config.growth.modules), "price": price},
        model={name: getattr(config.model, name) for name in ("features", "context", "hidden")},
    )
    return decision.apply(network), decision.record
