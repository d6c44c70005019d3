"""A network joins tasks to a body, and its topology can change while it is trained.

``outputs, state = network(task, xs, state, lengths)``. Tasks may differ in width, kind and length;
the body between their encoders and heads is ThalNet or a baseline, and does not know them. The
modules of a ThalNet can be changed at any moment between optimizer steps. Each method that does so
returns a ``TopologyChange``, which updates an optimizer::

    change = network.attach(ModuleSpec("side3", features=32, context=32), read_by=["output"])
    change.update_optimizer(optimizer)
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.adapter import TaskAdapter
from thalnet_mtl.models.body import Body
from thalnet_mtl.models.checks import check_inputs, check_lengths
from thalnet_mtl.models.hub_network import HubNetwork
from thalnet_mtl.models.model_card import model_card
from thalnet_mtl.models.model_folder import read_model, write_model
from thalnet_mtl.models.parts import parameters
from thalnet_mtl.models.recurrent import body_from
from thalnet_mtl.models.sequences import repack, unpack
from thalnet_mtl.models.shown import ShownNetwork
from thalnet_mtl.models.summary import network_summary
from thalnet_mtl.ops.batch_rows import dropout
from thalnet_mtl.ops.inputs import Inputs, first_input, map_inputs
from thalnet_mtl.ops.lengths import Lengths, zero_past_end
from thalnet_mtl.published import local_folder
from thalnet_mtl.registry import entries, lookup
from thalnet_mtl.topology.spec import AdapterSpec, TaskSpec, from_plain, to_plain


class Network(HubNetwork, ShownNetwork):
    """A body with an adapter, encoders and a head, for each task.

    >>> import torch
    >>> from thalnet_mtl import TaskSpec, ThalNet
    >>> network = Network(ThalNet(inputs=28, modules=4, features=32))
    >>> change = network.add_task("digits", TaskSpec(inputs=28, outputs=10))
    >>> logits, state = network("digits", torch.zeros(5, 28, 28))
    >>> logits.shape
    torch.Size([5, 10])
    """

    def __init__(self, body: Body):
        super().__init__(body)
        self.dropout = 0.0  # of input rows and of the features that heads read, in training

    def forward(
        self,
        task: str,
        xs: Inputs | PackedSequence,
        state: Any = None,
        lengths: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Return outputs of the head and the state after the last step.

        Args:
            task: name of the task.
            xs: (batch, time, inputs) rows of any range, or (batch, time) tokens; a mapping of such
                by name for a task with several inputs; or a ``PackedSequence``.
            state: of an earlier chunk of the same sequences.
            lengths: (batch,) number of steps of every sequence, int64 on the device of ``xs``; None
                if all fill the batch. What ``xs`` holds past the end of a sequence has no effect.

        Returns:
            (batch, outputs), after the last step of every sequence; or for a target at every step
            (batch, time, outputs), zero past the end, in a ``PackedSequence`` if ``xs`` is one.
        """
        adapter = self.adapter(task)
        if isinstance(xs, PackedSequence):
            padded, lengths = unpack(xs, lengths)
            ys, state = self.forward(task, padded, state, lengths)
            return repack(ys, xs) if adapter.task.every_step else ys, state
        ys, state = self.features(task, xs, state, lengths)
        return self._answer(adapter, ys, lengths), state

    def outputs_by_task(
        self,
        tasks: Sequence[str],
        xs: Inputs,
        states: Mapping[str, Any] | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return outputs and final states of several tasks for the same sequences, by task.

        The body runs once for all tasks that give it the same rows and read the same outputs of
        it: they have no trainable encoder, and equal input, output and active modules.

        Args:
            tasks: names of the tasks.
            xs: as in ``forward``.
            states: by task, as in ``forward``, where there is one; equal for tasks that share a
                pass of the body.
            lengths: as in ``forward``.
        """
        outputs, finals = dict[str, Tensor](), dict[str, Any]()
        passes: dict[Any, tuple[Tensor, Any]] = {}
        for task in tasks:
            adapter = self.adapter(task)
            key = self._pass_key(task, adapter) if len(tasks) > 1 else task
            if key not in passes:
                state = states.get(task) if states else None
                passes[key] = self.features(task, xs, state, lengths)
            ys, finals[task] = passes[key]
            outputs[task] = self._answer(adapter, ys, lengths)
        return outputs, finals

    def _pass_key(self, task: str, adapter: TaskAdapter) -> Any:
        """Return what a pass of the body depends on, equal for tasks that can share it."""
        if any(True for _ in adapter.encoders.parameters()):
            return task
        spec, shape = adapter.spec, adapter.task
        modules = spec.input_modules, spec.output_modules, self.active_modules(task)
        return shape.inputs, shape.tokens, spec.sub_steps, spec.extra_steps, modules

    def features(
        self, task: str, xs: Inputs, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Float[Tensor, "batch time features"], Any]:
        """Return what the head of a task reads at every step, and the state after the last.

        Arguments are those of ``forward``.
        """
        adapter = self.adapter(task)
        spec = adapter.spec
        check_inputs(task, spec.task, xs)
        lengths = check_lengths(lengths, first_input(xs))
        if lengths is not None:  # no encoder sees what is past the end
            xs = map_inputs(lambda x: zero_past_end(x, lengths), xs)
        drops = self.training and self.dropout > 0
        if drops and not spec.task.tokens:
            xs = map_inputs(lambda x: dropout(x, self.dropout, True), xs)
        active = self.body.active_modules(task, spec)
        options: dict[str, Any] = {"sub_steps": spec.sub_steps, "extra_steps": spec.extra_steps}
        if active:
            options |= {"outputs": spec.output_modules, "active": active}
        ys, state = self.body(adapter.encode(xs, active), state, lengths, **options)
        return dropout(ys, self.dropout, True) if drops else ys, state

    def _answer(self, adapter: TaskAdapter, ys: Tensor, lengths: Lengths | None) -> Tensor:
        """Return the outputs of the head; extra steps follow the last step of every sequence."""
        ends_together = adapter.spec.extra_steps or not self.body.recurrent
        return adapter.answer(ys, None if ends_together else lengths)

    def initial(self, task: str, batch: int) -> Any:
        """Return the state of a task before its first step."""
        zeros = self.adapter(task).zeros(batch, 1, 1)
        active = self.active_modules(task)
        return self.body.initial(zeros, **({"active": active} if active else {}))

    def task_parameters(self, task: str) -> dict[str, nn.Parameter]:
        """Return the parameters on which a task's logits can depend, by name."""
        return {
            name: parameter
            for part in self.task_parts(task)
            for name, parameter in self.get_submodule(part).named_parameters(part)
        }

    def trainable_tasks(self) -> set[str]:
        """Return the tasks that depend on at least one parameter that is not frozen."""

        @cache
        def learns(part: str) -> bool:
            return any(p.requires_grad for p in parameters(self.get_submodule(part)))

        return {task for task in self.adapters if any(map(learns, self.task_parts(task)))}

    def task_parts(self, task: str) -> list[str]:
        """Return the names of the submodules on which a task's logits can depend."""
        prefixes = self.body.parameter_prefixes(self.active_modules(task))
        return [*(f"body.{p}".removesuffix(".") for p in prefixes), f"adapters.{task}"]

    def __repr__(self) -> str:
        specs = {name: self.adapter(name).spec for name in self.adapters}
        return network_summary(self, self.body, specs)

    # Saving

    def save(self, folder: Path | str, *, config: Config | None = None, result: Any = None) -> None:
        """Write the network to a folder: ``config.json``, ``model.safetensors`` and a model card.

        The folder appears whole or not at all and replaces an older saved model.

        Args:
            folder: a path where nothing is yet, or a saved model.
            config, result: of the run that trained the network, for the model card only.

        Raises:
            UserError: the folder holds something else, or the body cannot be saved.
        """
        card = model_card(repr(self), list(self.adapters), config, result)
        write_model(Path(folder), self.describe(), self.state_dict(), card)

    @classmethod
    def load(cls, folder: Path | str) -> "Network":
        """Return the network that ``save`` wrote to a folder, or that of a finished run.

        ``folder`` may be the name of a published one: 'zoo:name' or 'hub:owner/name'.

        Raises:
            UserError: a file is missing or damaged.
        """
        return read_model(local_folder(folder), cls.from_description).eval()

    def describe(self) -> dict[str, Any]:
        """Return the topology as plain data; ``from_description`` is the inverse."""
        names = {entry: name for name, entry in entries("body").items()}
        kind = self.body.entry
        if kind not in names:
            raise UserError(
                f"{kind.__name__} cannot be saved: register it with @register('body', NAME)."
            )
        return {
            "body": names[kind],
            "arguments": self.body.arguments(),
            "frozen": not any(parameter.requires_grad for parameter in self.body.parameters()),
            "tasks": {name: to_plain(self.adapter(name).spec) for name in self.adapters},
        }

    @classmethod
    def from_description(cls, topology: Mapping[str, Any]) -> "Network":
        """Return a network of the topology that ``describe`` returned, with new weights."""
        body = body_from(lookup("body", topology["body"]), topology["arguments"])
        if topology["frozen"]:
            body.freeze(())
        network = cls(body)
        for name, fields in topology["tasks"].items():
            task = from_plain(TaskSpec, fields["task"])
            network._add_adapter(name, from_plain(AdapterSpec, {**fields, "task": task}))
        return network
