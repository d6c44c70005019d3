"""Strategies of Avalanche, built from the options of a configuration."""

from collections.abc import Callable
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

from avalanche.core import SupervisedPlugin
from avalanche.training import plugins
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate

from thalnet_mtl.config.schema import StrategyConfig

# A function of the options, the batch size and the number of experiences.
PluginFactory = Callable[[StrategyConfig, int, int], list[SupervisedPlugin]]
PLUGINS: dict[str, PluginFactory] = {
    "naive": lambda options, batch, count: [],
    "cumulative": lambda options, batch, count: [],
    "replay": lambda options, batch, count: [plugins.ReplayPlugin(options.memory)],
    "gdumb": lambda options, batch, count: [plugins.GDumbPlugin(options.memory)],
    "ewc": lambda options, batch, count: [plugins.EWCPlugin(options.strength)],
    "online_ewc": lambda options, batch, count: [
        plugins.EWCPlugin(options.strength, "online", options.decay)
    ],
    "mas": lambda options, batch, count: [plugins.MASPlugin(options.strength)],
    "rwalk": lambda options, batch, count: [plugins.RWalkPlugin(options.strength)],
    "lwf": lambda options, batch, count: [plugins.LwFPlugin(options.strength)],
    "agem": lambda options, batch, count: [plugins.AGEMPlugin(options.memory // count, batch)],
    "gem": lambda options, batch, count: [plugins.GEMPlugin(options.memory // count, 0.5)],
}


def make_strategy(
    name: str,
    options: StrategyConfig,
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
    strategy_plugins = PLUGINS[name](options, arguments["train_mb_size"], experiences)
    return template(plugins=[first, *strategy_plugins], **arguments)
