"""Why a candidate of the search was chosen, as a sentence."""

from collections.abc import Sequence
from math import isfinite

from thalnet_mtl.runs.topology_file import CandidateEntry


def reason(candidates: Sequence[CandidateEntry]) -> str:
    """Return why the chosen one of some candidates won the last round of its race.

    It is compared with the best other that ran that round: by the score, or by the number of new
    parameters where the scores are within the standard error of their difference.
    """
    chosen = next(entry for entry in candidates if entry.chosen)
    result = f"{chosen.candidate}: {chosen.score:.3f}"
    others = [e for e in candidates if len(e.scores) == len(chosen.scores) and e is not chosen]
    if not others:
        return f"{result}, the only candidate of the last round"
    other = min(others, key=lambda e: (not isfinite(e.score), e.score))
    if not isfinite(other.score):
        return f"{result}, and the loss of {other.candidate} is not finite"
    result = f"{result} against {other.score:.3f} for {other.candidate}"
    if other.error is not None and abs(other.score - chosen.score) <= other.error:
        return (
            f"{result}, within the standard error of {other.error:.3f}; ties go to fewer new "
            f"parameters ({chosen.parameters:,} against {other.parameters:,})"
        )
    return result
