"""Networks built from a configuration, within a budget of parameters."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from thalnet_mtl.config.options import check_options, field_names
from thalnet_mtl.config.schema import Config, ModelConfig, ModuleConfig
from thalnet_mtl.config.training import TrainConfig
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.baselines import MLP
from thalnet_mtl.models.body import Body
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.recurrent import sized_body
from thalnet_mtl.models.shapes import shapes_only
from thalnet_mtl.models.size import check_memory, count_parameters
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import lookup
from thalnet_mtl.topology.options import ModuleOptions
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

# Fields of ``model`` that a body gets if its constructor has an argument of that name.
FIELDS = ("modules", "module", "reading", "context", "hidden", "layers")
MOST_MODULES = 1000

Tasks = Mapping[str, TaskSpec]


def build(
    model: ModelConfig, tasks: Tasks, modules: Mapping[str, ModuleConfig] | None = None
) -> Network:
    """Return the network that a configuration describes, within its budget.

    Args:
        model: the section of the configuration.
        tasks: shapes of the tasks by name.
        modules: the modules of a ThalNet by name; none for ``model.modules`` equal modules.
    """
    check(model, tasks, modules or {})
    make_body = lookup("body", model.body)
    if make_body is ThalNet:
        modules = modules or modules_for_named_inputs(model, tasks)
    own_options = check_options("body", model.body, model.options, "model", field_names(model))

    def make(features: int) -> Network:
        inputs = shared_input_width(list(tasks.values()), features)
        if modules:
            specs = [module(n, fields, model, tasks, features) for n, fields in modules.items()]
            if own_options.get("same_step") and all(spec.inputs for spec in specs):
                raise UserError("model.same_step has no effect: all modules take an input.")
            body: Body = ThalNet(modules=specs)
        else:
            accepted = inspect.signature(make_body).parameters
            options = {name: vars(model)[name] for name in FIELDS if name in accepted}
            if make_body is MLP:
                options["window"] = max(task.steps for task in tasks.values())
            body = sized_body(model.body, make_body, inputs, features, options | own_options)
        network = Network(body)
        for name, task in tasks.items():
            network.add_task(name, task, sub_steps=model.sub_steps, extra_steps=model.extra_steps)
        return network

    features = model.features
    if not features:
        if not model.budget:
            raise UserError("give model.features or model.budget: both are 0.")
        features = largest_within_budget(make, model.budget)
    with shapes_only():
        network = make(features)
    network.describe()  # raises if the body could not be saved
    size = count_parameters(network)
    if model.budget and size > model.budget:
        raise UserError(
            f"model.features {features} makes {size:,} parameters, over model.budget "
            f"{model.budget:,}. Lower it, or set it to 0 to fill the budget."
        )
    check_memory(size)
    return make(features)


def check(model: ModelConfig, tasks: Tasks, modules: Mapping[str, ModuleConfig]) -> None:
    """Raise if no network can be built from a configuration."""
    if not tasks:
        raise UserError("a network needs at least one task.")
    make_body = lookup("body", model.body)
    if not getattr(make_body, "recurrent", True) and any(
        task.every_step for task in tasks.values()
    ):
        raise UserError(
            f"model.body {model.body} has one output a sequence; the task needs one at every step."
        )
    if make_body is MLP and not any(task.steps for task in tasks.values()):
        raise UserError("model.body mlp needs a task whose sequences have a length.")
    if len(modules) > MOST_MODULES:
        raise UserError(f"{len(modules):,} modules are over {MOST_MODULES:,}.")
    if modules and make_body is not ThalNet:
        raise UserError(f"modules: only a ThalNet has modules; model.body is {model.body}.")


def module(
    name: str, fields: ModuleConfig, model: ModelConfig, tasks: Tasks, features: int
) -> ModuleSpec:
    """Return the specification of a configured module.

    Fields that are not set come from ``model``; the width that is not set is ``features``.
    """
    for task in fields.tasks:
        if task not in tasks:
            raise UserError(f"module '{name}': {unknown('task', task, tasks)}")
    serves = [shape for key, shape in tasks.items() if not fields.tasks or key in fields.tasks]
    width = fields.features or features
    inputs = shared_input_width(serves, width, name) if fields.input else 0
    options = check_options("body", model.body, model.options, "model", field_names(model))
    options["same_step"] = options.get("same_step", False) and not inputs
    return ModuleSpec(
        name,
        features=width,
        context=fields.context or model.context or width,
        inputs=inputs,
        output=fields.output,
        hidden=fields.hidden or model.hidden,
        module=fields.module or model.module,
        reading=fields.reading or model.reading,
        reads=fields.reads or None,
        tasks=fields.tasks,
        frozen=fields.frozen,
        options=ModuleOptions.from_plain(options),
    )


def modules_for_named_inputs(model: ModelConfig, tasks: Tasks) -> dict[str, ModuleConfig]:
    """Return ``model.modules`` modules, with an input module for every named input of a task.

    They replace the first module, or stand beside it if a task has a single input. Without named
    inputs there are none.
    """
    inputs = list(dict.fromkeys(name for task in tasks.values() for name in task.input_names))
    if not inputs:
        return {}
    if not all(task.input_names for task in tasks.values()):
        inputs.append("input")
    without_input = [*(f"side{k}" for k in range(1, model.modules - 1)), "output"]
    for name in inputs:
        if name in without_input:
            raise UserError(f"an input cannot be called '{name}', as another module is.")
    modules = {name: ModuleConfig(input=True) for name in inputs}
    return modules | {name: ModuleConfig(output=name == "output") for name in without_input}


def shared_input_width(tasks: Sequence[TaskSpec], features: int, name: str = "") -> int:
    """Return the width of an input if the tasks that have it agree, else that of the features."""
    having = [task for task in tasks if not task.input_names or name in task.input_names]
    widths = {task.input_width(name) for task in having}
    return widths.pop() if len(widths) == 1 else features


def largest_within_budget(make: Callable[[int], nn.Module], budget: int) -> int:
    """Return the largest n for which ``make(n)`` has at most ``budget`` parameters.

    Returns 1 if the number of parameters does not depend on n. No memory is allocated.

    Raises:
        UserError: not even n = 1 fits.
    """

    def count(size: int) -> int:
        with shapes_only():
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
    """Set the dropout and the backend of a network."""
    network.dropout = options.dropout
    network.body.ops = options.ops


def selected_backend(config: Config, network: Network, task: str) -> str:
    """Return the backend that computes a task; '' for a baseline.

    Raises:
        UserError: the requested backend cannot run this network.
    """
    with _precision(config, network):
        return network.body.backend(active=network.active_modules(task))


def lines_on_modules(config: Config, network: Network) -> list[str]:
    """Return for every task how its modules are batched, a line for equal ones, none twice."""
    if not isinstance(network.body, ThalNet):
        return []
    lines = list[str]()
    for task in network.adapters:
        with _precision(config, network):
            by_names = network.body.explain_modules(active=network.active_modules(task))
        lines += [f"{names}: {how}" for names, how in by_names.items()]
    return list(dict.fromkeys(lines))


def lines_on_backends(config: Config, network: Network) -> list[str]:
    """Return which backends can compute each task here, why others cannot, and which is used."""
    if not isinstance(network.body, ThalNet):
        return ["This body has a single backend."]
    lines = list[str]()
    for task in network.adapters:
        active = network.active_modules(task)
        with _precision(config, network):
            reasons = network.body.explain(active=active)
            used = network.body.backend(active=active)
        for backend, reason in reasons.items():
            chosen = " (used)" if backend == used else ""
            lines.append(f"{task}: {backend}{chosen}: {reason or 'can compute it'}")
        if used == "batched":
            lines += lines_on_modules(config, network)
    return list(dict.fromkeys(lines))


def _precision(config: Config, network: Network) -> torch.autocast:
    """Return the context of the precision in which a network is trained."""
    kind = next(network.parameters()).device.type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=config.train.precision == "bf16")
