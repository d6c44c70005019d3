"""A run in memory: what is trained, how far it is, and how a checkpoint holds all of that."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.network import Network
from thalnet_mtl.training.weighting import LossWeighting

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "rmsprop": torch.optim.RMSprop,
    "adam": lambda *args, **options: torch.optim.Adam(*args, fused=True, **options),
    "adamw": lambda *args, **options: torch.optim.AdamW(*args, fused=True, **options),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def optimizer_for(
    config: Config, network: Network, combination: LossWeighting
) -> torch.optim.Optimizer:
    """The configured optimizer, for all that learns."""
    options = config.train
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.requires_grad]},
        {"params": list(combination.parameters()), "weight_decay": 0.0},
    ]
    return OPTIMIZERS[options.optimizer](
        groups, lr=options.learning_rate, weight_decay=options.weight_decay
    )
