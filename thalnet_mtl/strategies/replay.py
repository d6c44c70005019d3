"""Experience replay: stored sequences are learned again in each step."""

from collections.abc import Mapping

from torch import Tensor

from thalnet_mtl.registry import register
from thalnet_mtl.strategies.memory import ReplayMemory
from thalnet_mtl.tasks.batch import Batch


@register("strategy", "replay")
class Replay(ReplayMemory):
    """Experience replay: the loss of ``train.batch`` stored sequences is added to each step.

    Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019.

    Args:
        context: of the run.
        memory: number of stored sequences, over all tasks.
        choice: which sequences are stored: ``reservoir`` (all equally likely) or ``per_class``
            (equally many of each class of each task).
    """

    needs_boundaries = ""

    def penalty(self, batches: Mapping[str, Batch]) -> Tensor | None:
        older = self.older_tasks()
        return self.replay_loss(older) if older else None
