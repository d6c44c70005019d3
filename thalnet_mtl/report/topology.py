"""Rows of the tables of a network's modules, tasks and changes, as text by column."""

from collections.abc import Sequence

from thalnet_mtl.runs.topology_file import ModuleEntry, TaskEntry, TopologySnapshot


def module_rows(topology: TopologySnapshot) -> list[dict[str, str]]:
    """Return a row for every module.

    'reads' is 'all' or names of modules; a + marks a slot opened after the module was attached.
    """
    names = [module.name for module in topology.modules]
    return [
        {
            "module": module.name,
            "slot": "{}–{}".format(*module.slot),
            "features": f"{module.features:,}",
            "context": f"{module.context:,}",
            "inputs": f"{module.inputs:,}" if module.inputs else "–",
            "output": "yes" if module.output else "–",
            "design": _design(module),
            "reading": module.reading,
            "reads": _reads(module, names),
            "tasks": ", ".join(module.tasks) or "shared",
            "frozen": "yes" if module.frozen else "–",
            "parameters": f"{module.parameters:,}",
        }
        for module in topology.modules
    ]


def _design(module: ModuleEntry) -> str:
    """Return the design of a module with its options."""
    options = [
        name if value is True else f"{name} {value}" for name, value in module.options.items()
    ]
    return f"{module.module} with {', '.join(options)}" if options else module.module


def task_rows(topology: TopologySnapshot) -> list[dict[str, str]]:
    """Return a row for every task; its parameters are those of its encoders and its head."""
    names = [module.name for module in topology.modules]
    return [
        {
            "task": name,
            "input modules": ", ".join(task.input_modules),
            "output modules": ", ".join(task.output_modules),
            "active": _names(task.active, names),
            "sub-steps": f"{task.sub_steps} + {task.extra_steps}",
            "frozen": "yes" if task.frozen else "–",
            "parameters": f"{task.parameters:,}",
        }
        for name, task in topology.tasks.items()
    ]


def history_rows(topology: TopologySnapshot) -> list[dict[str, str]]:
    """Return a row for every change, in order.

    'parameters' is the size of the network after the change.
    """
    return [
        {
            "#": str(number),
            "step": f"{change.step:,}",
            "time (s)": f"{change.seconds:,.1f}",
            "change": change.verb,
            "modules": change.about,
            "parameters": f"{change.parameters:,}",
        }
        for number, change in enumerate(topology.history, start=1)
    ]


def totals(topology: TopologySnapshot) -> str:
    """Return the width of the center and the numbers of parameters, in one line."""
    parts: list[ModuleEntry | TaskEntry] = [*topology.modules, *topology.tasks.values()]
    in_modules = sum(module.parameters for module in topology.modules)
    total = sum(part.parameters for part in parts)
    frozen = sum(part.parameters for part in parts if part.frozen)
    width = sum(module.features for module in topology.modules)
    return (
        f"{len(topology.modules)} modules around a center of {width:,}; {total:,} parameters: "
        f"{in_modules:,} in modules, {total - in_modules:,} in encoders and heads; {frozen:,} "
        f"frozen; after step {topology.step:,}"
    )


def _reads(module: ModuleEntry, names: Sequence[str]) -> str:
    if module.opened:
        return ", ".join("+" * (name in module.opened) + name for name in module.reads)
    return _names(module.reads, names)


def _names(subset: Sequence[str], names: Sequence[str]) -> str:
    """Return 'all' if a subset of several modules is all of them, otherwise its names."""
    return "all" if len(names) > 1 and set(subset) == set(names) else ", ".join(subset)
