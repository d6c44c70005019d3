"""Strategies that keep sequences of earlier experiences and see them again."""

from collections.abc import Mapping

from torch import Tensor

from thalnet_mtl.registry import register
from thalnet_mtl.strategies.memory import ReplayMemory
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.training.state import Run


@register("strategy", "replay")
class Replay(ReplayMemory):
    """Experience replay: the loss of this step, and that of ``train.batch`` kept sequences.

    Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019.
    """

    def penalty(self, run: Run, batches: Mapping[str, Batch]) -> Tensor | None:
        older = self.older(run)
        return self.recalled(run, older) if older else None
