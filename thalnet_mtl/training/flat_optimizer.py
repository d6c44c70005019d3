"""Parameters flattened into a few tensors, so that an optimizer step launches few kernels.

The parameters, their gradients and their moments become views of contiguous rows. Autograd,
topology changes and checkpoints see the same parameters and moments as before.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalnet_mtl.ops.parameter_rows import ParameterRows

SCALARS = ("step", "mu_product")  # moments that are one number for a whole parameter
ALIGNMENT = 64  # bytes: no SIMD vector of an optimizer holds parts of two parameters


@dataclass(frozen=True)
class ParameterView:
    """A parameter that is a view of a larger one, and the optimizer that holds its moments."""

    optimizer: Optimizer
    parameter: nn.Parameter
    view: Callable[[Tensor], Tensor]

    @property
    def moments(self) -> dict[str, Any]:
        """The state that the optimizer has for the parameter; empty before its first step."""
        return self.optimizer.state.get(self.parameter, {})


def gather_state(optimizer: Optimizer, whole: nn.Parameter, parts: Sequence[ParameterView]) -> None:
    """Copy the moments of all parts into those of the whole, which they become views of.

    Nothing happens if a part has no moments yet.
    """
    if all(part.moments for part in parts):
        state = optimizer.state[whole] = {}
        for key, value in parts[0].moments.items():
            if key in SCALARS:
                state[key] = value.clone().to(whole.device)
                continue
            state[key] = torch.zeros_like(whole)
            for part in parts:
                part.view(state[key]).copy_(part.moments[key])
        share_state(optimizer, whole, parts)


def share_state(optimizer: Optimizer, whole: nn.Parameter, parts: Sequence[ParameterView]) -> None:
    """Make the moments of every part views of those of the whole; they share its scalars."""
    for key, value in optimizer.state.get(whole, {}).items():
        for part in parts:
            moments = part.optimizer.state[part.parameter]
            moments[key] = value if key in SCALARS else part.view(value)


class FlatOptimizer:
    """An optimizer that works on as few tensors as possible.

    Parameters are flattened into one row if they are of the same parameter group, have taken the
    same number of steps, and are used by the same tasks. A step leaves rows that none of its tasks
    uses as they are, including their moments, like parameters without a gradient.

    Args:
        optimizer: SGD, Adam, AdamW or RMSprop; it still holds the moments of all parameters.
        used: the parameters of every task.
        unflattened: parameters that get a row each.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        used: Mapping[str, Iterable[nn.Parameter]],
        unflattened: Collection[nn.Parameter] = (),
    ):
        self.base = optimizer
        users: dict[nn.Parameter, set[str]] = {}
        for task, parameters in used.items():
            for p in parameters:
                users.setdefault(p, set()).add(task)
        separate, alike = set(unflattened), dict[tuple[Any, ...], list[nn.Parameter]]()
        for number, group in enumerate(optimizer.param_groups):
            for p in group["params"]:
                state = optimizer.state.get(p, {})
                steps = float(state["step"]) if "step" in state else len(state)
                tasks = frozenset(users.get(p, ()))
                key = number, tasks, steps, p.dtype, p.device, p in separate and id(p)
                alike.setdefault(key, []).append(p)
        groups = [{**group, "params": []} for group in optimizer.param_groups]
        self.rows: list[tuple[nn.Parameter, frozenset[str], list[ParameterView]]] = []
        for (number, tasks, *_), parameters in alike.items():
            whole, parts = flatten(optimizer, parameters)
            groups[number]["params"].append(whole)
            self.rows.append((whole, tasks, parts))
        for group in groups:  # a CUDA graph must read the learning rate from the device
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
        self.parameter_rows = self._parameter_rows()

    def _parameter_rows(self) -> ParameterRows:
        """Return the rows in the form in which backends compute with them."""
        leaves, places = [], dict[Tensor, tuple[int, int]]()
        for k, ((whole, _, parts), gradient) in enumerate(
            zip(self.rows, self.gradients, strict=True)
        ):
            # Its gradient stays in place; that of ``whole`` is None where a step skips the row.
            leaf = whole.detach().requires_grad_()
            leaf.grad = gradient
            leaves.append(leaf)
            for part in parts:
                offset = part.parameter.data_ptr() - whole.data_ptr()
                places[part.parameter] = k, offset // whole.element_size()
        return ParameterRows(leaves, places)

    def zero_grad(self, tasks: Collection[str]) -> None:
        """Set the gradients to zero for a step of some tasks, and skip rows of others."""
        torch._foreach_zero_(self.gradients)
        for (whole, users, _), gradient in zip(self.rows, self.gradients, strict=True):
            whole.grad = None if users.isdisjoint(tasks) else gradient

    def used_gradients(self, without: Collection[nn.Parameter] = ()) -> list[Tensor]:
        """Return the gradients of the rows that the step updates.

        Args:
            without: parameters whose rows are left out.
        """
        return [
            gradient
            for (whole, _, parts), gradient in zip(self.rows, self.gradients, strict=True)
            if whole.grad is not None and parts[0].parameter not in without
        ]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group in (*self.base.param_groups, *self.optimizer.param_groups):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self) -> None:
        """Update the rows that have a gradient."""
        new = [row for row in self.rows if row[0] not in self.optimizer.state]
        self.optimizer.step()
        for whole, _, parts in new:
            share_state(self.optimizer, whole, parts)


def flatten(
    optimizer: Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[nn.Parameter, list[ParameterView]]:
    """Return a new parameter that holds all of these, which become views of it, and the views."""
    step = ALIGNMENT // parameters[0].element_size()
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


def view(row: Tensor, place: slice, shape: torch.Size) -> Tensor:
    """Return a part of a row as a view with the shape of a parameter."""
    return row[place].view(shape)
