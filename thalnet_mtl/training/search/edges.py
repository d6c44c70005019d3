"""Closed readings that would lower the loss, by the gradient of the columns that they would get.

A module r that does not read a slot s could do so with a column of zeros, which changes nothing.
The gradient of the loss with respect to that column says whether it would stay zero.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modular import ModularBody
from thalnet_mtl.models.network import Network
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search.paired import rejected, sign_flip_norm
from thalnet_mtl.training.search.warm_up import Entries, new_entries
from thalnet_mtl.training.step import TrainStep

BATCHES = 16  # of which the gradients are compared
LEVEL = 0.01  # of the tests of all closed readings together


class Evidence(NamedTuple):
    """A reading that is closed, and what the gradient of its zero columns says about it."""

    reader: str
    source: str
    p_value: float  # that the mean gradient is zero: each batch could as well have the other sign
    norm: float  # of the mean gradient: how fast the loss falls at first
    accepted: bool  # by Holm's procedure over all closed readings

    def __str__(self) -> str:
        return f"edge {self.source} → {self.reader}"


def closed_edges(network: Network, head: str) -> list[tuple[str, str]]:
    """Return the pairs (reader, source) that could be opened for a task alone.

    Both run for the task. The reader learns, and no other task runs it.
    """
    graph, active = modular_body(network).graph, network.active_modules(head)
    readers = [graph[name] for name in growing_modules(network, head)]
    return [(r.name, s) for r in readers for s in active if s not in r.seen]


def growing_modules(network: Network, head: str) -> list[str]:
    """Return the modules of a task that learn, and that no other task runs."""
    others = {m for task in network.adapters if task != head for m in network.active_modules(task)}
    modules = (modular_body(network).graph[name] for name in network.active_modules(head))
    return [module.name for module in modules if module.name not in others and not module.frozen]


def modular_body(network: Network) -> ModularBody:
    """Return the body of a network that has modules."""
    assert isinstance(network.body, ModularBody)
    return network.body


def edge_evidence(run: RunContext, task: str) -> list[Evidence]:
    """Return what the next training batches say about all closed readings, the best first.

    The run stays as it is. A text is read from empty states.

    Args:
        run: between two steps.
        task: the only one that is trained.
    """
    rng = torch.get_rng_state()
    with run.having(run.copy_state(run)):
        gradients = edge_gradients(run, task)
    torch.set_rng_state(rng)
    vectors = [torch.stack(rows) for rows in gradients.values()]
    p_values = [sign_flip_norm(rows) for rows in vectors]
    evidence = [
        Evidence(*edge, p, float(rows.mean(0).norm()), accepted)
        for edge, p, rows, accepted in zip(
            gradients, p_values, vectors, rejected(p_values, LEVEL), strict=True
        )
    ]
    return sorted(evidence, key=lambda e: (not e.accepted, -e.norm if e.accepted else e.p_value))


def edge_gradients(run: RunContext, task: str) -> dict[tuple[str, str], list[Tensor]]:
    """Open all closed readings, and return their gradients on some batches, each as one row."""
    opened = dict[tuple[str, str], Entries]()
    for reader, source in closed_edges(run.network, run.tasks[task].head_name):
        try:
            change = run.network.route(reader, source)
        except UserError:  # a reading whose columns are fixed, for one
            continue
        opened = {edge: change.update_named(masks) for edge, masks in opened.items()}
        opened[reader, source] = new_entries([change])
    rows = {edge: list[Tensor]() for edge in opened}
    parameters = {n: run.network.get_parameter(n) for masks in opened.values() for n in masks}
    for _ in range(BATCHES if opened else 0):
        gradients = loss_gradients(run, task, parameters)
        for edge, masks in opened.items():
            row = [gradients[name][mask] for name, mask in masks.items()]
            rows[edge].append(torch.cat(row).double().cpu())
        run.state.step += 1
    return rows


def loss_gradients(
    run: RunContext, task: str, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Return the gradients of the loss on the next batch by parameter."""
    batches = next_batches(run)
    rows = run.ranks.rows(len(batches[task].ys))
    empty = run.network.initial(run.tasks[task].head_name, rows.size)
    losses, _ = TrainStep(run).losses(batches, {task: empty})
    gradients = torch.autograd.grad(
        losses[task], list(parameters.values()), materialize_grads=True, allow_unused=True
    )
    run.ranks.sum(gradients)
    return dict(zip(parameters, gradients, strict=True))
