"""Changes of a network that a configuration asks for while it trains."""

from thalnet_mtl.config.schema import ChangeConfig, Config, ModuleConfig
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models import build
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.topology.spec import ModuleSpec


def apply(network: Network, what: ChangeConfig, config: Config) -> TopologyChange:
    """Do one configured change."""
    name, source, tasks = what.name, what.source, what.module.tasks
    for task in tasks:
        if task not in network.adapters:
            raise unknown("task", task, network.adapters)
    if what.verb == "attach":
        return network.attach(new_module(network, what, config), read_by=what.read_by)
    if what.verb == "clone":
        if what.module != ModuleConfig(tasks=tasks):
            raise UserError("a clone is as its source in all but name and tasks.")
        return network.clone(source, name, tasks=tasks or None)
    if what.verb == "route":
        return network.route(name, source, what.open)
    if what.verb == "detach":
        return network.detach(name)
    modules = network.body.graph or ()
    if name in network.adapters and name in modules:
        raise UserError(f"'{name}' is a task and a module; let their names differ.")
    freeze = network.freeze if what.verb == "freeze" else network.unfreeze
    return freeze(task=name) if name in network.adapters else freeze(name)


def new_module(network: Network, what: ChangeConfig, config: Config) -> ModuleSpec:
    """The module that is attached; its width, if nobody says it, is that of all the others."""
    if what.module.input or what.module.output:
        raise UserError(
            "tasks are plugged in already: input and output can only be from the start."
        )
    widths = {module.features for module in (network.body.graph or {}).values()}
    width = what.module.features or config.model.features or (widths.pop() if widths else 1)
    if widths and not (what.module.features or config.model.features):
        raise UserError("how wide? Give module: {features: N}; those that are there differ.")
    shapes = {task: network.adapter(task).task for task in network.adapters}
    return build.module(what.name, what.module, config.model, shapes, width)
