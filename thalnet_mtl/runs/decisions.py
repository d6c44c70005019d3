"""Decisions of a search, compared with the answer key of its stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.runs.topology_file import DecisionEntry

SAME_MODULES = ("probe", "bottom")  # kinds that run the modules of another task, and no others


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
    right = [*right_decisions(stream, decisions).values()]
    return DecisionCount(len(right), sum(right)) if right else None


def right_decisions(
    stream: Sequence[ExperienceConfig], decisions: Sequence[DecisionEntry]
) -> dict[int, bool]:
    """Return by experience whether its decision is as expected; see ``count_decisions``.

    An answer names a candidate, or its kind. Tasks with the same modules stand for each other: if
    ``again`` is a probe of ``digits``, a probe of either is the same network.
    """
    about_tasks = {each.experience: each for each in decisions if each.about == "task"}
    origins: dict[str, str] = {}
    for _, decision in sorted(about_tasks.items()):
        kind, _, source = decision.chosen.candidate.partition(" of ")
        if kind in SAME_MODULES:
            origins[decision.task] = origins.get(source, source)
    return {
        number: any(
            _is_answer(about_tasks[number].chosen.candidate, answer, origins)
            for answer in experience.expect
        )
        for number, experience in enumerate(stream, 1)
        if experience.expect and number in about_tasks
    }


def _is_answer(candidate: str, answer: str, origins: Mapping[str, str]) -> bool:
    """Return whether a candidate is an answer, with tasks replaced by the origin of their path."""
    (kind, _, source), (expected, of, task) = candidate.partition(" of "), answer.partition(" of ")
    same_path = origins.get(source, source) == origins.get(task, task)
    return kind == expected and (same_path or not of)
