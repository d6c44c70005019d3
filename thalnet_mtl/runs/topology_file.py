"""What ``topology.json`` says about the modules of a run, as rows of a table.

The file is all that is read: a network can be looked at while it trains, without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_fields, require

MODULE = ("name", "features", "context", "inputs", "output", "module", "reading",
          "reads", "opened", "tasks", "frozen", "slot", "parameters")  # fmt: skip
TASK = ("into", "out_of", "active", "sub_steps", "extra_steps", "frozen", "parameters")
CHANGE = ("step", "seconds", "verb", "about", "parameters")


@dataclass(frozen=True)
class TopologySnapshot:
    """Modules in the order of their slots, tasks by name, and changes in the order of time."""

    modules: list[dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    history: list[dict[str, Any]]
    step: int


def read_structure(folder: Path) -> TopologySnapshot:
    """The modules of a run as they were when it last wrote them down.

    Raises:
        UserError: there is no run, it has no modules (yet), or the file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"no run directory '{folder}'.")
    body = load_run_config(folder).model.body
    path = folder / "topology.json"
    if not path.exists():
        why = "the run has not started" if body == "thalnet" else f"a {body} has no modules"
        raise UserError(f"{folder} has no topology.json: {why}.")
    content = read_fields(path)
    require(content, ("modules", "tasks", "history", "step"), str(path))
    for module in content["modules"]:
        require(module, MODULE, f"{path}: a module")
    for name, task in content["tasks"].items():
        require(task, TASK, f"{path}: task '{name}'")
    for change in content["history"]:
        require(change, CHANGE, f"{path}: a change")
    return TopologySnapshot(
        content["modules"], content["tasks"], content["history"], content["step"]
    )


def module_rows(structure: TopologySnapshot) -> list[dict[str, str]]:
    """One a module. What it reads is 'all', or names; + marks a slot opened after it was made."""
    names = [module["name"] for module in structure.modules]
    return [
        {
            "module": module["name"],
            "slot": "{}–{}".format(*module["slot"]),
            "features": f"{module['features']:,}",
            "context": f"{module['context']:,}",
            "inputs": f"{module['inputs']:,}" if module["inputs"] else "–",
            "output": "yes" if module["output"] else "–",
            "design": module["module"],
            "reading": module["reading"],
            "reads": _reads(module, names),
            "tasks": ", ".join(module["tasks"]) or "shared",
            "frozen": "yes" if module["frozen"] else "–",
            "parameters": f"{module['parameters']:,}",
        }
        for module in structure.modules
    ]


def task_rows(structure: TopologySnapshot) -> list[dict[str, str]]:
    """One a task; the parameters are those of its encoder and its head."""
    names = [module["name"] for module in structure.modules]
    return [
        {
            "task": name,
            "into": ", ".join(task["into"]),
            "out of": ", ".join(task["out_of"]),
            "active": _names(task["active"], names),
            "sub-steps": f"{task['sub_steps']} + {task['extra_steps']}",
            "frozen": "yes" if task["frozen"] else "–",
            "parameters": f"{task['parameters']:,}",
        }
        for name, task in structure.tasks.items()
    ]


def history_rows(structure: TopologySnapshot) -> list[dict[str, str]]:
    """One a change, with the number that it has in figures, and all parameters after it."""
    return [
        {
            "#": str(number),
            "step": f"{change['step']:,}",
            "time (s)": f"{change['seconds']:,.1f}",
            "change": change["verb"],
            "what": change["about"],
            "parameters": f"{change['parameters']:,}",
        }
        for number, change in enumerate(structure.history, start=1)
    ]


def totals(structure: TopologySnapshot) -> str:
    """Width of the center and parameters, in one line."""
    parts = [*structure.modules, *structure.tasks.values()]
    inside = sum(module["parameters"] for module in structure.modules)
    total = sum(part["parameters"] for part in parts)
    frozen = sum(part["parameters"] for part in parts if part["frozen"])
    width = sum(module["features"] for module in structure.modules)
    return (
        f"{len(structure.modules)} modules around a center of {width:,}; {total:,} parameters: "
        f"{inside:,} in modules, {total - inside:,} in encoders and heads; {frozen:,} frozen; "
        f"after step {structure.step:,}"
    )


def _reads(module: dict[str, Any], names: Sequence[str]) -> str:
    if module["opened"]:
        return ", ".join("+" * (name in module["opened"]) + name for name in module["reads"])
    return _names(module["reads"], names)


def _names(some: Sequence[str], names: Sequence[str]) -> str:
    """Names, or 'all' for those of all of several modules."""
    return "all" if len(names) > 1 and set(some) == set(names) else ", ".join(some)
