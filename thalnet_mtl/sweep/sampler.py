"""Values of a trial: at random, or by TPE, which learns from the trials before it.

Both are functions of the seed of the tuning, of the number of the trial and of recorded scores, so
that a tuning that was killed goes on with the same trials.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep.space import Distribution

SAMPLERS = ("random", "tpe")
STARTUP = 10  # random trials before those of TPE; the default of Optuna

Space = Mapping[str, Distribution]  # by ``section.field``


@dataclass(frozen=True)
class FinishedTrial:
    """The values of an earlier trial, and its score; None if it failed."""

    values: Mapping[str, Any]
    score: float | None


def check_sampler(sampler: str | None) -> None:
    """Raise if Optuna is needed and not installed."""
    if sampler == "tpe" and find_spec("optuna") is None:
        raise UserError("--sampler tpe needs Optuna: pip install 'thalnet-mtl[tuning]'.")


def random_values(space: Space, seed: int, number: int) -> dict[str, Any]:
    """Return the values of a trial at random.

    The value of a field depends on the seed, the number and the field alone: it is the same for
    every arm that has the field, and more trials or fields change none of it.
    """
    return {
        key: distribution.at(random.Random(f"{seed} {number} {key}").random())
        for key, distribution in space.items()
    }


def tpe_values(
    space: Space, seed: int, number: int, finished: Sequence[FinishedTrial], maximize: bool
) -> dict[str, Any]:
    """Return the values that TPE suggests for a trial; at random for the first ``STARTUP``.

    Source: Bergstra et al., "Algorithms for hyper-parameter optimization", NIPS 2011, as Optuna
    implements it. Failed trials tell it nothing.

    Args:
        space: by field.
        seed: of the tuning.
        number: of the trial.
        finished: trials whose scores may be used.
        maximize: whether higher scores are better.
    """
    if number < STARTUP or not space:
        return random_values(space, seed, number)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {key: _optuna_distribution(d) for key, d in space.items()}
    sampler = optuna.samplers.TPESampler(
        seed=random.Random(f"{seed} {number}").getrandbits(32), n_startup_trials=0
    )
    study = optuna.create_study(direction="maximize" if maximize else "minimize", sampler=sampler)
    for trial in finished:
        params = {key: value for key, value in trial.values.items() if key in space}
        state = optuna.trial.TrialState.FAIL if trial.score is None else None
        study.add_trial(
            optuna.trial.create_trial(
                state=state or optuna.trial.TrialState.COMPLETE,
                value=trial.score,
                params=params,
                distributions={key: distributions[key] for key in params},
            )
        )
    suggested = study.ask(distributions).params
    return {key: space[key].rounded(suggested[key]) for key in space}


def _optuna_distribution(distribution: Distribution) -> Any:
    from optuna import distributions

    if distribution.kind == "values":
        return distributions.CategoricalDistribution(distribution.values)
    low, high = distribution.values
    log = distribution.kind == "log"
    if distribution.whole:
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)
