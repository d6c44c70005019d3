"""Mean training losses for the log, and the losses from which a training counts as diverged."""

import math

from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.divergence import diverged
from thalnet_mtl.training.state import NOT_TRAINED

DIVERGENCE_FACTOR = 100.0  # times the loss of guessing, or of the untrained network


def mean_losses(run: RunContext) -> dict[str, float]:
    """Return the mean loss of every trained task since the last line of the log.

    Raises:
        Diverged: a loss has exploded, or a loss or a weight is not finite.
    """
    log = run.state.loss_log
    count = (run.step - 1) % len(log) + 1
    rows, limits = log[:count].tolist(), {name: loss_limit(run, name) for name in run.tasks}
    for k, row in enumerate(rows):
        for name, loss in zip(run.tasks, row, strict=True):
            if math.isnan(loss) or loss == math.inf or loss > limits[name]:
                raise diverged(f"loss {loss:.4g} at step {run.step - count + k + 1:,}", name)
    trainable = (weight for weight in run.network.parameters() if weight.requires_grad)
    if not all(bool(weight.isfinite().all()) for weight in trainable):
        reason = f"a weight that is not finite after step {run.step:,}"
        raise diverged(reason, ", ".join(run.tasks))
    means: dict[str, float] = {}
    for name, column in zip(run.tasks, zip(*rows, strict=True), strict=True):
        trained = [loss for loss in column if loss != NOT_TRAINED]
        means |= {name: sum(trained) / len(trained)} if trained else {}
    return means


def loss_limit(run: RunContext, task: str) -> float:
    """Return the loss above which the training of a task has diverged.

    It is g + 100 · max(|g|, |u|, 1), with the loss g of guessing and the loss u of the untrained
    network. The 1 is for losses near 0, such as those of small numbers: outputs of order 1, which
    are far too large for these, are soon corrected.
    """
    guess = run.guess(task, "validation")["loss"]
    untrained = run.state.scores.untrained.get(task, {}).get("loss", 0.0)
    scales = [abs(loss) for loss in (guess, untrained) if math.isfinite(loss)]
    return (guess if math.isfinite(guess) else 0.0) + DIVERGENCE_FACTOR * max(*scales, 1.0)
