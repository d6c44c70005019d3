"""Scores of a network on one split of a task, as it is and with modules lesioned."""

from itertools import islice

import torch
from torch import nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.evaluation import Evaluation
from thalnet_mtl.training.ranks import ALONE, Ranks


@torch.no_grad()
def evaluate(
    network: nn.Module,
    task: Task,
    split: str,
    batch: int = 500,
    chunk: int = 200,
    batches: int = 0,
    evaluation: Evaluation | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Score a network on a split of a task.

    Args:
        network: in evaluation mode for the duration of the call.
        task: with its data loaded.
        split: train, validation or test.
        batch: sequences per batch. Of a text it is also the number of places at which the network
            starts from an empty state, so that it affects the score slightly.
        chunk: of a text, tokens per chunk.
        batches: the maximum number of batches; 0 for all.
        evaluation: that it fills; by default a new one.
        ranks: processes that compute a share of every batch each, and score the outputs for all
            of it, so that they find the same to the bit.

    Returns:
        ``loss``, the mean over targets; the score in each metric of the task by its name, the main
        one first; and ``count``, the number of targets.

    Raises:
        UndefinedScore: a metric has no value for the targets.
    """
    evaluation, state = evaluation or Evaluation(task), None
    with evaluation_mode(network):
        for part in islice(task.iterate(split, batch, chunk), batches or None):
            state = None if part.starts_sequence else state
            total = len(part.ys)
            own = part.map(ranks.rows(total).of) if ranks.several else part
            outputs, state = network(task.head_name, own.xs, state, own.lengths)
            evaluation.update(ranks.whole_rows(outputs, total), part)
    return evaluation.compute()


def lesions(
    network: Network, task: Task, split: str, batch: int = 500, chunk: int = 200, batches: int = 0
) -> dict[str, dict[str, float]]:
    """Score a network with each module lesioned in turn; the drop is what the module contributes.

    A lesioned module writes zeros to the center. Arguments are those of ``evaluate``.

    Returns:
        the scores of ``evaluate`` by module, for the modules that run for the task.

    Raises:
        UserError: the body has no modules.
    """
    body = network.body
    if not isinstance(body, ThalNet):
        raise UserError(f"lesions: only a ThalNet has modules, not {type(body).__name__}.")
    scores = {}
    for name in network.active_modules(task.head_name):
        with body.lesioned(name):
            scores[name] = evaluate(network, task, split, batch, chunk, batches)
    return scores
