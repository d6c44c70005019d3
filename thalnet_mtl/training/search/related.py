"""A test of whether an earlier path knows something about a new task, so that it may be reused.

A path that knows nothing about a task still begins ahead of modules that have learned nothing, and
so it would win a short race; trained to the end it is worse (Ash and Adams, "On Warm-Starting
Neural Network Training", NeurIPS 2020).
"""

from collections.abc import Sequence
from typing import Any

from thalnet_mtl.training.search.candidates import Candidate
from thalnet_mtl.training.search.race import Race


def related(
    race: Race, candidates: Sequence[Candidate], orders: int
) -> tuple[list[Candidate], dict[str, Any]]:
    """Return the candidates that may win, and what is to be recorded if some of them may not.

    These are all of them, unless a head on their path answers no better than for the same inputs in
    another order: then the task gets modules that read only each other.

    Args:
        race: for the new task.
        candidates: for it. Without one that has modules alone all of them may win.
        orders: their number; 0 to let all candidates race.
    """
    sources = {candidate.source for candidate in candidates} - {""}
    alone = [candidate for candidate in candidates if candidate.kind == "alone"]
    if not (orders and sources and alone and race.has_orders):
        return list(candidates), {}
    strangers = {source: race.prior_of_orders(source, orders) for source in sources}
    if not all(is_stranger(race.prior[source], null) for source, null in strangers.items()):
        return list(candidates), {}
    about = "; ".join(
        f"a head on {source} leaves {race.prior[source]:.3f} of the loss of guessing, no "
        f"better than with the inputs in other orders ({min(null):.3f} to {max(null):.3f})"
        for source, null in sorted(strangers.items())
    )
    return alone, {"reason": f"alone: {about}, so that there is nothing to reuse"}


def is_stranger(loss: float, null: Sequence[float]) -> bool:
    """Return whether a loss may be one of others, under the null that a path knows nothing.

    It may, if it is not below all of them: a permutation test at the level 1 / (1 + their number).
    If any of them is no better than guessing, the path says nothing about any inputs, and so
    nothing about this.

    Args:
        loss: of a head on the path, relative to that of guessing.
        null: the same for inputs in other orders.
    """
    return max(null) < 1 and loss >= min(null)
