"""A task: what goes in, what is due, what it is judged by, and its batches.

Data sits on the training device as it was stored (uint8 for everything built in) and is indexed
there. A batch is a pure function of the step, so that a run can go on at any step with no state
but that number.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from thalnet_mtl.config.schema import TaskConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import BITS_PER_CHARACTER
from thalnet_mtl.registry import register
from thalnet_mtl.tasks import datasets as data
from thalnet_mtl.tasks.base import Batch, Task
from thalnet_mtl.topology.spec import TaskSpec


class TextTask(Task):
    """Predict the next token at every step; state is carried from chunk to chunk.

    A batch of ``size`` reads the text at as many places at once, equally far apart; what does
    not divide, fewer than ``size`` tokens at the end, is left out.

    Args:
        name: of the task.
        load: returns a 1-D tensor or array of tokens per split.
        vocabulary: tokens are below it; 256 for bytes.
    """

    metric = BITS_PER_CHARACTER

    def __init__(self, name: str, load: Callable[[], Mapping[str, object]], vocabulary: int = 256):
        super().__init__(name, TaskSpec(vocabulary, vocabulary, tokens=True, target="every"), load)

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        tokens = self._tokens(split)
        length = (len(tokens) - 1) // size
        if length < (chunk if split == "train" else 1):
            raise UserError(
                f"{self.name}, {split}: {len(tokens):,} tokens are too few for batch {size} "
                f"times chunk {chunk}."
            )
        return length // chunk if split == "train" else -(-length // chunk)

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        return self._cut("train", step % self.batches_per_epoch("train", size, chunk), size, chunk)

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        for k in range(self.batches_per_epoch(split, size, chunk)):
            yield self._cut(split, k, size, chunk)

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        """Cut at every ``chunk`` tokens; what is left over at the end is in none."""
        tokens = self._tokens(split)
        whole = (len(tokens) - 1) // chunk * chunk
        return tokens[:whole].view(-1, chunk), tokens[1 : whole + 1].view(-1, chunk)

    def to_inputs(self, xs: Tensor) -> Tensor:
        return xs.long()

    def _cut(self, split: str, k: int, size: int, chunk: int) -> Batch:
        tokens = self._tokens(split)
        length = (len(tokens) - 1) // size
        span = slice(k * chunk, min((k + 1) * chunk, length))
        xs, ys = (
            rearrange(tokens[shift : shift + size * length], "(batch n) -> batch n", batch=size)
            for shift in (0, 1)
        )
        return Batch(xs[:, span].long(), ys[:, span].long(), k == 0)

    def _tokens(self, name: str) -> Tensor:
        split = self.split(name)
        assert isinstance(split, Tensor)
        return split

    def _put(self, name: str, split: object) -> Tensor:
        tokens = torch.as_tensor(split)
        inside = tokens.ndim == 1 and len(tokens) > 1 and int(tokens.min()) >= 0
        if not inside or int(tokens.max()) >= self.spec.inputs:
            raise UserError(
                f"task '{self.name}', {name}: expected one row of tokens below {self.spec.inputs}."
            )
        return tokens.to(self.device)


@register("task", "text8")
def text8(config: TaskConfig) -> TextTask:
    """Wikipedia in 27 letters (a to z and space), next byte at every step."""
    return _text("text8")


@register("task", "enwik8")
def enwik8(config: TaskConfig) -> TextTask:
    """Wikipedia with its markup, 100 MB, next byte at every step."""
    return _text("enwik8")


def _text(name: str) -> TextTask:
    def load() -> dict[str, np.ndarray]:
        text = data.load_text(name)
        task.label = data.text_label(name)
        cuts = [len(text) * 90 // 100, len(text) * 95 // 100]
        parts = np.split(text, cuts)
        return {k: p.copy() for k, p in zip(("train", "validation", "test"), parts, strict=True)}

    task = TextTask(name, load)
    task.source = name
    return task
