"""A report inside a notebook."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

HEIGHT = 640  # pixels; a longer report scrolls


@dataclass(frozen=True)
class Report:
    """A report that was written to a file; a notebook shows its content in a frame.

    The frame holds a copy of the page, so that a saved notebook has all of it. It runs its own
    scripts, and reaches neither the notebook nor the network.
    """

    path: Path

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        style = f"width:100%;height:{HEIGHT}px;border:1px solid #8886"
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" title="report" style="{style}">'
            f"</iframe>"
        )
