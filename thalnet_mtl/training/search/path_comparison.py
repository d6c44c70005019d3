"""A comparison of paths on recent data: which of them does as well as on its own?"""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.runs.topology_file import CandidateEntry
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch

NEW = "a new path"


class Comparison(NamedTuple):
    """The mean loss of each path, up to which loss it fits, and the loss of guessing."""

    losses: dict[str, float]
    limits: dict[str, float]
    guess: float

    def best(self, otherwise: str) -> str:
        """Return the path with the lowest loss among those that fit."""
        fitting = [path for path in self.losses if self.losses[path] <= self.limits[path]]
        return min(fitting, key=self.losses.__getitem__, default=otherwise)

    def __str__(self) -> str:
        shown = {
            path: [f"{value / self.guess:.3f}" for value in (loss, self.limits[path])]
            for path, loss in self.losses.items()
        }
        return ", ".join(f"{path} has {a} and fits up to {b}" for path, (a, b) in shown.items())

    def candidates(self, chosen: str, parameters: int) -> list[CandidateEntry]:
        """Return the paths as candidates; also a new one, with its parameters, if it is chosen."""
        scores = self.losses | ({NEW: self.guess} if chosen == NEW else {})
        return [
            CandidateEntry(
                candidate=path,
                parameters=parameters if path == NEW else 0,
                score=loss / self.guess,
                chosen=path == chosen,
            )
            for path, loss in scores.items()
        ]


def compare(
    network: Network,
    task: Task,
    batch: Batch,
    typical: Mapping[str, tuple[float, float]],
    errors: float,
) -> Comparison:
    """Compare the paths of a network on a batch.

    Args:
        network: with the paths as its tasks.
        task: of which the batch is.
        batch: of recent data.
        typical: by path, the mean and the deviation of its losses.
        errors: deviations above the mean up to which a path fits.
    """
    losses = {path: loss_of(network, path, task, batch) for path in typical}
    limits = {path: mean + errors * deviation for path, (mean, deviation) in typical.items()}
    return Comparison(losses, limits, loss_of_guessing(task, batch))


@torch.no_grad()
def loss_of(network: Network, path: str, task: Task, batch: Batch) -> float:
    """Return the mean loss of a path over a batch, in evaluation mode."""
    with evaluation_mode(network):
        outputs, _ = network(path, batch.xs, None, batch.lengths)
    return float(task.loss(outputs, batch))


def loss_of_guessing(task: Task, batch: Batch) -> float:
    """Return the mean loss of the best constant answer to a batch."""
    constant = task.target.constant(batch.ys, task.spec.outputs).nan_to_num(0.0).float()
    answers = constant.expand(*batch.ys.shape[: 1 + task.spec.every_step], -1)
    return float(task.loss(answers, batch))
