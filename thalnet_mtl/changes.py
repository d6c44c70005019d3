"""Changes of a network that a configuration asks for while it trains."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import chain, groupby, pairwise

import torch

from thalnet_mtl import build
from thalnet_mtl.change import Change
from thalnet_mtl.config import ChangeConfig, Config, ModuleConfig, UserError, unknown
from thalnet_mtl.network import Network
from thalnet_mtl.stream import Experience
from thalnet_mtl.topology import Module


def rehearse(config: Config, network: Network, stream: Sequence[Experience]) -> None:
    """Raise if one of the configured changes cannot be done when its time comes.

    What is not known beforehand is taken to go well: everything that learns has learned by then,
    and no early stopping ends the run before.
    """
    network, total = deepcopy(network), stream[-1].stop
    ports = {name: task.head or name for name, task in config.named_tasks.items()}
    steps = sorted({what.step for what in config.changes})
    until = dict(pairwise([*steps, total]))  # by the step of a change, that of the next one
    with torch.random.fork_rng(devices=[]):
        for step, due in groupby(sorted(config.changes, key=at_step), key=at_step):
            learn_something(network)
            for what in due:
                where = f"changes: {what.verb} {what.name} after step {step}"
                if step >= total:
                    raise UserError(f"{where}: there are only {total} steps.")
                try:
                    apply(network, what, config)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                size, budget = build.parameters(network), config.model.budget
                if budget and size > budget:
                    raise UserError(
                        f"{where} makes {size:,} parameters, over model.budget {budget:,}. Give "
                        f"model.features to leave room, or raise the budget."
                    )
            for one in stream:
                used = [network.used(ports[task]).values() for task in one.tasks]
                learns = any(p.requires_grad for p in chain(*used))
                if one.stop > step and one.start < until[step] and not learns:
                    names = ", ".join(one.tasks)
                    raise UserError(f"{where}: of {names} nothing learns any more after it.")


def at_step(what: ChangeConfig) -> int:
    """When a change is due."""
    return what.step


@torch.no_grad()
def learn_something(network: Network) -> None:
    """What training would do between two changes: nothing that learns stays zero."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.masked_fill_(parameter == 0, 1.0)


def apply(network: Network, what: ChangeConfig, config: Config) -> Change:
    """Do one configured change."""
    name, source, tasks = what.name, what.source, what.module.tasks
    for task in tasks:
        if task not in network.ports:
            raise unknown("task", task, network.ports)
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
    modules = [module["name"] for module in network.describe().get("modules", [])]
    if name in network.ports and name in modules:
        raise UserError(f"'{name}' is a task and a module; let their names differ.")
    freeze = network.freeze if what.verb == "freeze" else network.unfreeze
    return freeze(task=name) if name in network.ports else freeze(name)


def new_module(network: Network, what: ChangeConfig, config: Config) -> Module:
    """The module that is attached; its width, if nobody says it, is that of all the others."""
    if what.module.input or what.module.output:
        raise UserError(
            "tasks are plugged in already: input and output can only be from the start."
        )
    widths = {module["features"] for module in network.describe().get("modules", [])}
    width = what.module.features or config.model.features or (widths.pop() if widths else 1)
    if widths and not (what.module.features or config.model.features):
        raise UserError("how wide? Give module: {features: N}; those that are there differ.")
    shapes = {task: network.port(task).task for task in network.ports}
    return build.module(what.name, what.module, config.model, shapes, width)
