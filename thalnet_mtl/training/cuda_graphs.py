"""A training step as a CUDA graph: to launch the kernels of a small net takes longer than they do.

A graph repeats what it has seen, on the memory that it saw. There is one for every set of tasks
and shapes of their batches, captured after some steps that are taken as they are.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from thalnet_mtl.errors import RunError
from thalnet_mtl.tasks.base import Batch

WARM = 3  # steps before a capture, in which libraries allocate what they need

Inputs = tuple[dict[str, Batch], dict[str, Any]]  # by task: a batch, and the state it begins in
Outcome = tuple[Tensor, dict[str, Any]]  # the losses, and by task the state at the end
Record = Callable[[Callable[[], None]], Callable[[], None]]


class StepGraphs:
    """A step that is repeated, called as the step itself.

    ``record`` takes in what a function does, without doing it, and returns what does it again.
    """

    def __init__(self, step: Callable[[Inputs], Outcome], record: Record | None = None):
        self.step = step
        self.record = record or cuda_recorder()
        self.taken: dict[Hashable, int] = {}
        self.graphs: dict[Hashable, CapturedStep] = {}

    def __call__(self, inputs: Inputs) -> Outcome:
        """One step.

        Raises:
            RunError: it cannot be captured.
        """
        key = tuple((name, batch.xs.shape) for name, batch in inputs[0].items())
        taken = self.taken[key] = self.taken.get(key, 0) + 1
        if taken <= WARM:
            return self.step(inputs)
        if key not in self.graphs:
            try:
                self.graphs[key] = CapturedStep(self.step, inputs, self.record)
            except RuntimeError as error:
                why = str(error).strip().splitlines()[0]
                raise RunError(
                    f"the step cannot be captured as a CUDA graph: {why} Any --train.ops but auto "
                    f"trains without."
                ) from error
        return self.graphs[key](inputs)


class CapturedStep:
    """A step on memory of its own, into which inputs are copied."""

    def __init__(self, step: Callable[[Inputs], Outcome], inputs: Inputs, record: Record):
        self.inputs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, inputs)
        self.outcome: Outcome

        def act() -> None:
            self.outcome = step(self.inputs)

        self.replay = record(act)

    def __call__(self, inputs: Inputs) -> Outcome:
        for mine, given in zip(tree_leaves(self.inputs), tree_leaves(inputs), strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(given, non_blocking=True)
        self.replay()
        # What it leaves lies where the next graph may write.
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, self.outcome)


def cuda_recorder() -> Record:
    """CUDA graphs that share one pool of memory and one stream: none runs beside another.

    What cuBLAS works in belongs to the stream of the capture, and a graph keeps it. So runs that
    are to go side by side need streams of their own here, too: the current one, if it is not the
    default. With the one that PyTorch has for all captures they would write to the same memory.
    """
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.current_stream()
    if stream == torch.cuda.default_stream():
        stream = torch.cuda.Stream()

    def record(act: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            act()
        return graph.replay

    return record
