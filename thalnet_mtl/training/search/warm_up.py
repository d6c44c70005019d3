"""The warm-up of new parameters: entries that a change of the topology adds take larger steps.

New units answer at once, but hardly get a gradient at first: what reads them starts at zero. So
they need a head start before they are compared with a network that has long converged.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from thalnet_mtl.models.change import TopologyChange

WARM_UP = 3.0  # how much larger the steps of new parameters are in a race
Entries = Mapping[str, Tensor]  # by parameter: which of its entries are new, of type bool


def new_entries(changes: Iterable[TopologyChange]) -> dict[str, Tensor]:
    """Return which entries of which parameters are new after changes in the order given."""
    masks = dict[str, Tensor]()
    for change in changes:
        masks = change.update_named(masks)
        for name, resized in change.grown.items():
            old = torch.ones_like(resized.old, dtype=torch.bool)
            masks[name] = masks.get(name, False) | ~resized.remap(old)
        for name in change.created:
            masks[name] = torch.ones_like(change.parameters[name], dtype=torch.bool)
    return {name: mask for name, mask in masks.items() if mask.any()}


@contextmanager
def larger_steps(network: nn.Module, new: Entries, factor: float) -> Iterator[None]:
    """Make an optimizer step within the context larger by a factor, in new entries.

    That is the same as a learning rate for them alone, for every optimizer whose step is
    proportional to its rate.
    """
    parameters = {name: network.get_parameter(name) for name in new}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    yield
    with torch.no_grad():
        for name, parameter in parameters.items():
            larger = before[name].lerp(parameter, factor)
            parameter.copy_(torch.where(new[name], larger, parameter))
