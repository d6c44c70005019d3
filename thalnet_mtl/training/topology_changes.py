"""Changes of the network during training: configured ones are applied, and the run follows."""

from dataclasses import asdict

from thalnet_mtl.config.schema import ChangeConfig, Config, ModuleConfig
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models import build
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.runs.topology_file import ChangeEntry, EarlierModule
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.context import RunContext


def apply_scheduled(run: RunContext, scheduled: ChangeConfig) -> TopologyChange:
    """Apply a configured change to the network of a run, and let the run follow it."""
    with run.separate_rng():
        change = apply(run.network, scheduled, run.config)
    on_topology_change(run, change)
    return change


def on_topology_change(run: RunContext, change: TopologyChange) -> None:
    """Update all of a run that depends on the network: optimizer, states, strategy, log."""
    state = run.state
    change.update_optimizer(state.optimizer)
    run.forget_trainable_tasks()
    state.carried_states = {
        name: change.update_state(run.tasks[name].head_name, carried)
        for name, carried in state.carried_states.items()
        if run.tasks[name].head_name in state.network.adapters
    }
    state.strategy.after_topology_change(change)
    size = sum(parameter.numel() for parameter in change.parameters.values())
    seconds = round(state.timers.train_seconds, 2)
    entry = ChangeEntry(
        state.step, seconds, size, change.verb, change.about, earlier_modules(change)
    )
    state.topology_log.append(asdict(entry))


def earlier_modules(change: TopologyChange) -> dict[str, EarlierModule | None]:
    """Return the modules that a change concerns as they were, see ``ChangeEntry``."""
    old, new = (
        {n: EarlierModule(m.seen, m.inputs, m.output, m.frozen) for n, m in (graph or {}).items()}
        for graph in change.graphs
    )
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {name: old.get(name) for name in changed}


def apply(network: Network, scheduled: ChangeConfig, config: Config) -> TopologyChange:
    """Apply one configured change to a network.

    Raises:
        UserError: the network as it is does not allow it.
    """
    name, source, tasks = scheduled.name, scheduled.source, scheduled.module.tasks
    for task in tasks:
        if task not in network.adapters:
            raise unknown("task", task, network.adapters)
    if scheduled.verb == "attach":
        return network.attach(new_module(network, scheduled, config), read_by=scheduled.read_by)
    if scheduled.verb == "clone":
        if scheduled.module != ModuleConfig(tasks=tasks):
            raise UserError("a clone can differ from its source in name and tasks only.")
        return network.clone(source, name, tasks=tasks or None)
    if scheduled.verb == "route":
        return network.route(name, source, scheduled.open)
    if scheduled.verb == "detach":
        return network.detach(name)
    modules = network.body.graph or ()
    if name in network.adapters and name in modules:
        raise UserError(f"'{name}' is a task and a module; give them different names.")
    freeze = network.freeze if scheduled.verb == "freeze" else network.unfreeze
    return freeze(task=name) if name in network.adapters else freeze(name)


def new_module(network: Network, scheduled: ChangeConfig, config: Config) -> ModuleSpec:
    """Return the module to attach; without a configured width it gets that of all others."""
    if scheduled.module.input or scheduled.module.output:
        raise UserError("input and output modules cannot be attached: tasks have theirs already.")
    widths = {module.features for module in (network.body.graph or {}).values()}
    width = scheduled.module.features or config.model.features or (widths.pop() if widths else 1)
    if widths and not (scheduled.module.features or config.model.features):
        raise UserError(
            "the width of the new module is ambiguous because existing modules differ; set "
            "module.features."
        )
    shapes = {task: network.adapter(task).task for task in network.adapters}
    return build.module(scheduled.name, scheduled.module, config.model, shapes, width)
