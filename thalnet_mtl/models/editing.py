"""A network whose tasks and modules can be changed between two optimizer steps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Self

from torch import nn
from torch.optim import Optimizer

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.adapter import TaskAdapter
from thalnet_mtl.models.body import Body, StateLayout, check_name
from thalnet_mtl.models.change import Act, TopologyChange, record_change
from thalnet_mtl.models.checks import check_sub_steps
from thalnet_mtl.models.followers import bind, bound_to
from thalnet_mtl.models.modular import ModularBody
from thalnet_mtl.models.optimizer_update import check_elementwise
from thalnet_mtl.models.readings.base import IndexMap
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.spec import AdapterSpec, ModuleSpec, TaskSpec


class EditableNetwork(nn.Module):
    """A body with adapters for tasks, and methods that change them; base of ``Network``.

    Each of these methods checks the new topology first and returns a ``TopologyChange``.
    """

    def __init__(self, body: Body):
        super().__init__()
        self.body = body
        self.adapters = nn.ModuleDict()

    def adapter(self, task: str) -> TaskAdapter:
        """Return the encoders and the head of a task."""
        adapters = self.adapters._modules  # read in every step
        if task not in adapters:
            raise unknown("task", task, adapters)
        adapter = adapters[task]
        assert isinstance(adapter, TaskAdapter)
        return adapter

    def active_modules(self, task: str) -> tuple[str, ...]:
        """Return the modules that run for a task, see ``ModuleGraph``; () without modules."""
        return self.body.active_modules(task, self.adapter(task).spec)

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
        encode: bool = False,
    ) -> TopologyChange:
        """Add the encoders and the head of a task.

        Inputs as wide as the body are used as they are (rows) or one-hot (tokens); others, or with
        ``encode`` all, get a learned linear encoder or embedding. ``input_modules`` and
        ``output_modules`` name modules of a ThalNet; by default all input and output modules that
        may run for the task.
        """
        if name in self.adapters:
            raise UserError(f"the network has a task '{name}' already.")
        check_name("task", name)
        check_sub_steps(sub_steps, extra_steps, self.body.recurrent)
        if extra_steps and task.every_step:
            raise UserError(f"extra_steps: task '{name}' has a target at every step; must be 0.")
        if not self.body.recurrent and task.every_step:
            raise UserError(
                f"a body without steps has one output a sequence; task '{name}' needs one a step."
            )
        ends = self.body.endpoints(name, task, input_modules, output_modules)
        return self._add_adapter(
            name, AdapterSpec(task, *ends, sub_steps, extra_steps, encode=encode)
        )

    def _add_adapter(self, name: str, spec: AdapterSpec) -> TopologyChange:
        def act(network: Self) -> None:
            body = network.body
            adapter = TaskAdapter(body, spec).to(next(body.parameters())).train(network.training)
            adapter.set_frozen(spec.frozen)
            network.adapters[name] = adapter

        return self._change("add_task", name, act)

    def connect(
        self, name: str, *, input_modules: Sequence[str] = (), output_modules: Sequence[str] = ()
    ) -> TopologyChange:
        """Feed the input of a task to further modules, and let its head read further modules.

        New columns of the head are zero. So its logits stay the same to rounding, unless an input
        module starts to run that a module of the task has read as zeros so far.
        """
        adapter = self.adapter(name)
        spec = adapter.spec
        if spec.frozen:
            raise UserError(f"connect: task '{name}' is frozen.")
        if not (input_modules or output_modules):
            raise UserError("connect: name at least one module.")
        for module in (*input_modules, *output_modules):
            if module in (*spec.input_modules, *spec.output_modules):
                raise UserError(f"connect: task '{name}' is connected to '{module}' already.")
        ends = (*spec.input_modules, *input_modules), (*spec.output_modules, *output_modules)
        return self._reconnect("connect", name, ends)

    def disconnect(self, name: str, *modules: str) -> TopologyChange:
        """Take modules away from the input and the head of a task, so that they can be detached.

        The columns of the head for them are discarded. The task keeps at least one input and one
        output module.
        """
        spec = self.adapter(name).spec
        if spec.frozen:
            raise UserError(f"disconnect: task '{name}' is frozen.")
        if not modules:
            raise UserError("disconnect: name at least one module.")
        ends = spec.input_modules, spec.output_modules
        for module in modules:
            if not any(module in end for end in ends):
                raise UserError(f"disconnect: task '{name}' is not connected to '{module}'.")
        inputs, outputs = (tuple(m for m in end if m not in modules) for end in ends)
        if not inputs or not outputs:
            kind = "output" if inputs else "input"
            raise UserError(f"disconnect: task '{name}' would have no {kind} module.")
        return self._reconnect("disconnect", name, (inputs, outputs))

    def _reconnect(
        self, verb: str, name: str, ends: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> TopologyChange:
        """Give a task other input and output modules."""
        spec = self.adapter(name).spec
        ends = self.body.endpoints(name, spec.task, *ends)
        spec = replace(spec, input_modules=ends[0], output_modules=ends[1])

        def act(network: Self) -> dict[str, IndexMap]:
            remaps = network.adapter(name).connect(network.body, spec)
            return {f"adapters.{name}.{key}": remap for key, remap in remaps.items()}

        return self._change(verb, name, act)

    def remove_task(self, name: str) -> TopologyChange:
        """Remove the encoders and the head of a task; modules stay."""
        self.adapter(name)

        def act(network: Self) -> None:
            del network.adapters[name]

        return self._change("remove_task", name, act)

    # Modules

    def attach(self, module: ModuleSpec, *, read_by: Sequence[str] = ()) -> TopologyChange:
        """Add a module behind all others, and open some of the others to it.

        Tasks that run none of the opened modules give the same logits, bit for bit. Logits of
        other tasks stay the same to rounding: new columns of static readings are zero, the gates
        of dynamic ones closed.

        ``module.reads`` None are all slots that a task of the module may run, its own included.
        """
        body = self._modular_body("attach")
        by = f", read by {', '.join(read_by)}" if read_by else ""
        graph = body.graph.attach(module, read_by)
        return self._rewire(body, graph, "attach", f"{module.name}{by}", [module.name])

    def detach(self, name: str) -> TopologyChange:
        """Remove a module, and its slot from all readings."""
        for task in self.adapters:
            spec = self.adapter(task).spec
            if name in (*spec.input_modules, *spec.output_modules):
                raise UserError(f"detach: task '{task}' needs module '{name}'; remove_task first.")
        body = self._modular_body("detach")
        return self._rewire(body, body.graph.detach(name), "detach", name)

    def clone(
        self, source: str, name: str, *, tasks: Sequence[str] | None = None
    ) -> TopologyChange:
        """Add a copy of a module: same sizes, same weights, same slots read.

        Where ``source`` reads itself, the copy reads itself. ``tasks`` are those that may run the
        copy, by default the same. The copy is trainable, even if ``source`` is frozen.
        """
        return self.clone_together({source: name}, tasks=tasks)

    def clone_together(
        self, copies: Mapping[str, str], *, tasks: Sequence[str] | None = None
    ) -> TopologyChange:
        """Add copies of several modules, which read each other where their sources do.

        Args:
            copies: names of the copies by that of their source.
            tasks: those that may run the copies, by default the same as for each source.
        """
        body = self._modular_body("clone")
        graph = body.graph.clone(copies, tasks)
        for source in copies:  # a copy has its columns in another order
            reading = body.cell(source).reading
            reading.check_resize(range(reading.center))
        about = ", ".join(f"{name} from {source}" for source, name in copies.items())
        return self._rewire(body, graph, "clone", about, tuple(copies.values()), copies)

    def route(self, reader: str, source: str, open: bool = True) -> TopologyChange:
        """Let a module read a slot from now on, or stop reading it.

        Opening changes no output at first, as in ``attach``. Closing discards the weights for the
        slot; where R is normalized (``weight_norm``, ``fast_softmax``) the rest weighs more.
        """
        body = self._modular_body("route")
        about = f"{reader} {'to' if open else 'not to'} {source}"
        return self._rewire(body, body.graph.route(reader, source, open), "route", about, [reader])

    def freeze(self, *modules: str, task: str | None = None) -> TopologyChange:
        """Exclude modules, or everything that a task uses, from training.

        A frozen task gives bit-identical logits, whatever is trained later. Frozen parameters
        leave the optimizer; gradients still pass through them to the modules that they read.
        Frozen modules stay in evaluation mode, so that their buffers stand still as well.
        """
        return self._set_frozen("freeze", modules, task, True)

    def unfreeze(self, *modules: str, task: str | None = None) -> TopologyChange:
        """Train modules again, or everything that a task uses and no other frozen task does.

        Their parameters come back to the optimizer without moments, and the modules are in the mode
        of the last ``train`` or ``eval`` again.
        """
        return self._set_frozen("unfreeze", modules, task, False)

    # Following

    def bind(self, *followers: Optimizer | nn.Module) -> None:
        """Let optimizers, and copies such as an ``AveragedModel``, follow all later changes.

        It is as if ``change.update_optimizer`` or ``change.update_copy`` were called after each.
        They are bound to this network, not to copies of it.

        Raises:
            UserError: an optimizer has no parameter of the network, or a copy has others.
        """
        bind(self, followers)

    # Shared by the methods that change the topology

    def _modular_body(self, verb: str) -> ModularBody:
        if not isinstance(self.body, ModularBody):
            raise UserError(f"{verb}: only a ThalNet has modules, not {type(self.body).__name__}.")
        return self.body

    def _rewire(
        self,
        body: ModularBody,
        graph: ModuleGraph,
        verb: str,
        about: str,
        names: Sequence[str] = (),
        copies: Mapping[str, str] = MappingProxyType({}),
    ) -> TopologyChange:
        """Check a new graph and change the body to it.

        Args:
            body: of this network.
            graph: the new one.
            verb, about: for the record.
            names: modules that inputs have to reach.
            copies: names of new modules by that of the module that they copy.
        """
        for name in names:
            graph.check_reached_by_input(name)
        for task in self.adapters:
            graph.check_head_sees_input(task, self.adapter(task).spec)

        def act(network: Self) -> dict[str, IndexMap]:
            body = network._modular_body(verb)
            remaps = body.rewire(graph)
            body.copy(copies)
            return {f"body.{key}": remap for key, remap in remaps.items()}

        return self._change(verb, about, act)

    def _set_frozen(
        self, verb: str, modules: Sequence[str], task: str | None, frozen: bool
    ) -> TopologyChange:
        if not modules and task is None:
            raise UserError(f"{verb}: name at least one module, or give task=NAME.")
        names = [*modules, *(self.active_modules(task) if task is not None else ())]
        still_frozen = [t for t in self.adapters if t != task and self.adapter(t).spec.frozen]
        if not frozen:
            users = {name: user for user in still_frozen for name in self.active_modules(user)}
            for name in (name for name in modules if name in users):
                raise UserError(
                    f"unfreeze: the frozen task '{users[name]}' uses module '{name}'; "
                    f"unfreeze(task='{users[name]}') first."
                )
            names = [name for name in names if name not in users]
        for name in modules:
            self._modular_body(verb).graph.module(name)

        def act(network: Self) -> None:
            if names or frozen or not still_frozen:
                network.body.freeze(names, frozen)
            if task is not None:
                adapter = network.adapter(task)
                adapter.spec = replace(adapter.spec, frozen=frozen)
                adapter.set_frozen(frozen)

        return self._change(verb, ", ".join([*modules, *([f"task {task}"] if task else [])]), act)

    def _change(self, verb: str, about: str, act: Act) -> TopologyChange:
        """Perform a change, let what is bound follow, and return the record of it."""
        bound = bound_to(self)
        for optimizer in (each for each in bound if isinstance(each, Optimizer)):
            check_elementwise(optimizer)
        layouts = self._state_layouts
        change = record_change(verb, about, self, layouts, lambda: self.body.graph, act)
        for follower in bound:
            change.update(follower)
        return change

    def _state_layouts(self) -> dict[str, StateLayout]:
        return {t: self.body.state_layout(self.active_modules(t)) for t in self.adapters}
