"""Text by bytes: the first 90 % train, the next 5 % validate, the last 5 % test."""

import numpy as np

from thalnet_mtl import data
from thalnet_mtl.config import TaskConfig
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.base import TextTask


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
