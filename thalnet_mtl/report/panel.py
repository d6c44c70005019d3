"""Figures of the page: plain data from Python, drawn by a script of the same name.

A figure is added in three steps:

1. A function in ``report/panels/NAME.py`` returns a ``Panel``: a title, a sentence that says what
   is to be seen, plain data, and the same numbers as rows of a table, for readers without scripts
   or without sight. Data are lists, dictionaries, texts, numbers and None; ``number`` rounds what
   is measured, and makes None of NaN.
2. ``report/page/panels/NAME.js`` draws it, with the parts of Observable Plot that
   ``page/vendor/plot.entry.js`` names::

       panels.NAME = (data, view) => Plot.plot({width: view.width, marks: [...]});

   The function returns an element. It is called when the figure is first seen, and again when its
   width has changed. ``view.width`` is in pixels, ``view.narrow`` is true on a phone,
   ``view.label`` is the title, and ``view.state`` is an object that is kept from one drawing to the
   next. ``page/page.js`` has what panels share. Colors are the variables of ``page/style.css``
   (``color(k)`` is that of task or configuration k, 'var(--ink)' that of text), so that a drawing
   fits both themes. Text that comes from a run goes into a mark, a title or ``textContent``, and
   never into HTML.
3. ``report/html.py`` calls the function, and ``page/report.html.j2`` places the panel with
   ``{{ draw(panel) }}``, which writes title, sentence, data and table.

What ``plot.entry.js`` does not name is not in ``vendor/plot.js``; ``npm ci && npm run build`` in
``page/vendor`` makes that file again.

A figure in a closed ``<details>`` is not drawn before it is opened. No figure asks for a network:
the page forbids it to itself.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Panel:
    """A figure of the page.

    Args:
        kind: name of its script, ``page/panels/KIND.js``.
        title: heading, and label for screen readers.
        sentence: what is to be seen, and how it was measured.
        data: that the script draws, as JSON can hold it.
        table: the same numbers as rows of text by column; () if the page has them elsewhere.
        summary: of the folded table.
    """

    kind: str
    title: str
    sentence: str
    data: Any
    table: Sequence[Mapping[str, str]] = ()
    summary: str = "The numbers as a table"


def number(value: float | None, digits: int = 4) -> float | None:
    """Round a number to significant digits; None for what is not a finite number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def scripts() -> list[str]:
    """Return the scripts of the page in the order in which they run."""
    panels = sorted((PAGE / "panels").glob("*.js"))
    shared = [PAGE / name for name in ("vendor/plot.js", "keys.js", "page.js", "controls.js")]
    paths = [*shared, *panels]
    return [path.read_text(encoding="utf-8") for path in paths]


def security_policy(scripts: Sequence[str]) -> str:
    """Return the content of a ``Content-Security-Policy``: these scripts, and no network."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )
