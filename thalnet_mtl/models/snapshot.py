"""The modules and tasks of a network as plain data, with slots and numbers of parameters."""

from collections.abc import Sequence

from thalnet_mtl.models.editing import EditableNetwork
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.runs.topology_file import (
    ChangeEntry,
    DecisionEntry,
    ModuleEntry,
    TaskEntry,
    TopologySnapshot,
)
from thalnet_mtl.topology.spec import to_plain


def topology_snapshot(
    network: EditableNetwork,
    step: int = 0,
    history: Sequence[ChangeEntry] = (),
    decisions: Sequence[DecisionEntry] = (),
) -> TopologySnapshot:
    """Describe the modules and tasks of a network whose body has modules."""
    body = network.body
    assert body.graph is not None
    modules = []
    for module in body.graph.modules:
        slot = body.graph.slots[module.name]
        (prefix,) = body.parameter_prefixes([module.name])
        size = count_parameters(body.get_submodule(prefix.removesuffix(".")))
        span = slot.start, slot.stop
        modules.append(ModuleEntry(**to_plain(module), slot=span, parameters=size))
    tasks = {}
    for name in network.adapters:
        adapter = network.adapter(name)
        fields, active = to_plain(adapter.spec), network.active_modules(name)
        shape, size = fields.pop("task"), count_parameters(adapter)
        tasks[name] = TaskEntry(shape=shape, **fields, active=active, parameters=size)
    return TopologySnapshot(modules, tasks, step, history, decisions)
