"""Decisions of the search as text: tables of them and of their candidates, and sentences."""

from collections.abc import Mapping, Sequence

from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.runs.decisions import right_decisions
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry

SCORES = "A score is the validation loss relative to guessing, plus the price of new parameters."
ERRORS = "±: standard error of the difference of a candidate's loss to that of the chosen one."
NEAREST = 3  # earlier paths that are named


def decision_rows(
    decisions: Sequence[DecisionEntry], stream: Sequence[ExperienceConfig]
) -> list[dict[str, str]]:
    """Return a row for every decision.

    'extra steps' are those beside the steps that the run goes on from: the cost of the decision.
    'expected' stands where the stream has an answer key, 'about' where a decision is not on what a
    new task gets.
    """
    rows, right = [], right_decisions(stream, decisions)
    for decision in decisions:
        chosen, key = decision.chosen, expected(decision, stream)
        rows.append({
            "task": decision.task,
            "about": decision.about,
            "gets": chosen.candidate,
            "new parameters": f"{chosen.parameters:,}",
            "score": f"{chosen.score:.3f}",
            "extra steps": f"{decision.extra_steps:,}",
            "expected": " or ".join(key),
            "as expected": ("yes" if right[decision.experience] else "no") if key else "",
            "why": decision.reason,
        })  # fmt: skip
    return _without(rows, {"about": "task", "expected": "", "as expected": ""})


def expected(decision: DecisionEntry, stream: Sequence[ExperienceConfig]) -> Sequence[str]:
    """Return the right answers to a decision that the answer key of a stream has; () without."""
    scored = decision.about == "task" and decision.experience <= len(stream)
    return stream[decision.experience - 1].expect if scored else ()


def candidate_rows(decision: DecisionEntry, by_round: bool = False) -> list[dict[str, str]]:
    """Return a row for every candidate, with its last score or with one for each round of a race.

    '±' is the standard error of the difference of its loss to that of the chosen candidate, for
    those of the last round. Columns that say nothing are left out.
    """
    rounds = by_round * max(len(entry.scores) for entry in decision.candidates)
    rows = [
        {
            "candidate": entry.candidate,
            "new parameters": f"{entry.parameters:,}",
            "steps": f"{entry.steps:,}",
            **_scores(entry, rounds),
            "±": "" if entry.error is None else f"{entry.error:.3f}",
            "p": "" if entry.p_value is None else f"{entry.p_value:.2g}",
            "chosen": "yes" if entry.chosen else "",
        }
        for entry in decision.candidates
    ]
    return _without(rows, {"±": "", "p": ""} | ({"steps": "0"} if by_round else {}))


def prior_sentence(decision: DecisionEntry) -> str:
    """Return how well linear heads on earlier paths answer a new task, the best ones first."""
    if not decision.prior:
        return "No earlier path reads inputs of its shape." if decision.about == "task" else ""
    best = sorted(decision.prior.items(), key=lambda item: item[1])[:NEAREST]
    named = ", ".join(f"{task} {loss:.3f}" for task, loss in best)
    count = len(decision.prior)
    where = (
        f"the best {NEAREST} of {count} earlier paths" if count > NEAREST else "each earlier path"
    )
    return f"Loss of a linear head on {where}, relative to guessing: {named}."


def _without(rows: Sequence[dict[str, str]], usual: Mapping[str, str]) -> list[dict[str, str]]:
    """Return rows without those columns that have their usual text in every row."""
    left_out = {name for name, text in usual.items() if all(row[name] == text for row in rows)}
    return [{k: text for k, text in row.items() if k not in left_out} for row in rows]


def _scores(entry: CandidateEntry, rounds: int) -> dict[str, str]:
    if rounds < 2:
        return {"score": f"{entry.score:.3f}"}
    scores = [f"{score:.3f}" for score in entry.scores]
    scores += ["–"] * (rounds - len(scores))
    return {f"round {number}": score for number, score in enumerate(scores, start=1)}
