"""Candidates of the search: ways to give a new task its modules, as lists of existing verbs.

The path of a task is what runs for it: its encoder, its modules and its head. A candidate reuses
the path of an earlier task, in part or whole, or adds modules of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from thalnet_mtl.config.schema import Config, ModuleConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import build
from thalnet_mtl.models.adapter import resizing
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.search.kinds import REUSING

Shapes = Mapping[str, TaskSpec]  # by the name of a head


@dataclass(frozen=True)
class Candidate:
    """A way to give a task its modules.

    Args:
        kind: one of ``KINDS``: ``probe`` adds a head to the path of an earlier task; ``bottom``
            also a learned encoder in front of it; ``top`` output modules that read the path;
            ``finetune`` a trainable copy of the path; ``alone`` modules that read only each other;
            ``all`` modules that read everything.
        source: the head of the task whose path it reuses; '' for ``alone`` and ``all``.
    """

    kind: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.kind} of {self.source}" if self.source else self.kind


def candidates(network: Network, config: Config, shape: TaskSpec, source: str) -> list[Candidate]:
    """Return the candidates for a new task, that with the most parameters last.

    Args:
        network: with the earlier tasks.
        config: says with ``growth`` which modules are attached.
        shape: of the new task.
        source: head of the earlier task whose path may be reused; '' if there is none.
    """
    reusing = [*REUSING] if source else []
    if shape.tokens and source:
        reusing.remove("bottom")  # an encoder of rows
    if source and not of_top(config):
        reusing.remove("top")
    if source and network.adapter(source).task.inputs != shape.inputs:
        reusing = ["bottom"]  # a path reads rows of another width through an encoder alone
    return [*(Candidate(kind, source) for kind in reusing), Candidate("alone"), Candidate("all")]


def reusable(network: Network, shape: TaskSpec) -> list[str]:
    """Return the heads of the earlier tasks whose path can read the inputs of a new task.

    Rows of another width are brought to that of the path.
    """

    def fits(task: TaskSpec) -> bool:
        if task.tokens or task.input_names:
            return (task.inputs, task.tokens) == (shape.inputs, shape.tokens)
        return not (shape.tokens or shape.input_names)

    return [head for head in network.adapters if fits(network.adapter(head).task)]


def of_top(config: Config) -> dict[str, ModuleConfig]:
    """Return the configured modules of which a new top consists: outputs that take no input."""
    modules = config.growth.modules
    return {name: module for name, module in modules.items() if module.output and not module.input}


def apply(
    candidate: Candidate, network: Network, config: Config, shapes: Shapes, head: str
) -> list[TopologyChange]:
    """Give a new task its modules and its head. Returns the changes.

    Args:
        candidate: the way to do so.
        network: changed in place; its earlier tasks are frozen.
        config: says with ``growth`` which modules are attached.
        shapes: of all tasks, by head.
        head: of the new task.
    """
    changes, kind = list[TopologyChange](), candidate.kind
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    encode = False
    if candidate.source:
        spec = network.adapter(candidate.source).spec
        inputs, outputs, path = (
            spec.input_modules,
            spec.output_modules,
            network.active_modules(candidate.source),
        )
        encode = spec.encode or kind == "bottom"
    if kind == "finetune":
        names = {name: f"{head}_{name}" for name in path}
        changes.append(network.clone_together(names))
        inputs, outputs = (tuple(names[name] for name in end) for end in (inputs, outputs))
    elif kind != "probe" and kind != "bottom":
        modules = of_top(config) if kind == "top" else config.growth.modules
        earlier = tuple(network.body.graph or ()) if kind == "all" else path
        changes += _attach(network, config, shapes, head, modules, earlier)
        outputs = tuple(f"{head}_{name}" for name, module in modules.items() if module.output)
        if kind == "alone":
            inputs = tuple(f"{head}_{name}" for name, module in modules.items() if module.input)
    changes.append(
        network.add_task(
            head,
            shapes[head],
            input_modules=inputs,
            output_modules=outputs,
            sub_steps=config.model.sub_steps,
            extra_steps=config.model.extra_steps,
            encode=encode,
        )
    )
    if candidate.source:
        _inherit_encoders(network, head, candidate.source)
    return changes


@torch.no_grad()
def _inherit_encoders(network: Network, head: str, source: str) -> None:
    """Let learned encoders of a task begin as those of the task whose path it reuses."""
    new, old = network.adapter(head), network.adapter(source)
    for encoder, earlier in zip(new.encoders.values(), old.encoders.values(), strict=True):
        if isinstance(encoder, nn.Linear) and isinstance(earlier, nn.Linear):
            resize = resizing(encoder.in_features, earlier.in_features).to(earlier.weight)
            encoder.weight.copy_(earlier.weight @ resize.weight)
            encoder.bias.copy_(earlier.bias)
        elif isinstance(encoder, nn.Embedding) and isinstance(earlier, nn.Embedding):
            encoder.load_state_dict(earlier.state_dict())


def _attach(
    network: Network,
    config: Config,
    shapes: Shapes,
    head: str,
    modules: Mapping[str, ModuleConfig],
    earlier: Sequence[str],
) -> list[TopologyChange]:
    """Attach modules that read some earlier ones, and each other."""
    changes, names = list[TopologyChange](), list[str]()
    for name, module in modules.items():
        full, width = f"{head}_{name}", module.features or config.model.features
        if not width:
            raise UserError(
                f"the width of module '{name}' is not set: give its features, or model.features."
            )
        spec = build.module(
            full, replace(module, reads=()), config.model, {head: shapes[head]}, width
        )
        spec = replace(spec, reads=(*earlier, *names, full))
        changes.append(network.attach(spec, read_by=names))
        names.append(full)
    return changes
