"""Makes the pages of evidence from the pages of ``benchmarks/``, with their pictures.

They are written to ``evidence/`` before the pages are read, and git ignores them.
"""

import os
import re
import shutil
from functools import partial
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)]*)?\)")
TITLES = {  # in the order of the menu
    "quality/README": "ThalNet and GRU",
    "best/README": "The best of each",
    "claim/README": "Three tasks jointly",
    "attach/README": "A new task on a trained center",
    "continual/README": "Ten tasks in sequence",
    "continual/STRATEGIES": "Strategies and targets",
    "sequence/README": "Tasks of different shapes",
    "search/README": "Architecture search",
    "search/SWITCHING": "Growth within a task",
    "search/DRIFT": "Changes of the data",
    "search/PATHS": "Paths after a change",
    "paths/README": "Tasks that are not named",
    "speed/README": "Speed",
}


def write_pages(app: Sphinx) -> None:
    """Write a page for every Markdown file of the benchmarks, and their list."""
    source = Path(app.srcdir).parent / "benchmarks"
    target = Path(app.srcdir) / "evidence"
    shutil.rmtree(target, ignore_errors=True)
    pages = sorted(source.rglob("*.md"))
    for page in pages:
        relink = partial(_relink, page=page, source=source, target=target)
        text = LINK.sub(relink, page.read_text("utf-8"))
        path = target / page.relative_to(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    names = [page.relative_to(source).with_suffix("").as_posix() for page in pages]
    untitled = [name for name in names if name not in TITLES and name != "README"]
    entries = [*(f"{title} <{name}>" for name, title in TITLES.items()), *untitled]
    toctree = "\n".join(["", "```{toctree}", ":hidden:", *entries, "```", ""])
    with (target / "README.md").open("a", encoding="utf-8") as file:
        file.write(toctree)


def _relink(link: re.Match[str], page: Path, source: Path, target: Path) -> str:
    """Return a link with its target on the site; its text alone where the site has none."""
    picture, text, to, anchor = link.groups()
    if to.startswith(("http:", "https:", "mailto:")):
        return link[0]
    path = Path(os.path.normpath(page.parent / to))
    if path.is_dir():
        path /= "README.md"
    if picture and path.is_file():
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        return link[0]
    if path.suffix == ".md" and path.is_relative_to(source) and path.is_file():
        here = (target / page.relative_to(source)).parent
        there = os.path.relpath(target / path.relative_to(source), here)
        return f"[{text}]({there}{anchor or ''})"
    return text


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
