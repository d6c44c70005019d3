"""Strategies of Avalanche, built from the options of a configuration."""

from collections.abc import Callable, Mapping
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

from avalanche.core import SupervisedPlugin
from avalanche.training import plugins
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate

# A function of the batch size, the number of experiences, and the options of the strategy.
PluginFactory = Callable[..., list[SupervisedPlugin]]
PLUGINS: dict[str, PluginFactory] = {
    "naive": lambda batch, count: [],
    "cumulative": lambda batch, count: [],
    "replay": lambda batch, count, memory: [plugins.ReplayPlugin(memory)],
    "gdumb": lambda batch, count, memory: [plugins.GDumbPlugin(memory)],
    "ewc": lambda batch, count, strength: [plugins.EWCPlugin(strength)],
    "online_ewc": lambda batch, count, strength, decay: [
        plugins.EWCPlugin(strength, "online", decay)
    ],
    "mas": lambda batch, count, strength: [plugins.MASPlugin(strength)],
    "rwalk": lambda batch, count, strength: [plugins.RWalkPlugin(strength)],
    "lwf": lambda batch, count, strength: [plugins.LwFPlugin(strength)],
    "agem": lambda batch, count, memory: [plugins.AGEMPlugin(memory // count, batch)],
    "gem": lambda batch, count, memory: [plugins.GEMPlugin(memory // count, 0.5)],
}


def make_strategy(
    name: str,
    options: Mapping[str, Any],
    experiences: int,
    first: SupervisedPlugin,
    **arguments: Any,
) -> SupervisedTemplate:
    """Return a strategy of Avalanche.

    Args:
        name: a key of ``PLUGINS``.
        options: ``strength`` is its λ or α, ``memory`` the number of all sequences that it
            stores. GEM and A-GEM divide it equally among the experiences.
        experiences: their number.
        first: a plugin that is called before those of the strategy.
        arguments: of ``SupervisedTemplate``.
    """
    template = Cumulative if name == "cumulative" else SupervisedTemplate
    strategy_plugins = PLUGINS[name](arguments["train_mb_size"], experiences, **options)
    return template(plugins=[first, *strategy_plugins], **arguments)
