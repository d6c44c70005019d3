"""Decisions of a search, compared with the answer key of its stream."""

from collections.abc import Sequence
from dataclasses import dataclass

from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.runs.topology_file import DecisionEntry


@dataclass(frozen=True)
class DecisionCount:
    """Numbers of decisions that have an answer key, and of those that are as it expects."""

    scored: int
    as_expected: int

    def line(self) -> str:
        """Return the counts in a line.

        >>> DecisionCount(scored=5, as_expected=4).line()
        'decisions: 4 of 5 as expected'
        """
        return f"decisions: {self.as_expected} of {self.scored} as expected"


def is_expected(candidate: str, expect: Sequence[str]) -> bool:
    """Return whether a candidate is among those that are expected, by itself or by its kind.

    >>> is_expected("probe of digits", ["probe"]), is_expected("alone", ["probe of digits"])
    (True, False)
    """
    return candidate in expect or candidate.partition(" of ")[0] in expect


def count_decisions(
    stream: Sequence[ExperienceConfig], decisions: Sequence[DecisionEntry]
) -> DecisionCount | None:
    """Compare the decisions of a run with the answer key of its stream.

    Args:
        stream: the configured experiences; those without ``expect`` are not scored.
        decisions: so far; those on what a new task gets are scored.

    Returns:
        None if no decision is scored.
    """
    chosen = {d.experience: d.chosen.candidate for d in decisions if d.about == "task"}
    right = [
        is_expected(chosen[number], experience.expect)
        for number, experience in enumerate(stream, 1)
        if experience.expect and number in chosen
    ]
    return DecisionCount(len(right), sum(right)) if right else None
