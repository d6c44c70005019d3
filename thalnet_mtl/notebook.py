"""Progress in Jupyter notebooks: one output of the cell, which is updated in place.

rich shows a bar in a notebook only with ipywidgets, and each line as an output of its own; what is
saved of widgets is empty without their extension. An output with an identity is a part of Jupyter's
protocol that every front end knows, and what is saved is its last state.
"""

import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from thalnet_mtl.errors import one_line

SECONDS = 0.2  # between two updates
LATEST, MOST = 6, 500  # lines shown while the bar moves, and kept at its end
FONT = "font:13px/1.3 var(--jp-code-font-family,monospace)"
WIDTH = "width:12em;margin-right:1em;vertical-align:middle"


def in_notebook() -> bool:
    """Return whether the code runs in a kernel of Jupyter, whose front ends show HTML."""
    ipython = sys.modules.get("IPython")  # imported already, if this is a kernel
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class NotebookBar:
    """A progress bar in the output of a cell, with the lines that were printed meanwhile.

    As a context manager it is shown on entry, and in its last state on exit, with all lines in a
    part that unfolds.

    Args:
        title: of the job.
        total: its steps.
        about: returns what stands beside the bar, after so many steps.
    """

    def __init__(self, title: str, total: int, about: Callable[[int], str]):
        self.title, self.total, self.about = one_line(title), total, about
        self.done, self.status, self.lines, self.dropped = 0, "", list[str](), 0
        self.updated = 0.0  # when it was last updated
        self._handle: Any = None

    def __enter__(self) -> "NotebookBar":
        from IPython.display import display

        self._handle = display(self._formats(), raw=True, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.update(self._formats(ended=True), raw=True)

    def show(self, done: int, status: str | None = None) -> None:
        """Move the bar to a step, with another status if there is one."""
        self.done, self.status = done, self.status if status is None else one_line(status)
        if time.monotonic() - self.updated >= SECONDS:
            self._handle.update(self._formats(), raw=True)
            self.updated = time.monotonic()

    def print(self, text: str) -> None:
        """Show lines below the bar."""
        self.lines += text.split("\n")
        self.dropped += max(0, len(self.lines) - MOST)
        del self.lines[:-MOST]
        self.show(self.done)

    def _formats(self, ended: bool = False) -> dict[str, str]:
        """Return what is shown, in the formats of Jupyter."""
        words = [word for word in (self.title, self.about(self.done), self.status) if word]
        text = "\n".join(["  ".join(words), *self.lines[-LATEST:]])
        return {"text/plain": text, "text/html": self._html(words, ended)}

    def _html(self, words: Sequence[str], ended: bool) -> str:
        title, *others = [f'<span style="margin-right:1em">{escape(word)}</span>' for word in words]
        bar = f'<progress max="{max(1, self.total)}" value="{self.done}" style="{WIDTH}">'
        parts = [f'<div style="{FONT}">{title}{bar}</progress>{"".join(others)}</div>']
        if ended and len(self.lines) > LATEST:
            lost = [f"({self.dropped:,} earlier lines are left out)"] * bool(self.dropped)
            summary = f"<summary>all {len(self.lines) + self.dropped:,} lines</summary>"
            lines = _block([*lost, *self.lines])
            parts.append(f'<details style="{FONT}">{summary}{lines}</details>')
        return "".join([*parts, *[_block(self.lines[-LATEST:])] * bool(self.lines)])


def _block(lines: Sequence[str]) -> str:
    return f'<pre style="margin:0.2em 0 0 0;{FONT}">{escape(chr(10).join(lines))}</pre>'
