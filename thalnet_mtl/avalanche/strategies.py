"""Avalanche's strategies as a configuration names them."""

from collections.abc import Callable
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

from avalanche.core import SupervisedPlugin
from avalanche.training import plugins
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate

from thalnet_mtl.config.schema import StrategyConfig

Made = Callable[[StrategyConfig, int, int], list[Any]]  # of the knobs, a batch, the experiences
PLUGINS: dict[str, Made] = {
    "naive": lambda knobs, batch, count: [],
    "cumulative": lambda knobs, batch, count: [],
    "replay": lambda knobs, batch, count: [plugins.ReplayPlugin(knobs.memory)],
    "gdumb": lambda knobs, batch, count: [plugins.GDumbPlugin(knobs.memory)],
    "ewc": lambda knobs, batch, count: [plugins.EWCPlugin(knobs.strength)],
    "online_ewc": lambda knobs, batch, count: [
        plugins.EWCPlugin(knobs.strength, "online", knobs.decay)
    ],
    "mas": lambda knobs, batch, count: [plugins.MASPlugin(knobs.strength)],
    "rwalk": lambda knobs, batch, count: [plugins.RWalkPlugin(knobs.strength)],
    "lwf": lambda knobs, batch, count: [plugins.LwFPlugin(knobs.strength)],
    "agem": lambda knobs, batch, count: [plugins.AGEMPlugin(knobs.memory // count, batch)],
    "gem": lambda knobs, batch, count: [plugins.GEMPlugin(knobs.memory // count, 0.5)],
}


def strategy(
    name: str, knobs: StrategyConfig, experiences: int, first: SupervisedPlugin, **arguments: Any
) -> SupervisedTemplate:
    """A strategy of Avalanche by its name here; the plugin ``first`` is called before its own.

    ``strength`` is its λ or α, ``memory`` all sequences that it keeps, of which GEM and A-GEM give
    as many to each of the ``experiences``. ``arguments`` are those of ``SupervisedTemplate``.
    """
    own = PLUGINS[name](knobs, arguments["train_mb_size"], experiences)
    template = Cumulative if name == "cumulative" else SupervisedTemplate
    return template(plugins=[first, *own], **arguments)
