"""Strategies that keep what earlier experiences taught, for networks that may grow meanwhile.

Penalties and anchors go by the names of parameters: what a network grows has none, and what was
there keeps its own. Tasks may differ in shape: memories are kept, and gradients taken, by task.
"""

from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import Strategy

ELSEWHERE = "avalanche:"
AVALANCHE = ("naive", "cumulative", "replay", "gdumb", "ewc", "online_ewc", "mas", "rwalk", "lwf",
             "agem", "gem")  # fmt: skip


class AvalancheStrategy(Strategy):
    """Avalanche's own, in its loop: what works is in benchmarks/continual/README.md."""


for _name in AVALANCHE:
    register("strategy", f"{ELSEWHERE}{_name}")(AvalancheStrategy)
