"""The strategies of Avalanche, registered by name: ``--train.strategy avalanche:NAME``.

This is the entry point of the package, imported by every command. It imports neither torch nor
Avalanche; a strategy does so when it is built.
"""

from typing import Any

from thalnet_mtl.registry import register

STRATEGIES = {
    "naive": "plain training",
    "cumulative": "training on all tasks so far",
    "replay": "experience replay",
    "gdumb": "GDumb",
    "ewc": "elastic weight consolidation",
    "online_ewc": "online EWC",
    "mas": "memory aware synapses",
    "rwalk": "Riemannian walk",
    "lwf": "learning without forgetting",
    "agem": "A-GEM",
    "gem": "GEM",
}


def _register(name: str, title: str) -> None:
    def build(context: Any) -> Any:
        from thalnet_mtl.avalanche.runner import AvalancheStrategy

        return AvalancheStrategy(context)

    build.__doc__ = f"Avalanche's {title}, in Avalanche's training loop."
    register("strategy", f"avalanche:{name}")(build)


for _name, _title in STRATEGIES.items():
    _register(_name, _title)
