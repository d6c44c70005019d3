"""Next-token prediction on a text, and the two built-in texts, text8 and enwik8."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from einops import rearrange
from torch import Tensor

from thalnet_mtl.data import datasets
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.splits.arrays import as_tensor
from thalnet_mtl.tasks.splits.sequences import Sequences
from thalnet_mtl.tasks.targets import out_of_range
from thalnet_mtl.topology.spec import TaskSpec

BYTES = 256  # tokens of a text that is read as it is stored


class TextTask(Task):
    """A prediction of the next token at every step; state is carried from chunk to chunk.

    A batch of ``size`` reads the text at ``size`` equally spaced places. The remainder of the
    division, fewer than ``size`` tokens at the end of the text, is not read.

    Args:
        name: name of the task.
        read_splits: returns a 1-D tensor or array of tokens per split; called when the task is
            loaded.
        vocabulary: number of tokens; 256 for bytes.
        source: data set of ``thalnet data ls`` that ``read_splits`` reads, if any.
    """

    carries_state = True

    def __init__(
        self,
        name: str,
        read_splits: Callable[[], Mapping[str, Any]],
        vocabulary: int = 256,
        source: str = "",
    ):
        spec = TaskSpec(vocabulary, vocabulary, tokens=True, every_step=True)
        super().__init__(name, spec, read_splits, metrics=("bits_per_character",), source=source)
        self.meaning = "bytes" if vocabulary == BYTES else source

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
        number = step % self.batches_per_epoch("train", size, chunk)
        return self._chunk("train", number, size, chunk)

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        for number in range(self.batches_per_epoch(split, size, chunk)):
            yield self._chunk(split, number, size, chunk)

    def sequences(self, split: str, chunk: int) -> Sequences:
        """Return the text cut into N pieces of ``chunk`` tokens and the token after each of them.

        Both are (N, chunk). An incomplete last piece is left out.
        """
        tokens = self._tokens(split)
        end = (len(tokens) - 1) // chunk * chunk
        return Sequences(tokens[:end].view(-1, chunk), tokens[1 : end + 1].view(-1, chunk))

    def to_batch(self, data: Sequences) -> Batch:
        return Batch(data.xs.long(), data.ys.long(), True)

    def _chunk(self, split: str, number: int, size: int, chunk: int) -> Batch:
        """Return the chunk of that number at each of ``size`` places, (size, chunk) at most."""
        tokens = self._tokens(split)
        length = (len(tokens) - 1) // size
        span = slice(number * chunk, min((number + 1) * chunk, length))
        xs, ys = (
            rearrange(tokens[shift : shift + size * length], "(batch n) -> batch n", batch=size)
            for shift in (0, 1)
        )
        return Batch(xs[:, span].long(), ys[:, span].long(), number == 0)

    def _tokens(self, name: str) -> Tensor:
        split = self.split(name)
        assert isinstance(split, Tensor)
        return split

    def _validate(self, name: str, split: Any) -> Tensor:
        where = f"task '{self.name}', {name}"
        tokens = as_tensor(split, where)
        if tokens.is_floating_point() or tokens.ndim != 1 or len(tokens) < 2:
            raise UserError(
                f"{where}: expected one row of whole numbers, got {tuple(tokens.shape)} of type "
                f"{tokens.dtype}."
            )
        if place := out_of_range(tokens, self.spec.input_width()):
            raise UserError(
                f"{where}: token {place.value(tokens)} at place {place} is not below "
                f"{self.spec.inputs}."
            )
        return tokens.to(self.device)

    def _prepare(self) -> None:
        tokens, outputs, where = self._tokens("train"), self.spec.outputs, f"task '{self.name}'"
        if not self.shares_head and bool(tokens.min() == tokens.max()):
            token = tokens[0].item()
            raise UserError(
                f"{where}: all training tokens are {token}, so there is nothing to learn."
            )
        self.loss_function.prepare(tokens, outputs)
        self.loss_function.check(self.target, tokens[None, :2], outputs, where)


class WikipediaTask(TextTask):
    """A text of the data store, read as bytes; 90 % train, 5 % validate and 5 % test."""

    def __init__(self, source: str):
        super().__init__(source, partial(_read_splits, source), source=source)

    @property
    def label(self) -> str:
        """Version of the text that is stored: a text8 without its end says so."""
        return datasets.text_label(self.source)


@register("task", "text8")
def text8() -> TextTask:
    """Wikipedia in 27 characters (a to z and space): predict the next at every step."""
    return WikipediaTask("text8")


@register("task", "enwik8")
def enwik8() -> TextTask:
    """Wikipedia with its markup, 100 MB: predict the next byte at every step."""
    return WikipediaTask("enwik8")


def _read_splits(source: str) -> dict[str, np.ndarray]:
    text = datasets.load_text(source)
    parts = np.split(text, [len(text) * 90 // 100, len(text) * 95 // 100])
    names = ("train", "validation", "test")
    return {name: part.copy() for name, part in zip(names, parts, strict=True)}
