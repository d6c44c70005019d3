"""Score a network on one part of a task's data."""

from itertools import islice

import torch
from torch.nn import functional as F

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.tasks.base import Task


@torch.no_grad()
def evaluate(
    network: Network, task: Task, split: str, batch: int = 500, chunk: int = 200, batches: int = 0
) -> dict[str, float]:
    """Mean loss (nats), the task's metric by its name, and ``count``, the answers judged.

    Args:
        network: put into evaluation mode for the while.
        task: with its data loaded.
        split: train, validation or test.
        batch: sequences at a time. For text it is also the number of places where reading
            starts without a state, so that it moves the score slightly.
        chunk: for text, tokens at a time.
        batches: at most so many; 0 for all.
    """
    training = network.training
    network.eval()
    nats = torch.zeros((), dtype=torch.float64, device=task.device)
    correct = torch.zeros((), dtype=torch.int64, device=task.device)
    count, state = 0, None
    for xs, ys, fresh in islice(task.iterate(split, batch, chunk), batches or None):
        logits, state = network(task.head_name, xs, None if fresh else state)
        logits, ys = logits.flatten(0, -2).float(), ys.flatten()
        nats += F.cross_entropy(logits, ys, reduction="sum")
        correct += (logits.argmax(-1) == ys).sum()
        count += len(ys)
    network.train(training)
    value = task.metric.value(nats.item(), int(correct), count)
    return {"loss": nats.item() / count, task.metric.name: value, "count": count}


def lesions(
    network: Network, task: Task, split: str, batch: int = 500, chunk: int = 200, batches: int = 0
) -> dict[str, dict[str, float]]:
    """As ``evaluate``, with one module after another silent: what is lost is what it did.

    By module, of those that run for the task. A silent module writes zeros to the center.

    Raises:
        UserError: the body has no modules.
    """
    net = network.body
    if not isinstance(net, ThalNet):
        raise UserError(f"lesions: only a ThalNet has modules, not {type(net).__name__}.")
    found = {}
    for name in network.active_modules(task.head_name):
        with net.lesioned(name):
            found[name] = evaluate(network, task, split, batch, chunk, batches)
    return found
