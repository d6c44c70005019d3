"""The topology of a run with a search, written as training would, without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run_fixtures import make_run

KINDS = ("probe", "alone", "all")
Modules = dict[str, dict[str, Any]]


class SearchedTopology:
    """The content of a ``topology.json`` as a search writes it, a task after the other."""

    def __init__(self, first: str):
        self.modules: Modules = {}
        self.tasks: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.step = 30  # of the next changes
        self._attach("low", inputs=8)
        self._attach("high", ["low", "high"], read_by=["low"])
        self._add_task(first, ["low"], ["high"], ["low", "high"])
        self.history.clear()  # a run begins with its first task

    @property
    def content(self) -> dict[str, Any]:
        ends = [16 * k for k in range(len(self.modules) + 1)]
        modules = [
            {**module, "name": name, "slot": [start, start + 16]}
            for (name, module), start in zip(self.modules.items(), ends, strict=False)
        ]
        return {"modules": modules, "tasks": self.tasks, "history": self.history, "step": 30,
                "decisions": self.decisions}  # fmt: skip

    def add(self, task: str, kind: str) -> None:
        """Give a new task a probe of the first one, or modules of its own."""
        earlier = list(self.modules)
        self._change("freeze", f"task {list(self.tasks)[-1]}",
                     {n: m | {"frozen": True} for n, m in self.modules.items()})  # fmt: skip
        first = next(iter(self.tasks))
        names = {"probe": f"probe of {first}"}
        self.decisions.append({
            "step": 30, "changes": len(self.history), "experience": len(self.tasks) + 1,
            "task": task, "about": "task", "reason": f"{names.get(kind, kind)} is the best",
            "prior": {name: 0.5 for name in self.tasks},
            "candidates": [
                {"candidate": names.get(each, each), "parameters": 100 + k, "steps": 4 * (k + 1),
                 "score": 0.5, "scores": [0.7, 0.5], "chosen": each == kind}
                for k, each in enumerate(KINDS)
            ],
        })  # fmt: skip
        if kind == "probe":
            self._add_task(task, ["low"], ["high"], ["low", "high"])
            return
        low, high = f"{task}_low", f"{task}_high"
        read = earlier if kind == "all" else []
        self._attach(low, [*read, low], inputs=8)
        self._attach(high, [*read, low, high], read_by=[low])
        self._add_task(task, [low], [high], [*read, low, high])

    def grow(self, task: str) -> None:
        """Give a new task a module that reads all, as a rule of growth would, and freeze all."""
        self._change("freeze", f"task {list(self.tasks)[-1]}",
                     {n: m | {"frozen": True} for n, m in self.modules.items()})  # fmt: skip
        name = f"{task}_own"
        everything = [*self.modules, name]
        self._attach(name, everything, inputs=8)
        self.modules[name]["output"] = True
        self._add_task(task, [name], [name], everything)

    def decide(self, about: str, candidate: str) -> None:
        """Add a decision within the last experience."""
        entries = [{"candidate": each, "parameters": 0, "score": 0.4, "p_value": 0.03,
                    "chosen": each == candidate} for each in ("keep", candidate)]  # fmt: skip
        self.decisions.append({
            "step": 40, "changes": len(self.history), "experience": len(self.tasks),
            "task": list(self.tasks)[-1], "about": about, "reason": f"{candidate} helps",
            "candidates": entries,
        })  # fmt: skip

    def route(self, reader: str, source: str) -> None:
        """Let a module read another one."""
        module = self.modules[reader]
        opened = module | {"reads": [*module["reads"], source]}
        self._change("route", f"{reader} to {source}", self.modules | {reader: opened})

    def detach(self, name: str) -> None:
        """Remove a module."""
        rest = {n: m | {"reads": [r for r in m["reads"] if r != name]}
                for n, m in self.modules.items() if n != name}  # fmt: skip
        for task in self.tasks.values():
            task["active"] = [each for each in task["active"] if each != name]
        self._change("detach", name, rest)

    def attach(self, name: str, read_by: Sequence[str]) -> None:
        """Add an inner module for the last task that reads what reads it."""
        self._attach(name, [*read_by, name], read_by=read_by, output=False)
        list(self.tasks.values())[-1]["active"].append(name)

    def _attach(self, name: str, reads: Sequence[str] = (), inputs: int = 0,
                read_by: Sequence[str] = (), output: bool = True) -> None:  # fmt: skip
        modules = self.modules | {
            reader: self.modules[reader] | {"reads": [*self.modules[reader]["reads"], name]}
            for reader in read_by
        }
        modules[name] = {
            "features": 16, "context": 8, "inputs": inputs, "output": output and not inputs,
            "module": "ff_gru", "reading": "linear", "reads": list(reads or [name]), "opened": [],
            "tasks": [], "frozen": False, "parameters": 1000,
        }  # fmt: skip
        self._change("attach", name, modules)

    def _add_task(self, name: str, inputs: list[str], outputs: list[str], active: list) -> None:
        self.tasks[name] = {
            "task": {"inputs": 8, "outputs": 10}, "into": inputs, "out_of": outputs,
            "active": active, "sub_steps": 1, "extra_steps": 0, "frozen": False,
            "encode": False, "parameters": 170,
        }  # fmt: skip
        self._change("add_task", name, self.modules)

    def _change(self, verb: str, about: str, modules: Mapping[str, Any]) -> None:
        keys = ("reads", "inputs", "output", "frozen")
        old, new = (
            {name: {key: module[key] for key in keys} for name, module in each.items()}
            for each in (self.modules, modules)
        )
        before = {n: old.get(n) for n in {**old, **new} if old.get(n) != new.get(n)}
        self.modules = dict(modules)
        size = sum(module["parameters"] for module in modules.values())
        self.history.append({"step": self.step, "seconds": self.step / 30, "parameters": size,
                             "verb": verb, "about": about, "before": before})  # fmt: skip


def search_run(folder: Path, tasks: Mapping[str, str]) -> Path:
    """A run whose first task has modules, and in which each of the others gets something."""
    first, *others = tasks
    topology = SearchedTopology(first)
    for task in others:
        topology.add(task, tasks[task])
    return write_search(folder, topology)


def write_search(folder: Path, topology: SearchedTopology) -> Path:
    make_run(folder, {task: {"kind": "digits_rows"} for task in topology.tasks})
    (folder / "topology.json").write_text(json.dumps(topology.content))
    return folder
