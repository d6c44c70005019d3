"""Published runs by name: ``zoo:NAME`` comes with this package, ``hub:OWNER/NAME`` from the Hub.

Wherever a run or a saved network is read, such a name may stand for its folder. The nets of the zoo
are in the folder ``zoo`` of this package; ``python -m benchmarks.zoo`` trains them.
"""

import os
from pathlib import Path

from thalnet_mtl import hub
from thalnet_mtl.errors import unknown
from thalnet_mtl.runs.results import RunResult

ZOO = "zoo:"
FOLDER = Path(__file__).parent / "zoo"


def is_published(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the name of a published run, and not that of a folder."""
    return str(path).startswith((ZOO, hub.PREFIX))


def local_folder(path: str | os.PathLike[str]) -> Path:
    """Return a path, or for the name of a published run the folder that holds it here.

    Raises:
        UserError: the zoo has no net of this name; or as ``hub.pull`` does.
        RunError: as ``hub.pull`` does.
    """
    text = str(path)
    if text.startswith(ZOO):
        name = text.removeprefix(ZOO)
        if name not in (names := zoo_names()):
            raise unknown("net of the zoo", name, names)
        return FOLDER / name
    if text.startswith(hub.PREFIX):
        return hub.pull_named(text)
    return Path(path)


def zoo_names() -> list[str]:
    """Return the names of the nets of the zoo, in alphabetical order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/result.json"))


def zoo_lines() -> dict[str, str]:
    """Return a line on each net of the zoo, from the result of its run."""
    return {name: _line(RunResult.load(FOLDER / name)) for name in zoo_names()}


def _line(result: RunResult) -> str:
    scores = [
        f"{name} {task.metrics[0].name} {task.metrics[0].format(task.test)}"
        for name, task in result.tasks.items()
    ]
    return f"{result.body}, {result.parameters.total:,} parameters: {', '.join(scores)}"
