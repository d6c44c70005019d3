"""Parameters in few tensors: a hundred small ones would take an optimizer longer than a large one.

All that is learned lies in long rows, of which the parameters, their gradients and their moments
are views: topology verbs, checkpoints and autograd find everything where it was.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

LINE = 64  # bytes: no vector that an optimizer takes at a time holds parts of two parameters


@dataclass(frozen=True)
class ParameterView:
    """A parameter of an optimizer that lies in a larger one, and where."""

    optimizer: Optimizer
    parameter: nn.Parameter
    view: Callable[[Tensor], Tensor]

    @property
    def moments(self) -> dict[str, Any]:
        """What its optimizer knows of it."""
        return self.optimizer.state.get(self.parameter, {})


def gather_state(optimizer: Optimizer, whole: nn.Parameter, parts: Sequence[ParameterView]) -> None:
    """Put the moments of all parts where those of the whole are, if they have any."""
    if all(part.moments for part in parts):
        state = optimizer.state[whole] = {}
        for key, value in parts[0].moments.items():
            state[key] = (
                value.clone().to(whole.device) if key == "step" else torch.zeros_like(whole)
            )
            for part in parts:
                if key != "step":
                    part.view(state[key]).copy_(part.moments[key])
        share_state(optimizer, whole, parts)


def share_state(optimizer: Optimizer, whole: nn.Parameter, parts: Sequence[ParameterView]) -> None:
    """Give every part its moments as views; the count of steps is that of the whole."""
    for key, value in optimizer.state.get(whole, {}).items():
        for part in parts:
            own = part.optimizer.state[part.parameter]
            own[key] = value if key == "step" else part.view(value)


class FlatOptimizer:
    """One step of an optimizer, in as few tensors as possible.

    Parameters lie side by side where they are of the same group, have taken the same steps, and
    are used by the same tasks. Those that no task of a step uses are left as they are, moments
    too, as parameters without a gradient.

    Args:
        optimizer: SGD, Adam, AdamW or RMSprop; it goes on holding the moments of all parameters.
        used: the parameters of every task.
        apart: parameters that stay by themselves.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        used: Mapping[str, Iterable[nn.Parameter]],
        unflattened: Collection[nn.Parameter] = (),
    ):
        self.base = optimizer
        users: dict[nn.Parameter, frozenset[str]] = {}
        for task, parameters in used.items():
            users |= {p: users.get(p, frozenset()) | {task} for p in parameters}
        lone, alike = set(unflattened), dict[tuple[Any, ...], list[nn.Parameter]]()
        for number, group in enumerate(optimizer.param_groups):
            for p in group["params"]:
                state = optimizer.state.get(p, {})
                steps = float(state["step"]) if "step" in state else len(state)
                key = number, users.get(p), steps, p.dtype, p.device, p in lone and id(p)
                alike.setdefault(key, []).append(p)
        groups = [{**group, "params": []} for group in optimizer.param_groups]
        self.rows: list[tuple[nn.Parameter, frozenset[str], list[ParameterView]]] = []
        for (number, tasks, *_), parameters in alike.items():
            whole, parts = flatten(optimizer, parameters)
            groups[number]["params"].append(whole)
            self.rows.append((whole, tasks or frozenset(), parts))
        for group in groups:  # a CUDA graph repeats what depends on no number of Python
            if "capturable" in group and any(p.is_cuda for p in group["params"]):
                rate = torch.tensor(group["lr"], device=group["params"][0].device)
                group |= {"lr": rate, "capturable": True}
        kind: Any = type(optimizer)
        self.optimizer: Optimizer = kind([group for group in groups if group["params"]])
        self.gradients = [torch.zeros_like(whole) for whole, _, _ in self.rows]
        for (whole, _, parts), gradient in zip(self.rows, self.gradients, strict=True):
            for part in parts:
                part.parameter.grad = part.view(gradient)
            gather_state(self.optimizer, whole, parts)

    def zero_grad(self, tasks: Collection[str]) -> None:
        """Begin a step of these tasks."""
        torch._foreach_zero_(self.gradients)
        for (whole, users, _), gradient in zip(self.rows, self.gradients, strict=True):
            whole.grad = None if users.isdisjoint(tasks) else gradient

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group in (*self.base.param_groups, *self.optimizer.param_groups):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self) -> None:
        """Move what has a gradient."""
        fresh = [row for row in self.rows if row[0] not in self.optimizer.state]
        self.optimizer.step()
        for whole, _, parts in fresh:
            share_state(self.optimizer, whole, parts)


def flatten(
    optimizer: Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[nn.Parameter, list[ParameterView]]:
    """The parameters side by side in a new one, which they become views of."""
    step = LINE // parameters[0].element_size()
    places, end = [], 0
    for p in parameters:
        places.append(slice(end, end + p.numel()))
        end += -(-p.numel() // step) * step
    whole = nn.Parameter(parameters[0].new_zeros(end))
    parts = [
        ParameterView(optimizer, p, partial(view, place=place, shape=p.shape))
        for p, place in zip(parameters, places, strict=True)
    ]
    for part in parts:
        part.parameter.data = part.view(whole.data).copy_(part.parameter.data)
    return whole, parts


def view(of: Tensor, place: slice, shape: torch.Size) -> Tensor:
    """A part of a row in its own shape."""
    return of[place].view(shape)
