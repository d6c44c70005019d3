"""Pieces of HTML in which objects show themselves in notebooks: tables, folded parts, notes.

Every text is escaped here. Colors are those of the page around, so that light and dark themes fit;
nothing is loaded, and no script runs.
"""

from collections.abc import Collection, Sequence
from html import escape

from thalnet_mtl.errors import one_line, printable

ROWS = 60  # of a table; of more, so many are shown
BOX = "overflow:auto;max-height:26em;max-width:100%"
MUTED = "opacity:0.7"


def text(value: object) -> str:
    """Return a value as escaped text, with its control characters written out."""
    return escape(one_line(str(value)))


def table(
    header: Sequence[str], lines: Sequence[Sequence[str]], numbers: Collection[str] = ()
) -> str:
    """Return lines of cells as a table that scrolls in a narrow window.

    Args:
        header: names of the columns.
        lines: cells; of more than ``ROWS`` lines the first are shown, and the rest is counted.
        numbers: columns that stand to the right.
    """
    sides = ["right;white-space:nowrap" if name in numbers else "left" for name in header]
    rows = [_row("th", header, sides), *(_row("td", line, sides) for line in lines[:ROWS])]
    left = f"… and {len(lines) - ROWS:,} more rows" if len(lines) > ROWS else ""
    return f'<div style="{BOX}"><table>{"".join(rows)}</table></div>{note(left)}'


def _row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    parts = [
        f'<{tag} style="text-align:{side}">{text(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    ]
    return f"<tr>{''.join(parts)}</tr>"


def heading(title: object, about: object = "") -> str:
    """Return a title in bold, with words on it."""
    return f'<div><b>{text(title)}</b> <span style="{MUTED}">{text(about)}</span></div>'


def note(line: object) -> str:
    """Return a small line; '' for none."""
    return f'<div style="{MUTED};font-size:0.9em">{text(line)}</div>' if line else ""


def block(lines: str) -> str:
    """Return lines of text in a fixed width, such as a file."""
    style = "margin:0;font:12px/1.35 var(--jp-code-font-family,monospace)"
    return f'<div style="{BOX}"><pre style="{style}">{escape(printable(lines))}</pre></div>'


def folded(title: object, content: str) -> str:
    """Return a part that unfolds; its content is HTML."""
    return f"<details><summary>{text(title)}</summary>{content}</details>" if content else ""


def beside(*parts: str) -> str:
    """Return parts side by side where there is room, otherwise below each other."""
    style = "display:flex;flex-wrap:wrap;align-items:center;gap:1em"
    return f'<div style="{style}">{"".join(part and f"<div>{part}</div>" for part in parts)}</div>'
