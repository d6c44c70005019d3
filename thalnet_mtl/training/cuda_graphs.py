"""Training steps captured and replayed as CUDA graphs.

The kernels of a small network run for a shorter time than it takes to launch them one by one. A
graph replays the kernels of a step on the memory that they used when it was captured. There is a
graph for every set of tasks and shapes of their batches, captured after some warm-up steps. A step
with sequences of unequal lengths is not captured, because its shapes change from batch to batch.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from thalnet_mtl.errors import RunError
from thalnet_mtl.tasks.batch import Batch

WARM = 3  # warm-up steps before a capture, in which libraries allocate what they need

Inputs = tuple[dict[str, Batch], dict[str, Any]]  # by task: a batch, and the state at its start
Outcome = tuple[Tensor, dict[str, Any]]  # the losses, and by task the state at the end
Record = Callable[[Callable[[], None]], Callable[[], None]]


class StepGraphs:
    """A step that is captured when it is repeated; called like the step itself.

    Args:
        step: a function of batches and states, without any other input that changes.
        record: captures a function and returns a function that replays it; by default
            ``cuda_recorder()``.
    """

    def __init__(self, step: Callable[[Inputs], Outcome], record: Record | None = None):
        self.step = step
        self.record = record or cuda_recorder()
        self.step_counts: dict[Hashable, int] = {}
        self.graphs: dict[Hashable, CapturedStep] = {}

    def __call__(self, inputs: Inputs) -> Outcome:
        """Take one step.

        Raises:
            RunError: the step cannot be captured.
        """
        batches = inputs[0]
        if any(batch.lengths is not None for batch in batches.values()):
            return self.step(inputs)
        key = tuple(
            (name, *(part.shape for part in tree_leaves(batch.xs)))
            for name, batch in batches.items()
        )
        count = self.step_counts[key] = self.step_counts.get(key, 0) + 1
        if count <= WARM:
            return self.step(inputs)
        if key not in self.graphs:
            try:
                self.graphs[key] = CapturedStep(self.step, inputs, self.record)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                raise RunError(
                    f"the step cannot be captured as a CUDA graph: {reason} Set --train.ops to "
                    f"anything but auto to train without graphs."
                ) from error
        return self.graphs[key](inputs)


class CapturedStep:
    """A step captured on fixed memory; each call copies its inputs there and replays it."""

    def __init__(self, step: Callable[[Inputs], Outcome], inputs: Inputs, record: Record):
        self.inputs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, inputs)
        self.outcome: Outcome

        def take_step() -> None:
            self.outcome = step(self.inputs)

        self.replay = record(take_step)

    def __call__(self, inputs: Inputs) -> Outcome:
        for fixed, new in zip(tree_leaves(self.inputs), tree_leaves(inputs), strict=True):
            if isinstance(fixed, Tensor):
                fixed.copy_(new, non_blocking=True)
        self.replay()
        # The outcome is cloned because the next graph may write to the same memory.
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, self.outcome)


def cuda_recorder() -> Record:
    """Return a function that captures CUDA graphs, which share a pool of memory and a stream.

    Graphs of one recorder must not run at the same time. cuBLAS ties its workspace to the stream of
    the capture, and a graph keeps using that workspace. So runs that go side by side must capture
    on streams of their own: the current stream if it is not the default one, else a new one. On
    the stream that PyTorch uses for all captures they would write to the same workspace.
    """
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.current_stream()
    if stream == torch.cuda.default_stream():
        stream = torch.cuda.Stream()

    def record(function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            function()
        return graph.replay

    return record
