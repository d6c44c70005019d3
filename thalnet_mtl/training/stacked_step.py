"""The training step of several runs: their networks as one, with a leading axis for the run.

The parameters, buffers, optimizer moments and carried states of each run are views into the stacked
tensors. So a run is scored, logged and saved as if it were alone.
"""

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from thalnet_mtl.models.build import selected_backend
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.flat_optimizer import ParameterView, gather_state, share_state
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.step import StepInputs, shown_loss


class StackedStep:
    """The training step of runs that differ only in their seed and are at the same step.

    One optimizer updates all of them. Caches of a ``TrainStep`` of a run must be dropped before.
    """

    def __init__(self, runs: Sequence[RunContext]):
        first, self.runs = runs[0], runs
        # Copies, because the networks of the runs themselves are scored one by one.
        self.network = copy.deepcopy(first.network)
        self.weighting = copy.deepcopy(first.state.weighting)
        # Apart from the C++ kernel, ``torch.vmap`` supports operations of PyTorch only.
        backends = {
            selected_backend(first.config, first.network, head) for head in first.network.adapters
        }
        self.backend = "cpp" if backends == {"cpp"} else "batched"
        self.network.body.ops = self.backend
        stack_module(self.network, [run.network for run in runs])
        stack_module(self.weighting, [run.state.weighting for run in runs])
        self.tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        self.optimizer = optimizer_for(first.config, self.network, self.weighting)
        self.views = self._parameter_views()
        for stacked, views in self.views:
            gather_state(self.optimizer, stacked, views)
        self.states: dict[str, Any] = {
            task: tree_map(
                lambda *parts: torch.stack(parts), *(run.state.carried_states[task] for run in runs)
            )
            for task in first.state.carried_states
        }

    def _parameter_views(self) -> list[tuple[nn.Parameter, list[ParameterView]]]:
        """Return every stacked parameter with those of the runs, which are views of it."""
        by_run = [run.state.named_parameters() for run in self.runs]
        stacked = dict(self.network.named_parameters())
        stacked |= {f"weighting.{n}": p for n, p in self.weighting.named_parameters()}
        return [
            (
                parameter,
                [
                    ParameterView(
                        run.state.optimizer, named[name], partial(torch.select, dim=0, index=k)
                    )
                    for k, (run, named) in enumerate(zip(self.runs, by_run, strict=True))
                ],
            )
            for name, parameter in stacked.items()
        ]

    def step(self, inputs: Sequence[StepInputs]) -> list[Tensor]:
        """Take the next step of all runs. Returns the losses of each run, by task."""
        run, rate = self.runs[0], inputs[0].learning_rate
        losses, shown = dict[str, Tensor](), list[Tensor]()
        for task, data in run.tasks.items():
            batches, by_run = self._losses(task, [part.batches[task] for part in inputs])
            losses[task] = torch.stack(by_run)
            shown.append(torch.stack(list(map(partial(shown_loss, data), batches, by_run))))
        self.optimizer.zero_grad()
        # The gradient of the sum over runs: no run depends on the parameters of another.
        self.weighting.backward(
            losses, lambda task: self.network.task_parameters(run.tasks[task].head_name)
        )
        if run.config.train.clip:
            clip_by_run(self.network.parameters(), run.config.train.clip)
        for optimizer in (self.optimizer, *(run.state.optimizer for run in self.runs)):
            for group in optimizer.param_groups:
                group["lr"] = rate
        first_step = not self.optimizer.state
        self.optimizer.step()
        for stacked, views in self.views if first_step else ():
            share_state(self.optimizer, stacked, views)
        return list(torch.stack(shown, 1).unbind())

    def _losses(self, task: str, batches: Sequence[Batch]) -> tuple[list[Batch], list[Tensor]]:
        """Return the batch of every run and its loss, and carry the states of text on."""
        run, count, task_data = self.runs[0], len(batches), self.runs[0].tasks[task]
        head, stacked = task_data.head_name, stack_batches(task_data, batches)
        state = None if batches[0].starts_sequence else self.states.get(task)
        if state is None:
            initial = self.network.initial(head, len(batches[0].ys))
            state = map_state(lambda part: part.expand(count, *part.shape), initial)

        def forward(
            tensors: dict[str, Tensor], xs: Any, state: Any, *lengths: Tensor
        ) -> tuple[Tensor, Any]:
            inputs = head, xs, state, *lengths
            return torch.func.functional_call(self.network, tensors, inputs)

        lengths = () if stacked.lengths is None else (stacked.lengths,)
        bf16 = run.config.train.precision == "bf16"
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bf16):
            outputs, state = torch.vmap(forward)(self.tensors, stacked.xs, state, *lengths)
        if task_data.carries_state:
            self.states[task] = map_state(Tensor.detach, state)
            for k, stacked_run in enumerate(self.runs):
                select = partial(torch.select, dim=0, index=k)
                stacked_run.state.carried_states[task] = map_state(select, self.states[task])
        parts = [stacked.map(partial(torch.select, dim=0, index=k)) for k in range(count)]
        pairs = zip(outputs, parts, strict=True)
        return parts, [task_data.loss(part, batch) for part, batch in pairs]


def stack_batches(task: Task, batches: Sequence[Batch]) -> Batch:
    """Return the batches of several runs with a leading axis for the run.

    Sequences of unequal lengths are padded to the longest of all runs.
    """
    return task.concatenate(batches).map(lambda part: part.unflatten(0, (len(batches), -1)))


def stack_module(stacked: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Stack the parameters and buffers of equal modules, which become views of the result.

    Args:
        stacked: a copy of one of the modules; it gets the stacked tensors.
        modules: one for each run.
    """
    for name, parameter in stacked.named_parameters():
        parameter.data = stack_in_place([module.get_parameter(name) for module in modules])
    for name, buffer in stacked.named_buffers():
        buffer.data = stack_in_place([module.get_buffer(name) for module in modules])


def stack_in_place(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors stacked along a new first axis, of which they become views."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, stacked, strict=True):
        tensor.data = part
    return stacked


def clip_by_run(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Clip the gradients of each run by their norm, as ``clip_grad_norm_`` does for one run."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    square = torch.stack([grad.reshape(len(grad), -1).square().sum(1) for grad in grads]).sum(0)
    factor = (max_norm / (square.sqrt() + 1e-6)).clamp(max=1)
    for grad in grads:
        grad.mul_(factor.view(-1, *[1] * (grad.ndim - 1)))
