"""The best weights of an experience: kept with all that learned, and restored at its end."""

from thalnet_mtl.training.checkpoint_parts import map_tensors
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.optimizers import load_optimizer_state, optimizer_for

LEARNED = ("network", "weighting", "optimizer", "strategy")  # parts of the state of a run


def keep_best(run: RunContext, mean: float) -> None:
    """Keep all that has learned as the best of this experience so far.

    Args:
        run: between two steps.
        mean: the mean normalized score of its weights.
    """
    stopping, saved = run.state.stopping, run.state.state_dict()
    stopping.best, stopping.best_step = mean, run.step
    parts = {name: saved[name] for name in LEARNED}
    stopping.learned = map_tensors(lambda place, tensor: tensor.detach().clone(), parts)


def restore_best(run: RunContext) -> None:
    """Bring network, loss weighting, optimizer and strategy back to the best step.

    So the experience ends as if it had been that long. Steps, batches and random numbers go on.
    """
    state, learned = run.state, run.state.stopping.learned
    if state.stopping.best_step != state.step:
        state.network.load_state_dict(learned["network"])
        state.weighting.load_state_dict(learned["weighting"])
        state.optimizer = optimizer_for(run.config, state.network, state.weighting)
        load_optimizer_state(state.optimizer, learned["optimizer"], state.named_parameters())
        state.strategy.load_state_dict(learned["strategy"])
    state.stopping.end_experience(state.step)
