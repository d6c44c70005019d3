"""The command line in several processes, as ``torchrun`` starts it: the first one speaks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from thalnet_mtl.training.launched import several_processes

if TYPE_CHECKING:
    from thalnet_mtl.training.ranks import Ranks


def is_silent(error: BaseException) -> bool:
    """Return whether another process reports an error: one that it finds as well, or knows of."""
    first = os.environ.get("RANK", "0") == "0"
    silent: bool = getattr(error, "silent", several_processes() and not first)
    return silent


@contextmanager
def process_group() -> "Iterator[Ranks | None]":
    """Join the processes that ``torchrun`` has started; give None, without torch, if there is one.

    Only the first one prints.
    """
    if not several_processes():
        yield None
        return
    from thalnet_mtl.training import ranks

    with ranks.process_group() as group, open(os.devnull, "w", encoding="utf-8") as nowhere:
        if group.writes:
            yield group
            return
        with redirect_stdout(nowhere):
            yield group
