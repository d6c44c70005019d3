"""Shows blocks for the shell and for files without the line of Jupyter that runs them.

A cell that begins with ``%%bash`` is a shell block; one that begins with ``%%writefile NAME`` is a
file with its name above. In the notebooks to download, the lines are still there. ``bash status N``
in front of a command checks its exit status, and is not shown either.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx

STATUS = re.compile(r"^(lines=\d+ )?bash status \d ", re.MULTILINE)
LANGUAGES = {"yaml": "yaml", "py": "python", "csv": "text", "toml": "toml"}


def show_plain_cells(app: Sphinx, document: nodes.document) -> None:
    """Rewrite the cells of a page."""
    for block in list(document.findall(nodes.literal_block)):
        first, _, rest = block.astext().partition("\n")
        command, _, argument = first.partition(" ")
        if command not in ("%%bash", "%%writefile"):
            continue
        rest = STATUS.sub("", rest)
        shown = nodes.literal_block(rest, rest, language="bash")
        if command == "%%bash":
            block.replace_self(shown)
            continue
        name = argument.removeprefix("-a ")
        shown["language"] = LANGUAGES.get(name.rpartition(".")[2], "text")
        title = nodes.paragraph("", "", nodes.literal(name, name), classes=["file-name"])
        cell = next(parent for parent in _parents(block) if "cell" in parent.get("classes", ()))
        block.replace_self([title, shown])
        for output in list(cell.findall(_is_output)):
            output.parent.remove(output)  # "Writing NAME"


def _is_output(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "cell_output" in node["classes"]


def _parents(node: nodes.Node) -> Iterator[nodes.Element]:
    while node := node.parent:
        yield node


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", show_plain_cells)
    return {"parallel_read_safe": True}
