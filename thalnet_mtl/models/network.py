"""A network joins tasks to a body, and changes while it is trained.

``logits, state = network(task, xs, state)``. Tasks may differ in width, kind and length; the body
between them is ThalNet or a baseline, and knows none of them. Around a ThalNet modules come and go
at any moment between optimizer steps; each verb returns a ``Change``, which brings an optimizer
along::

    change = network.attach(ModuleSpec("side3", features=32, context=32), read_by=["output"])
    change.update_optimizer(optimizer)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.adapter import TaskAdapter
from thalnet_mtl.models.body import Body, check_name, check_sequence, check_sub_steps
from thalnet_mtl.models.change import StateLayout, TopologyChange, record_change
from thalnet_mtl.models.readings.base import IndexMap
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology import graph
from thalnet_mtl.topology.graph import (
    active_modules,
    attached,
    check_head_sees_input,
    check_inputs_reach,
    cloned,
    detached,
    resolve,
    routed,
)
from thalnet_mtl.topology.spec import AdapterSpec, ModuleSpec, TaskSpec


class Network(nn.Module):
    """A body with tasks plugged into it.

    >>> import torch
    >>> network = Network(ThalNet(inputs=28, modules=4, features=32))
    >>> change = network.add_task("digits", TaskSpec(inputs=28, classes=10))
    >>> logits, state = network("digits", torch.zeros(5, 28, 28))
    >>> logits.shape
    torch.Size([5, 10])
    """

    def __init__(self, body: Body):
        super().__init__()
        self.body = body
        self.adapters = nn.ModuleDict()
        self.made_of: dict[str, Any] = {}  # what a baseline was built with, by ``build``
        self.dropout = 0.0  # of rows that come in and of what heads read, while training

    def forward(self, task: str, xs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits and state.

        Args:
            task: name of the task.
            xs: (batch, time, inputs) rows in [0, 1], or (batch, time) tokens.
            state: of an earlier chunk of the same sequences.

        Returns:
            Logits (batch, classes), or (batch, time, classes) for a target at every step.
        """
        port = self.adapter(task)
        ys, state = self._outputs(task, port, xs, state)
        return port.answer(ys), state

    def logits_by_task(self, tasks: Sequence[str], xs: Tensor) -> dict[str, Tensor]:
        """Logits of several tasks for one input; what is alike before their heads runs once."""
        found, outputs = dict[str, Tensor](), dict[Any, Tensor]()
        for task in tasks:
            port = self.adapter(task)
            alike = replace(port.spec, frozen=False), self.active_modules(task)
            key = task if any(True for _ in port.encoders.parameters()) else alike
            if key not in outputs:
                outputs[key], _ = self._outputs(task, port, xs, None)
            found[task] = port.answer(outputs[key])
        return found

    def _outputs(self, task: str, port: TaskAdapter, xs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What the body gives to the head of a task at every step, and its state."""
        plug = port.spec
        if plug.task.tokens and xs.ndim != 2:
            raise UserError(f"task '{task}': expected tokens (batch, time), got {tuple(xs.shape)}.")
        if not plug.task.tokens:
            check_sequence(xs, plug.task.inputs, f"input of task '{task}'")
            xs = F.dropout(xs, self.dropout, self.training)
        options: dict[str, Any] = {"sub_steps": plug.sub_steps, "extra_steps": plug.extra_steps}
        if isinstance(self.body, ThalNet):
            options |= {"outputs": plug.output_modules, "active": self.active_modules(task)}
        ys, state = self.body(port.encode(xs, self.active_modules(task)), state, **options)
        return F.dropout(ys, self.dropout, self.training), state

    def initial(self, task: str, batch: int) -> Any:
        """The state of a task before its first step."""
        nothing = self.adapter(task).head.weight.new_zeros(batch, 1, 1)
        options = {"active": self.active_modules(task)} if isinstance(self.body, ThalNet) else {}
        return self.body.initial(nothing, **options)

    def adapter(self, task: str) -> TaskAdapter:
        """Where a task is plugged in."""
        if task not in self.adapters:
            raise unknown("task", task, self.adapters)
        port = self.adapters[task]
        assert isinstance(port, TaskAdapter)
        return port

    def active_modules(self, task: str) -> tuple[str, ...]:
        """The modules that run for a task; see ``topology.active``. None of a baseline."""
        plug = self.adapter(task).spec
        body = self.body
        return active_modules(body.modules_by_name, task, plug) if isinstance(body, ThalNet) else ()

    def task_parameters(self, task: str) -> dict[str, nn.Parameter]:
        """The parameters that a task's logits can depend on, by name."""
        inside = ["body."]
        if isinstance(self.body, ThalNet):
            inside = [f"body.cells.{name}." for name in self.active_modules(task)]
        starts = (*inside, f"adapters.{task}.")
        return {name: p for name, p in self.named_parameters() if name.startswith(starts)}

    # Tasks

    def add_task(
        self,
        name: str,
        task: TaskSpec,
        *,
        input_modules: Sequence[str] = (),
        output_modules: Sequence[str] | None = None,
        sub_steps: int = 1,
        extra_steps: int = 0,
    ) -> TopologyChange:
        """Plug a task in.

        A task as wide as the body goes in as it is (rows) or one-hot (tokens); any other gets a
        learned linear encoder or embedding. ``into`` and ``out_of`` name modules of a ThalNet;
        by default those that were built as inputs and as outputs and may run for the task.
        """
        if name in self.adapters:
            raise UserError(f"the network has a task '{name}' already.")
        check_name("task", name)
        check_sub_steps(sub_steps, extra_steps, self.body.recurrent)
        if extra_steps and task.target == "every":
            raise UserError(f"extra_steps: task '{name}' has a target at every step; must be 0.")
        if not self.body.recurrent and task.target == "every":
            raise UserError(
                f"a body without steps has one output a sequence; task '{name}' wants one a step."
            )
        if isinstance(self.body, ThalNet):
            ends = graph.default_endpoints(
                self.body.modules_by_name, name, input_modules, output_modules
            )
            check_head_sees_input(self.body.modules_by_name, name, AdapterSpec(task, *ends))
        elif input_modules or output_modules is not None:
            raise UserError("only the modules of a ThalNet can be named as inputs or outputs.")
        else:
            ends = (), ()
        plug = AdapterSpec(task, *ends, sub_steps, extra_steps)
        return self.plug_in(name, plug)

    def plug_in(self, name: str, plug: AdapterSpec) -> TopologyChange:
        """As ``add_task``, from data that was checked before."""
        port = TaskAdapter(self.body, plug).to(next(self.body.parameters()))
        port.requires_grad_(not plug.frozen)
        return self._change("add_task", name, lambda: self.adapters.update({name: port}))

    def remove_task(self, name: str) -> TopologyChange:
        """Take a task's encoders and head away; modules stay."""
        self.adapter(name)
        return self._change("remove_task", name, lambda: self.adapters.__delitem__(name))

    # Modules

    def attach(self, module: ModuleSpec, *, read_by: Sequence[str] = ()) -> TopologyChange:
        """Add a module behind all others, and open some of the others to it.

        For tasks that run none of those nothing changes, to the bit. Where old modules are opened
        to it their outputs stay what they were, to rounding: new columns of static readings are
        zero, the gates of dynamic ones closed.

        ``module.reads`` None are all slots that a task of its own may run, itself included.
        """
        net = attached(self._graph("attach"), module, read_by)
        by = f", read by {', '.join(read_by)}" if read_by else ""
        return self._rewire("attach", f"{module.name}{by}", net, module.name)

    def detach(self, name: str) -> TopologyChange:
        """Take a module out, and its slot out of all readings."""
        for task in self.adapters:
            plug = self.adapter(task).spec
            if name in (*plug.input_modules, *plug.output_modules):
                raise UserError(f"detach: task '{task}' needs module '{name}'; remove_task first.")
        return self._rewire("detach", name, detached(self._graph("detach"), name))

    def clone(
        self, source: str, name: str, *, tasks: Sequence[str] | None = None
    ) -> TopologyChange:
        """Add a module that starts as a copy of another: same sizes, weights and what it reads.

        Where ``source`` reads itself the copy reads itself. ``tasks`` are those that may run it,
        by default the same. The copy learns, even if ``source`` is frozen.
        """
        net = cloned(self._graph("clone"), source, name, tasks)
        assert isinstance(self.body, ThalNet)
        reading = self.body.cell(source).reading
        reading.check_resize(range(reading.center))  # a copy has its columns in another order
        return self._rewire("clone", f"{name} from {source}", net, name, source)

    def route(self, reader: str, source: str, open: bool = True) -> TopologyChange:
        """Let a module see a slot from now on, or not any more.

        Opening changes nothing at first, as in ``attach``. Closing forgets what was learned of it,
        and where R is normalized (``weight_norm``, ``fast_softmax``) what is left weighs more.
        """
        net = routed(self._graph("route"), reader, source, open)
        return self._rewire("route", f"{reader} {'to' if open else 'not to'} {source}", net, reader)

    def freeze(self, *modules: str, task: str | None = None) -> TopologyChange:
        """Stop the learning of modules, or of all that a task uses.

        A frozen task gives the same logits to the bit, whatever is trained later. Frozen
        parameters leave the optimizer; gradients still pass through them to what they read.
        """
        return self._set_frozen("freeze", modules, task, True)

    def unfreeze(self, *modules: str, task: str | None = None) -> TopologyChange:
        """Let modules learn again, or all that a task uses and no other frozen task does.

        They come back to the optimizer without moments.
        """
        return self._set_frozen("unfreeze", modules, task, False)

    def describe(self) -> dict[str, Any]:
        """The topology as plain data; ``build.restore`` makes the same network of it."""
        body: dict[str, Any] = {"made_of": self.made_of}
        if isinstance(self.body, ThalNet):
            body = {"modules": [asdict(module) for module in self.body.modules_by_name.values()]}
        learns = any(parameter.requires_grad for parameter in self.body.parameters())
        tasks = {name: asdict(self.adapter(name).spec) for name in self.adapters}
        return body | {"tasks": tasks, "frozen": not learns}

    # What the verbs share

    def _graph(self, verb: str) -> dict[str, ModuleSpec]:
        """The modules by name, if there are any."""
        if not isinstance(self.body, ThalNet):
            raise UserError(f"{verb}: only a ThalNet has modules, not {type(self.body).__name__}.")
        return self.body.modules_by_name

    def _rewire(
        self, verb: str, about: str, net: Mapping[str, ModuleSpec], name: str = "", source: str = ""
    ) -> TopologyChange:
        """Check the graph as it would be, then make it so.

        ``name`` is a module that must not idle then, ``source`` one that it is made a copy of.
        """
        body = self.body
        assert isinstance(body, ThalNet)
        trial = resolve(list(net.values()))
        if name:
            check_inputs_reach(trial, name)
        for task in self.adapters:
            check_head_sees_input(trial, task, self.adapter(task).spec)

        def act() -> dict[str, IndexMap]:
            remaps = body.rewire(list(trial.values()))
            if source:
                body.copy(source, name)
            return {f"body.{key}": remap for key, remap in remaps.items()}

        return self._change(verb, about, act)

    def _set_frozen(
        self, verb: str, modules: Sequence[str], task: str | None, frozen: bool
    ) -> TopologyChange:
        if not modules and task is None:
            raise UserError(f"{verb} what? Name modules, or task=…")
        names = [*modules, *(self.active_modules(task) if task is not None else ())]
        others = [t for t in self.adapters if t != task and self.adapter(t).spec.frozen]
        if not frozen:
            kept = {name: other for other in others for name in self.active_modules(other)}
            for name in (name for name in modules if name in kept):
                raise UserError(
                    f"unfreeze: the frozen task '{kept[name]}' uses module '{name}'; "
                    f"unfreeze(task='{kept[name]}') first."
                )
            names = [name for name in names if name not in kept]
        hosts = isinstance(self.body, ThalNet)
        net = graph.frozen(self._graph(verb), names, frozen) if modules or hosts else {}

        def act() -> None:
            if isinstance(self.body, ThalNet):
                self.body.rewire(list(net.values()))
            elif frozen or not others:
                self.body.requires_grad_(not frozen)
            if task is not None:
                port = self.adapter(task)
                port.spec = replace(port.spec, frozen=frozen)
                port.requires_grad_(not frozen)

        return self._change(verb, ", ".join([*modules, *([f"task {task}"] if task else [])]), act)

    def _change(self, verb: str, about: str, act: Callable[[], Any]) -> TopologyChange:
        """Do it, and return what it did."""
        return record_change(verb, about, self, self._layouts, act)

    def _layouts(self) -> dict[str, StateLayout]:
        """What the state of every task consists of."""
        body = self.body
        if not isinstance(body, ThalNet):
            return {}
        widths = {
            name: (module.features, body.cell(name).design.memory)
            for name, module in body.modules_by_name.items()
        }
        return {
            task: {name: widths[name] for name in self.active_modules(task)}
            for task in self.adapters
        }
