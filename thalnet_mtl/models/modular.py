"""A body made of modules: its graph, their cells, and how both change."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.body import Body, StateLayout
from thalnet_mtl.models.cells import (
    Cell,
    are_placed,
    cell_of,
    copy_cell,
    make_cells,
    place,
    rewire,
)
from thalnet_mtl.models.designs.base import Lesioned
from thalnet_mtl.models.readings.base import IndexMap
from thalnet_mtl.models.summary import body_summary
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.spec import AdapterSpec, TaskSpec


class ModularBody(Body):
    """A body of named modules around a center, all but the computation of a sequence.

    ``graph`` is its topology, ``cells`` are the parameters of its modules by name.
    """

    graph: ModuleGraph

    def __init__(self, graph: ModuleGraph):
        super().__init__()
        self.graph = graph
        self.cells = make_cells(graph)
        self._placements: dict[tuple[str, ...], Placement] = {}
        self._layouts: dict[tuple[str, ...], StateLayout] = {}

    def __repr__(self) -> str:
        return body_summary(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for a copy, which derives its own placements."""
        return self.__dict__ | {"_placements": {}, "_layouts": {}}

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()
        replica._placements, replica._layouts = {}, {}
        return replica

    # Widths, all derived from the graph

    @property
    def inputs(self) -> int:  # type: ignore[override]
        """Width of the task input; 0 where input modules differ."""
        widths = {self.graph[name].inputs for name in self.graph.input_modules}
        return widths.pop() if len(widths) == 1 else 0

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """Width of the features of all output modules."""
        return self.graph.feature_width(self.graph.output_modules)

    @property
    def center(self) -> int:
        """Width of the center."""
        return self.graph.center

    @property
    def memory(self) -> int:
        """Width of the memories of all modules."""
        return sum(self.cell(name).design.memory for name in self.graph)

    @property
    def slots(self) -> dict[str, slice]:
        """The slot of every module in the center."""
        return self.graph.slots

    @property
    def input_modules(self) -> tuple[str, ...]:
        """Names of the modules that take a task input."""
        return self.graph.input_modules

    @property
    def output_modules(self) -> tuple[str, ...]:
        """Names of the modules that heads read by default."""
        return self.graph.output_modules

    # Changes of the graph

    def rewire(self, graph: ModuleGraph) -> dict[str, IndexMap]:
        """Change the graph; see ``cells.rewire``. Returns changes of shape by parameter name.

        Raises:
            UserError: a module cannot be changed so; nothing has changed.
        """
        remaps = rewire(self.cells, self.graph, graph)
        old, self.graph = self.graph, graph
        changed = {name for name in old if name not in graph or graph[name].seen != old[name].seen}
        for memo in (self._placements, self._layouts):
            for names in [names for names in memo if not changed.isdisjoint(names)]:
                del memo[names]
        return {f"cells.{name}": remap for name, remap in remaps.items()}

    def copy(self, copies: Mapping[str, str]) -> None:
        """Copy the weights of modules to their copies; see ``cells.copy_cell``."""
        for source in copies:
            copy_cell(self.cells, self.graph, source, copies)
        self._placements.clear()

    @contextmanager
    def lesioned(self, name: str) -> Iterator[None]:
        """Lesion a module within a context: its features are zero, its memory does not change."""
        cell, features = self.cell(name), self.graph[name].features
        design, cell.design = cell.design, Lesioned(cell.design, features)
        self._placements.clear()
        try:
            yield
        finally:
            cell.design = design
            self._placements.clear()

    def cell(self, name: str) -> Cell:
        """Return the parameters of a module."""
        return cell_of(self.cells, name)

    def placement(self, active: Sequence[str] | None = None) -> Placement:
        """Return modules that run together, all by default, with their places in the center.

        The center of some modules consists of their slots alone; all other slots are zero.
        """
        if isinstance(active, tuple) and active in self._placements:
            names = active
        else:
            names = tuple(self.graph if active is None else (n for n in self.graph if n in active))
        placement = self._placements.get(names)
        # A module may have been exchanged, and a replica of ``DataParallel`` has other ones.
        if placement is None or not are_placed(self.cells, placement):
            placement = self._placements[names] = place(self.graph, self.cells, names)
        return placement

    # For tasks, see ``Body``

    def endpoints(
        self, task: str, spec: TaskSpec, inputs: Sequence[str], outputs: Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        names = spec.input_names
        if names and inputs and set(inputs) != set(names):
            raise UserError(
                f"task '{task}' has the inputs {', '.join(names)}, each for the module of its name;"
                f" leave out input_modules."
            )
        ends = self.graph.default_endpoints(task, names or inputs, outputs)
        adapter = AdapterSpec(spec, *ends)
        self.graph.check_head_sees_input(task, adapter)
        for name in names:
            if name not in self.graph.active_modules(task, adapter):
                raise UserError(f"task '{task}': its head cannot depend on its input '{name}'.")
        return ends

    def input_widths(self, modules: Sequence[str]) -> dict[str, int]:
        return {name: self.graph.module(name).inputs for name in modules}

    def feature_width(self, modules: Sequence[str]) -> int:
        if not modules:
            raise UserError("output_modules names no module; give at least one, or leave it out.")
        return self.graph.feature_width(modules)

    def active_modules(self, task: str, adapter: AdapterSpec) -> tuple[str, ...]:
        return self.graph.active_modules(task, adapter)

    def parameter_prefixes(self, modules: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"cells.{name}." for name in modules)

    def state_layout(self, modules: Sequence[str]) -> StateLayout:
        names = tuple(modules)
        if names not in self._layouts:
            widths = {n: (self.graph[n].features, self.cell(n).design.memory) for n in names}
            self._layouts[names] = widths
        return self._layouts[names]

    def freeze(self, modules: Sequence[str], frozen: bool = True) -> None:
        self.rewire(self.graph.freeze(modules, frozen))
