"""A network that answers each sequence by the path that fits its inputs best."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.path_choice import PathChooser
from thalnet_mtl.ops.inputs import Inputs, map_inputs
from thalnet_mtl.ops.lengths import Lengths
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch


class PathNetwork(nn.Module):
    """A network that is called as another one, and chooses a path for every sequence.

    Args:
        network: with the paths as its tasks.
        chooser: fitted to the inputs of each path.
    """

    def __init__(self, network: Network, chooser: PathChooser):
        super().__init__()
        self.network, self.chooser = network, chooser

    def forward(
        self, task: str, xs: Inputs, state: Any = None, lengths: Lengths | None = None
    ) -> tuple[Tensor, None]:
        """Return the outputs for whole sequences, whatever the task; there is no state."""
        chosen = self.chooser.choose(xs, lengths)
        parts, order = list[Tensor](), list[int]()
        for path in self.chooser.tasks:
            places = [place for place, name in enumerate(chosen) if name == path]
            if places:
                rows = map_inputs(itemgetter(places), xs)
                steps = None if lengths is None else lengths[places]
                parts.append(self.network(path, rows, None, steps)[0])
                order += places
        return torch.cat(parts)[torch.tensor(order).argsort()], None


def fit_chooser(task: Task, batches: Mapping[str, Sequence[Batch]]) -> PathChooser:
    """Return a chooser that is fitted to the inputs of each path.

    Args:
        task: of which all batches are.
        batches: by path, some on which it was trained.
    """
    chooser = PathChooser()
    for path, of_path in batches.items():
        batch = task.concatenate(of_path)
        chooser.fit(path, task.spec, batch.xs, batch.lengths)
    return chooser


def parameters_of(network: Network, path: str) -> dict[str, Tensor]:
    """Return a copy of the parameters of a path that train, by name."""
    named = network.task_parameters(path)
    return {name: p.detach().clone() for name, p in named.items() if p.requires_grad}


@torch.no_grad()
def restore(network: Network, parameters: Mapping[str, Tensor]) -> None:
    """Give parameters of a network their earlier values."""
    named = dict(network.named_parameters())
    for name, value in parameters.items():
        named[name].copy_(value)
