"""Networks from configurations and from saved data, sized to a parameter budget."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from thalnet_mtl.config.schema import Config, ModelConfig, ModuleConfig, TrainConfig
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.baselines import MLP
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import lookup
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

MOST_PARAMETERS = 10**10  # more is a slip of the finger, and would end in the allocator

Tasks = Mapping[str, TaskSpec]


def build(
    model: ModelConfig, tasks: Tasks, modules: Mapping[str, ModuleConfig] | None = None
) -> Network:
    """The network that a configuration describes, for tasks by name, within its budget.

    ``modules`` are those of a ThalNet by name, where they are not ``model.modules`` equal ones.
    """
    check(model, tasks, modules or {})
    make_body = lookup("body", model.body)

    def make(features: int) -> Network:
        options: dict[str, Any] = {
            "features": features,
            "inputs": shared_input_width(list(tasks.values()), features),
        }
        if make_body is not ThalNet:
            options["layers"] = model.layers
            if make_body is MLP:
                options["window"] = max(task.steps for task in tasks.values())
        elif modules:
            specs = [module(n, fields, model, tasks, features) for n, fields in modules.items()]
            options = {"modules": specs}
        else:
            names = ("modules", "context", "hidden", "module", "reading")
            options |= {name: getattr(model, name) for name in names}
        network = Network(make_body(**options))
        for name, task in tasks.items():
            network.add_task(name, task, sub_steps=model.sub_steps, extra_steps=model.extra_steps)
        return network

    features = model.features
    if not features:
        if not model.budget:
            raise UserError("give model.features or model.budget: both are 0.")
        features = largest_within_budget(make, model.budget)
    with torch.device("meta"):
        size = count_parameters(make(features))
    if model.budget and size > model.budget:
        raise UserError(
            f"model.features {features} makes {size:,} parameters, over model.budget "
            f"{model.budget:,}. Lower it, or give 0 to fill the budget."
        )
    if size > MOST_PARAMETERS:
        raise UserError(f"a network of {size:,} parameters is over {MOST_PARAMETERS:,}.")
    return make(features)


def check(model: ModelConfig, tasks: Tasks, modules: Mapping[str, ModuleConfig]) -> None:
    """Raise where a configuration describes no network."""
    if not tasks:
        raise UserError("a network needs at least one task.")
    make_body = lookup("body", model.body)
    if not make_body.recurrent and any(task.target == "every" for task in tasks.values()):
        raise UserError(
            f"model.body {model.body} has one output a sequence; the task wants one at every step."
        )
    if make_body is MLP and not any(task.steps for task in tasks.values()):
        raise UserError("model.body mlp needs a task whose sequences have a length.")
    if modules and make_body is not ThalNet:
        raise UserError(f"modules are those of a ThalNet; model.body is {model.body}.")


def module(
    name: str, fields: ModuleConfig, model: ModelConfig, tasks: Tasks, features: int
) -> ModuleSpec:
    """One module as configured; what it leaves open is as in ``model``, its width ``features``."""
    for task in fields.tasks:
        if task not in tasks:
            raise UserError(f"module '{name}': {unknown('task', task, tasks)}")
    own = [shape for key, shape in tasks.items() if not fields.tasks or key in fields.tasks]
    width = fields.features or features
    return ModuleSpec(
        name,
        features=width,
        context=fields.context or model.context or width,
        inputs=shared_input_width(own, width) if fields.input else 0,
        output=fields.output,
        hidden=fields.hidden or model.hidden,
        module=fields.module or model.module,
        reading=fields.reading or model.reading,
        reads=fields.reads or None,
        tasks=fields.tasks,
        frozen=fields.frozen,
    )


def shared_input_width(tasks: Sequence[TaskSpec], features: int) -> int:
    """The width of an input: that of its tasks if they agree, else that of the features."""
    widths = {task.inputs for task in tasks}
    return widths.pop() if len(widths) == 1 else features


def largest_within_budget(make: Callable[[int], nn.Module], budget: int) -> int:
    """The largest size n for which ``make(n)`` has at most ``budget`` parameters.

    Where they do not depend on n it is 1. Nothing is allocated. Raises if not even size 1 fits.
    """

    def count(size: int) -> int:
        with torch.device("meta"):
            return count_parameters(make(size))

    def fits(size: int) -> bool:
        return count(size) <= budget

    if not fits(1):
        raise UserError(f"model.budget {budget:,} is too small for even one feature.")
    low, high = 1, 2
    if count(low) == count(high):
        return low
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def configure_network(network: Network, options: TrainConfig) -> None:
    """Have a network drop out, and a ThalNet be computed, as configured."""
    network.dropout = options.dropout
    network.body.ops = options.ops


def selected_backend(config: Config, network: Network, task: str) -> str:
    """The level of ``ops`` that computes a task; '' where a baseline does.

    Raises:
        UserError: the one that is asked for cannot.
    """
    bf16 = config.train.precision == "bf16"
    kind = next(network.parameters()).device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
        return network.body.backend(active=network.active_modules(task))
