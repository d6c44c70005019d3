"""The cells of a ThalNet: the parameters of its modules, and their places in a sequence."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.body import check_name
from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.models.designs.options import with_options
from thalnet_mtl.models.modes import Freezable
from thalnet_mtl.models.readings.base import IndexMap, Reading
from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.ops.reference import reading_matrix
from thalnet_mtl.registry import lookup
from thalnet_mtl.topology.graph import ModuleGraph, slots


class Cell(Freezable):
    """The parameters of one module of a graph.

    ``start`` are its features and its memory before the first step; None: zeros.
    """

    start: nn.Parameter | None

    def __init__(self, name: str, graph: ModuleGraph):
        super().__init__()
        module = graph[name]
        center = graph.feature_width(module.seen)
        self.reading: Reading = lookup("reading", module.reading)(
            module.features, center, module.context
        )
        design: Design = lookup("module", module.module)(
            module.context + module.inputs, module.features, module.hidden or module.features
        )
        self.design = with_options(design, module)
        start = torch.zeros(module.features + design.memory)
        self.start = nn.Parameter(start) if module.options.trainable_start else None
        if module.opened:
            self.reading.resize(range(center), graph.opened_columns(name))
        self.set_frozen(module.frozen)

    def copy(self, source: "Cell", columns: Sequence[int], opened: Sequence[int]) -> None:
        """Copy another cell, with column ``columns[k]`` of its reading as column k."""
        self.design, self.reading = deepcopy(source.design), deepcopy(source.reading)
        self.start = deepcopy(source.start)
        self.reading.resize(columns, opened)
        self.set_frozen(self._frozen)


def make_cells(graph: ModuleGraph) -> nn.ModuleDict:
    """Return the cells of all modules of a graph, by name."""
    for name in graph:
        check_name("module", name)
    return nn.ModuleDict({name: Cell(name, graph) for name in graph})


def cell_of(cells: nn.ModuleDict, name: str) -> Cell:
    """Return the cell of a module."""
    if name not in cells:
        raise unknown("module", name, cells)
    cell = cells[name]
    assert isinstance(cell, Cell)
    return cell


def rewire(cells: nn.ModuleDict, old: ModuleGraph, graph: ModuleGraph) -> dict[str, IndexMap]:
    """Follow a change of the graph; modules that are in both graphs keep their parameters.

    What such a module reads may differ, and whether it is frozen, nothing else. Returns what
    happened to the shape of parameters, by name.

    Raises:
        UserError: a module cannot be changed so; nothing has changed.
    """
    for name in graph.keys() - old.keys():
        check_name("module", name)
    sources = graph.column_sources(old)
    for name, source in sources.items():
        try:
            cell_of(cells, name).reading.check_resize(source)
        except UserError as error:
            raise UserError(f"module '{name}' cannot change what it reads: {error}") from None
    like = next(cells.parameters())
    new = {
        name: Cell(name, graph).to(like).train(cells.training) for name in graph if name not in old
    }
    remaps: dict[str, IndexMap] = {}
    for name, source in sources.items():
        resized = cell_of(cells, name).reading.resize(source, graph.opened_columns(name))
        remaps |= {f"{name}.reading.{key}": remap for key, remap in resized.items()}
    for name in old.keys() - graph.keys():
        del cells[name]
    cells.update(new)
    for name in graph:
        if name in old and old[name].frozen != graph[name].frozen:
            cell_of(cells, name).set_frozen(graph[name].frozen)
    return remaps


def copy_cell(
    cells: nn.ModuleDict, graph: ModuleGraph, source: str, copies: Mapping[str, str]
) -> None:
    """Copy the weights of a module; where it reads a module that has a copy, the copy reads that.

    Args:
        cells: by name of the module.
        graph: with the copies.
        source: the module.
        copies: names of the copies by that of their source.
    """
    name = copies[source]
    positions = {
        (copies.get(slot, slot), k): column
        for column, (slot, k) in enumerate(graph.columns(source))
    }
    columns = [positions[column] for column in graph.columns(name)]
    cell_of(cells, name).copy(cell_of(cells, source), columns, graph.opened_columns(name))


def place(graph: ModuleGraph, cells: nn.ModuleDict, names: Sequence[str]) -> Placement:
    """Return some modules, in the order of the graph, placed in a center of their slots alone."""
    places = slots(graph[name] for name in names)
    width = graph.feature_width(names)
    placed: list[PlacedCell] = []
    start = 0
    for name in names:
        module, parameters = graph[name], cell_of(cells, name)
        all_columns = graph.columns(name)
        pairs = [
            (places[slot].start + k, column)
            for column, (slot, k) in enumerate(all_columns)
            if slot in places
        ]
        visible, columns = [place for place, _ in pairs], [column for _, column in pairs]
        stop = start + parameters.design.memory
        placed.append(
            PlacedCell(
                name,
                slot=places[name],
                memory=slice(start, stop),
                visible=None if visible == list(range(width)) else visible,
                columns=None if columns == list(range(len(all_columns))) else columns,
                inputs=module.inputs + getattr(parameters.design, "noise", 0),
                context=module.context,
                reading=parameters.reading,
                design=parameters.design,
                takes_input=bool(module.inputs),
                same_step=module.options.same_step,
            )
        )
        start = stop
    return Placement(placed)


def are_placed(cells: nn.ModuleDict, placement: Placement) -> bool:
    """Return whether a placement has the reading and the design that each cell has now."""
    for placed in placement.cells:
        parts = cells._modules[placed.name]._modules
        if parts["reading"] is not placed.reading or parts["design"] is not placed.design:
            return False
    return True


def with_starts(
    cells: nn.ModuleDict, placement: Placement, center: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """Return an initial state of zeros with the start of the modules that have one."""
    starts = {cell.name: cell_of(cells, cell.name).start for cell in placement.cells}
    if all(start is None for start in starts.values()):
        return center, memory
    parts: list[tuple[Tensor, Tensor]] = []
    for cell in placement.cells:
        zeros, start = (center[:, cell.slot], memory[:, cell.memory]), starts[cell.name]
        if start is not None:
            sizes = [part.shape[1] for part in zeros]
            zeros = start.to(center.dtype).expand(len(center), -1).split(sizes, -1)
        parts.append(zeros)
    centers, memories = zip(*parts, strict=True)
    return torch.cat(centers, -1), torch.cat(memories, -1)


def reading_matrices(
    graph: ModuleGraph, placement: Placement, center: Tensor | None
) -> dict[str, Tensor]:
    """Return R of placed modules over the whole center: (context, center), 0 at unread slots.

    ``center`` (batch, width) of the placed modules is where dynamic readings find their features;
    their R is the mean over the batch.
    """
    matrices = {}
    for cell in placement.cells:
        if cell.reading.dynamic:
            assert center is not None
            weights = reading_matrix(cell.reading, center[:, cell.slot]).mean(0)
        else:
            weights = reading_matrix(cell.reading)
        columns = [graph.slots[slot].start + k for slot, k in graph.columns(cell.name)]
        matrices[cell.name] = weights.new_zeros(len(weights), graph.center)
        matrices[cell.name][:, columns] = weights
    return matrices
