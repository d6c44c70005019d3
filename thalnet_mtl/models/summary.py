"""Summaries of bodies and networks in a line for each module and each task."""

from collections.abc import Mapping

from torch import nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.body import Body
from thalnet_mtl.models.size import parameter_counts
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.spec import AdapterSpec, ModuleSpec


def network_summary(network: nn.Module, body: Body, adapters: Mapping[str, AdapterSpec]) -> str:
    """Return the body with its modules, the tasks, and the number of parameters."""
    lines = [f"body: {body_summary(body)}"]
    lines += [f"task {name}: {adapter_summary(spec)}" for name, spec in adapters.items()]
    counts = parameter_counts(network)
    lines.append(f"parameters: {counts['total']:,}, of which {counts['trainable']:,} trainable")
    return _block(type(network).__name__, lines)


def body_summary(body: Body) -> str:
    """Return a body with a line for each module, or with the arguments that made it."""
    name = body.entry.__name__
    if body.graph is not None:
        lines = [f"center: {body.graph.center} features of {_count(len(body.graph), 'module')}"]
        lines += [f"{m.name}: {_module(m, body.graph)}" for m in body.graph.modules]
        return _block(name, lines)
    try:
        arguments = body.arguments()
    except UserError:
        arguments = {"inputs": body.inputs, "outputs": body.outputs}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _module(module: ModuleSpec, graph: ModuleGraph) -> str:
    reads = "all modules" if len(module.seen) == len(graph) > 1 else ", ".join(module.seen)
    words = module.options.words()
    design = f"{module.module} with {words}" if words else module.module
    parts = [
        f"{design}, features {module.features}, context {module.context}",
        f"reads {reads} ({module.reading})",
    ]
    parts += [f"task input {module.inputs}"] if module.inputs else []
    parts += ["output"] if module.output else []
    parts += [f"only for {', '.join(module.tasks)}"] if module.tasks else []
    parts += ["frozen"] if module.frozen else []
    return "; ".join(parts)


def adapter_summary(spec: AdapterSpec) -> str:
    """Return the shape of a task, its connections and its steps in a line."""
    parts = [spec.task.words()]
    if spec.output_modules:
        parts += [f"{', '.join(spec.input_modules)} -> head on {', '.join(spec.output_modules)}"]
    parts += [f"{spec.sub_steps} steps per input"] if spec.sub_steps > 1 else []
    parts += [f"{_count(spec.extra_steps, 'extra step')}"] if spec.extra_steps else []
    parts += ["frozen"] if spec.frozen else []
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _block(name: str, lines: list[str]) -> str:
    indented = "\n".join(lines).replace("\n", "\n  ")
    return f"{name}(\n  {indented}\n)"
