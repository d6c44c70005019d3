"""The modules of a ThalNet as parameters, and seated beside each other for one sequence."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

from torch import nn

from thalnet_mtl.models.designs import Design
from thalnet_mtl.models.readings.base import Reading
from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.registry import lookup
from thalnet_mtl.topology.graph import columns, slots
from thalnet_mtl.topology.spec import ModuleSpec


class Cell(nn.Module):
    """The parameters of one module."""

    def __init__(self, module: ModuleSpec, net: Mapping[str, ModuleSpec]):
        super().__init__()
        center = sum(net[name].features for name in module.seen)
        self.reading: Reading = lookup("reading", module.reading)(
            module.features, center, module.context
        )
        self.design: Design = lookup("module", module.module)(
            module.context + module.inputs, module.features, module.hidden or module.features
        )
        if module.opened:
            self.reading.resize(range(center), opened(module, net))
        self.requires_grad_(not module.frozen)

    def copy(self, source: "Cell", moved: Sequence[int], opened: Sequence[int]) -> None:
        """Take over the weights of another; column k of its reading was column ``moved[k]``."""
        learns = next(self.parameters()).requires_grad
        self.design, self.reading = deepcopy(source.design), deepcopy(source.reading)
        self.reading.resize(moved, opened)
        self.requires_grad_(learns)


def opened(module: ModuleSpec, net: Mapping[str, ModuleSpec]) -> list[int]:
    """The columns of a reading that were opened after it was made."""
    return [k for k, (slot, _) in enumerate(columns(module, net)) if slot in module.opened]


def place(
    net: Mapping[str, ModuleSpec], cell: Callable[[str], Cell], names: Sequence[str]
) -> Placement:
    """Some modules, in the order of the net, with their places in a center of their slots alone."""
    places = slots(net[name] for name in names)
    width = sum(net[name].features for name in names)
    placed: list[PlacedCell] = []
    start = 0
    for name in names:
        module, parameters = net[name], cell(name)
        read = columns(module, net)
        pairs = [
            (places[slot].start + k, column)
            for column, (slot, k) in enumerate(read)
            if slot in places
        ]
        sees, own = [place for place, _ in pairs], [column for _, column in pairs]
        placed.append(
            PlacedCell(
                name,
                slot=places[name],
                memory=slice(start, start + parameters.design.memory),
                visible=None if sees == list(range(width)) else sees,
                columns=None if own == list(range(len(read))) else own,
                inputs=module.inputs,
                context=module.context,
                reading=parameters.reading,
                design=parameters.design,
            )
        )
        start = placed[-1].memory.stop
    return Placement(placed)
