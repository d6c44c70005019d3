"""Programs of a network: functions from tensors to tensors that are exported for one task."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.ops.inputs import Inputs, first_input, map_inputs
from thalnet_mtl.ops.lengths import last_steps, zero_past_end
from thalnet_mtl.topology.scaling import Scaling

Scalings = tuple[Scaling | None, Scaling | None]  # of inputs, and of targets

TRACED = 3  # the batch size of a trace


class Program(nn.Module):
    """A function of a network for one task, from tensors to tensors, that can be exported."""

    input_mean: Tensor | None
    input_deviation: Tensor | None
    output_mean: Tensor | None
    output_deviation: Tensor | None

    def __init__(self, network: Network, task: str, scalings: Scalings = (None, None)):
        super().__init__()
        self.network, self.task, self.scalings = network, task, scalings
        self.generator = torch.Generator()
        for name, scaling in zip(("input", "output"), scalings, strict=True):
            for part in ("mean", "deviation"):
                values = None if scaling is None else torch.tensor(getattr(scaling, part))
                self.register_buffer(f"{name}_{part}", values)

    def scale(self, x: Inputs) -> Inputs:
        """Return inputs (…, inputs) as the network was trained on them."""
        mean, deviation = self.input_mean, self.input_deviation
        if mean is None or deviation is None:
            return x
        return map_inputs(lambda x: (x - mean) / deviation, x)

    def in_units(self, outputs: Tensor) -> Tensor:
        """Return outputs (…, outputs) of the network in the units of the targets."""
        if self.output_mean is None or self.output_deviation is None:
            return outputs
        return outputs * self.output_deviation + self.output_mean

    def example(self, batch: int) -> tuple[Any, ...]:
        """Return random arguments of ``forward``, always the same for a batch size."""
        raise NotImplementedError

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of the inputs behind those of the task, and of the outputs."""
        raise NotImplementedError

    def draw(self, *shape: int) -> Any:
        """Return random inputs of the task: (…, inputs), or (…) tokens; by name if it has names."""
        task = self.network.adapter(self.task).task
        device = next(self.network.parameters()).device

        def draw(name: str = "") -> Tensor:
            width = task.input_width(name)
            if task.tokens:
                return torch.randint(width, shape, generator=self.generator).to(device)
            return torch.rand(*shape, width, generator=self.generator).to(device)

        return {name: draw(name) for name in task.input_names} if task.input_names else draw()


class Step(Program):
    """A step of a network for one task, with the state as plain tensors in and out."""

    def __init__(self, network: Network, task: str, scalings: Scalings = (None, None)):
        super().__init__(network, task, scalings)
        self.kind = type(network.initial(task, 1))

    def forward(self, x: Inputs, *state: Tensor) -> tuple[Tensor, ...]:
        """Return outputs and the next state.

        ``x`` is (batch, inputs), or (batch,) tokens; or a mapping of such for named inputs.
        """
        carried = state[0] if self.kind is Tensor else self.kind(*state)
        xs = map_inputs(lambda x: x.unsqueeze(1), self.scale(x))
        logits, carried = self.network(self.task, xs, carried)
        logits = self.in_units(logits.flatten(0, -2))
        return (logits, carried) if self.kind is Tensor else (logits, *carried)

    def example(self, batch: int) -> tuple[Any, ...]:
        self.generator.manual_seed(0)
        x = self.draw(batch)
        return x, *(
            (torch.rand(part.shape, generator=self.generator) - 0.5).to(part)
            for part in self.start(batch)
        )

    def start(self, batch: int) -> list[Tensor]:
        """Return the state before the first step, as its tensors."""
        state = self.network.initial(self.task, batch)
        return [state] if self.kind is Tensor else list(state)

    def names(self) -> tuple[list[str], list[str]]:
        states = [f"state{k}" for k in range(len(self.start(1)))]
        return states, ["outputs", *(f"{name}_next" for name in states)]


class Sequences(Program):
    """A network for one task on padded sequences of unequal lengths, from their first step."""

    def forward(self, x: Inputs, lengths: Tensor) -> tuple[Tensor, ...]:
        """Return (batch, outputs), or at every step (batch, time, outputs), zero past the end.

        ``x`` is (batch, time, inputs), or (batch, time) tokens; or a mapping of such for named
        inputs. ``lengths`` (batch,) are int64 from 1 to time.
        """
        outputs = self.in_units(self.network(self.task, self.scale(x), None, lengths)[0])
        every_step = self.network.adapter(self.task).task.every_step
        return (zero_past_end(outputs, lengths) if every_step else outputs,)

    def example(self, batch: int) -> tuple[Any, ...]:
        self.generator.manual_seed(0)
        x = self.draw(batch, time := batch + 1)
        lengths = torch.randint(1, time + 1, (batch,), generator=self.generator)
        lengths[0] = time
        return x, lengths.to(first_input(x).device)

    def names(self) -> tuple[list[str], list[str]]:
        return ["lengths"], ["outputs"]


class ScannedSteps(nn.Module):
    """The function of ``Sequences`` as a loop over a traced step, for any number of steps."""

    def __init__(self, program: Sequences):
        super().__init__()
        step = Step(program.network, program.task, program.scalings)
        self.step = traced(step).module()
        for part in self.step.modules():  # a loop that could be differentiated cannot be exported
            for name, weight in list(part.named_parameters(recurse=False)):
                setattr(part, name, nn.Parameter(weight.detach(), requires_grad=False))
        self.every_step = program.network.adapter(program.task).task.every_step
        for name, part in zip(step.names()[0], step.start(1), strict=True):
            self.register_buffer(name, part)

    def forward(self, x: Inputs, lengths: Tensor) -> tuple[Tensor, ...]:
        from torch._higher_order_ops.scan import scan  # it imports the compiler

        batch, time = first_input(x).shape[:2]
        within = ((lengths >= 1) & (lengths <= time)).all()
        torch._assert_async(within, "lengths: a sequence of a batch has 1 to as many steps as it.")

        def step(state: list[Tensor], x: Inputs) -> tuple[list[Tensor], Tensor]:
            outputs, *state = self.step(x, *state)
            return [part.clone(memory_format=torch.contiguous_format) for part in state], outputs

        rows = map_inputs(lambda x: zero_past_end(x, lengths).transpose(0, 1), x)
        start = [part.expand(batch, *part.shape[1:]).contiguous() for part in self.buffers(False)]
        _, ys = scan(step, start, rows)
        ys = ys.transpose(0, 1)
        return (zero_past_end(ys, lengths) if self.every_step else last_steps(ys, lengths),)


def traced(program: Program) -> Any:
    """Return the ``torch.export`` program of a step, or of sequences, for any batch and length.

    Raises:
        UserError: the body does what cannot be traced.
    """
    inputs = program.example(TRACED)
    batch, time = torch.export.Dim("batch", min=1), torch.export.Dim("time", min=1)
    first, *rest = tree_map(lambda _: {0: batch}, inputs)
    shapes = {"x": first, "state": tuple(rest)}
    function: nn.Module = program
    if isinstance(program, Sequences):
        shapes = {"x": tree_map(lambda _: {0: batch, 1: time}, inputs[0]), "lengths": {0: batch}}
        function = ScannedSteps(program)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # used by ``scan``
        # nn.GRU and nn.LSTM keep a list of their weights as well.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        try:
            exported = torch.export.export(function, inputs, dynamic_shapes=shapes)
        except Exception as error:  # a body of a user may do what cannot be traced
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{program.network.body.entry.__name__} cannot be exported as a program: {reason}"
            ) from error
    for part in exported.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names folders of this machine
    return exported
