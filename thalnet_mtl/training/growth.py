"""How a network grows along a stream, when a task is new or when it does not get better."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import build
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.dry_run import fill_zeros
from thalnet_mtl.training.state import Run

NEW = ("new",)  # as the tasks of a module: the one for which it is attached, alone
Shapes = Mapping[str, TaskSpec]  # by the port of a task


def grow_if_due(run: Run) -> list[TopologyChange]:
    """Grow now, before the next step, if it is time; what was done."""
    experience, growth = run.experience, run.config.growth
    ports = list(dict.fromkeys(run.tasks[name].head_name for name in experience.tasks))
    shapes = {task.head_name: task.spec for task in run.tasks.values()}
    made: list[TopologyChange] = []
    if run.step == experience.start:
        for name in experience.tasks:  # looks of an earlier experience say nothing of this one
            run.best_by_task.get(name, {})["since"] = 0
        made = add_new_tasks(run.network, run.config, shapes, ports)
    stuck = growth.when == "on_plateau" and experience.number not in run.grown
    since = [run.best_by_task.get(name, {"since": 0})["since"] for name in experience.tasks]
    if stuck and min(since) >= growth.patience:
        run.grown.append(experience.number)
        made = attach_configured_modules(
            run.network, run.config, shapes, ports, str(experience.number)
        )
    for change in made:
        run.on_topology_change(change)
    return made


def add_new_tasks(
    network: Network, config: Config, shapes: Shapes, ports: list[str]
) -> list[TopologyChange]:
    """Plug in the tasks of an experience that are not there yet, with modules of their own."""
    new = [port for port in dict.fromkeys(ports) if port not in network.adapters]
    growth, made = config.growth, list[TopologyChange]()
    outputs = [name for name, spec in growth.modules.items() if spec.output]
    grows = growth.when == "per_task"
    if new and grows:
        made += attach_configured_modules(network, config, shapes, new)
    for port in new:
        # The head is on what is new, if that is made for heads.
        out_of = [f"{port}_{name}" for name in outputs] if grows and outputs else None
        sub, extra = config.model.sub_steps, config.model.extra_steps
        made.append(
            network.add_task(
                port, shapes[port], output_modules=out_of, sub_steps=sub, extra_steps=extra
            )
        )
    return made


def attach_configured_modules(
    network: Network, config: Config, shapes: Shapes, ports: list[str], plateau: str = ""
) -> list[TopologyChange]:
    """The configured modules for each of these tasks, which read what is there.

    By policy older tasks are frozen, or the modules that all tasks share read the new ones.
    Modules for a task that has its head already are read by modules of its own as well. What is
    attached is shared with later tasks, which read it and feed it, unless its tasks are ['new'].
    """
    growth, made = config.growth, list[TopologyChange]()
    net = dict(network.body.graph or {})
    readers = []
    if growth.policy == "shared":
        readers = [name for name, module in net.items() if not module.tasks and not module.frozen]
    else:
        old = [port for port in network.adapters if port not in ports]
        made += [network.freeze(task=t) for t in old if not network.adapter(t).spec.frozen]
    for port in ports:
        own = [name for name, module in net.items() if module.tasks == (port,)] if plateau else []
        if plateau and not readers + own:
            raise UserError(
                f"on_plateau: nothing would read what is attached for '{port}': policy shared, or "
                f"modules of its own."
            )
        names = {name: f"{port}_{name}{plateau}" for name in growth.modules}
        for name, spec in growth.modules.items():
            reads = tuple(names.get(other, other) for other in spec.reads)
            spec = replace(spec, tasks=(port,) if spec.tasks == NEW else spec.tasks, reads=reads)
            width = spec.features or config.model.features
            if not width:
                raise UserError(f"how wide is '{name}'? Give its features, or model.features.")
            module = build.module(names[name], spec, config.model, shapes, width)
            made.append(network.attach(module, read_by=readers + own))
    return made


def dry_run(config: Config, network: Network, shapes: Shapes, stream: list[Experience]) -> None:
    """Raise if the network cannot grow as configured, or would grow over its budget."""
    ports = {name: task.head or name for name, task in config.named_tasks.items()}
    network, budget = deepcopy(network), config.model.budget
    with torch.random.fork_rng(devices=[]):
        for experience in stream:
            fill_zeros(network)
            where = f"growth: experience {experience.number}"
            names = list(dict.fromkeys(ports[task] for task in experience.tasks))
            try:
                add_new_tasks(network, config, shapes, names)
                if config.growth.when == "on_plateau":
                    attach_configured_modules(
                        network, config, shapes, names, str(experience.number)
                    )
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            for port in names:
                if not any(p.requires_grad for p in network.task_parameters(port).values()):
                    raise UserError(f"{where}: nothing of task '{port}' learns.")
            size = count_parameters(network)
            if budget and size > budget:
                raise UserError(
                    f"{where} makes {size:,} parameters, over model.budget {budget:,}. Lower "
                    f"features, or raise the budget."
                )
