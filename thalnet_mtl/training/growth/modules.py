"""Growth by configured modules: tasks are added, and modules are attached for them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from thalnet_mtl.config.schema import Config, GrowthConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import build
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.topology.spec import TaskSpec

NEW = ("new",)  # in the configuration of a module: it belongs only to the task it is attached for
Shapes = Mapping[str, TaskSpec]  # by the name of a head


def add_tasks(
    network: Network, config: Config, shapes: Shapes, heads: list[str], attach: bool
) -> list[TopologyChange]:
    """Add the tasks of an experience that have no head yet.

    Args:
        network: changed in place.
        config: says with ``growth`` which modules are attached for a task.
        shapes: of all tasks, by head.
        heads: of the tasks of the experience.
        attach: whether modules are attached for them, too.
    """
    new = [head for head in dict.fromkeys(heads) if head not in network.adapters]
    growth, changes = config.growth, list[TopologyChange]()
    outputs = [name for name, spec in growth.modules.items() if spec.output]
    if new and attach:
        changes += attach_modules(network, config, shapes, new)
    for head in new:
        # The head reads the attached output modules, if there are any.
        output_modules = [f"{head}_{name}" for name in outputs] if attach and outputs else None
        changes.append(
            network.add_task(
                head,
                shapes[head],
                output_modules=output_modules,
                sub_steps=config.model.sub_steps,
                extra_steps=config.model.extra_steps,
            )
        )
    return changes


def attach_modules(
    network: Network, config: Config, shapes: Shapes, heads: list[str], suffix: str = ""
) -> list[TopologyChange]:
    """Attach the configured modules for each task; they read the modules that exist.

    With policy 'frozen' older tasks are frozen; with 'shared' the modules that all tasks share
    read the new ones. Later tasks share what is attached, unless its tasks are ['new'].

    Args:
        network: changed in place.
        config: says with ``growth`` which modules are attached.
        shapes: of all tasks, by head.
        heads: of the tasks for which modules are attached.
        suffix: of the names of the modules, on a plateau. The tasks have their heads then, and
            modules that belong only to a task read the new ones as well.
    """
    growth, changes = config.growth, list[TopologyChange]()
    existing = dict(network.body.graph or {})
    readers = []
    if growth.policy == "shared":
        readers = [n for n, module in existing.items() if not module.tasks and not module.frozen]
    else:
        older = [head for head in network.adapters if head not in heads]
        changes += freeze_tasks(network, older)
    for head in heads:
        private = [n for n, module in existing.items() if module.tasks == (head,)] if suffix else []
        if suffix and not readers + private:
            raise UserError(
                f"{growth.when}: nothing would read what is attached for '{head}'. Use policy "
                f"shared, or give the task modules of its own."
            )
        names = {name: f"{head}_{name}{suffix}" for name in growth.modules}
        for name, spec in growth.modules.items():
            reads = tuple(names.get(slot, slot) for slot in spec.reads)
            spec = replace(spec, tasks=(head,) if spec.tasks == NEW else spec.tasks, reads=reads)
            width = spec.features or config.model.features
            if not width:
                raise UserError(
                    f"the width of module '{name}' is not set: give its features, or "
                    f"model.features."
                )
            module = build.module(names[name], spec, config.model, shapes, width)
            changes.append(network.attach(module, read_by=readers + private))
    return changes


def check_trainable(network: Network, growth: GrowthConfig, heads: Iterable[str]) -> None:
    """Raise ``UserError`` if nothing that a task of an experience uses can be trained."""
    for head in heads:
        if not any(p.requires_grad for p in network.task_parameters(head).values()):
            hint = " With growth.policy 'frozen' it learns in its first experience; use 'shared'."
            raise UserError(
                f"nothing that task '{head}' uses can be trained."
                f"{hint if growth.policy == 'frozen' else ''}"
            )


def freeze_tasks(network: Network, heads: Iterable[str]) -> list[TopologyChange]:
    """Freeze those of some tasks that are not frozen yet. Returns the changes."""
    return [network.freeze(task=t) for t in heads if not network.adapter(t).spec.frozen]
