"""Changes of a network that a configuration asks for while it trains."""

from copy import deepcopy

import torch

from thalnet_mtl import build
from thalnet_mtl.change import Change
from thalnet_mtl.config import ChangeConfig, Config, ModuleConfig, UserError
from thalnet_mtl.network import Network


def rehearse(config: Config, network: Network, total: int) -> None:
    """Raise if one of the configured changes cannot be done when its time comes."""
    if not config.changes:
        return
    network = deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        for what in config.changes:
            where = f"changes: {what.verb} {what.name} after step {what.step}"
            if what.step >= total:
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


def apply(network: Network, what: ChangeConfig, config: Config) -> Change:
    """Do one configured change."""
    name, source = what.name, what.source
    if what.verb == "attach":
        shapes = {task: network.port(task).task for task in network.ports}
        width = next(iter(network.describe()["modules"]))["features"]
        new = build.module(name, what.module, config.model, shapes, width)
        return network.attach(new, read_by=what.read_by)
    if what.verb == "clone":
        if what.module != ModuleConfig(tasks=what.module.tasks):
            raise UserError("a clone is as its source in all but name and tasks.")
        return network.clone(source, name, tasks=what.module.tasks or None)
    if what.verb == "route":
        return network.route(name, source, what.open)
    if what.verb == "detach":
        return network.detach(name)
    freeze = network.freeze if what.verb == "freeze" else network.unfreeze
    return freeze(task=name) if name in network.ports else freeze(name)
