"""Scores of a finished run: its decisions, its transfer, its size and its cost."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.records import Record, RunsBySeed
from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.runs.decisions import right_decisions
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import DecisionEntry, read_topology

DIGITS = 4  # decimals of scores in a record
ENVIRONMENT = ("packages", "platform", "processor", "cores", "threads", "commit")


def score_run(folder: Path) -> dict[str, Any]:
    """Return the scores of a finished run over several experiences.

    ``decisions`` has an entry for each, with the steps that its other candidates have trained, and
    whether it is ``right`` by the answer key (None where the stream has no answer). ``matrix`` is
    R: test scores by stage and task. ``cost`` is the number of steps of all candidates, and of the
    run, over the steps of the run.
    """
    result, topology = RunResult.load(folder), read_topology(folder)
    summary, stream = result.continual, load_run_config(folder).stream
    assert summary is not None
    right = right_decisions(stream, topology.decisions)
    lengths = [end - start for start, end in pairwise([0, *summary.ends])]
    decisions = [
        {
            "experience": decision.experience,
            "task": decision.task,
            "chosen": decision.chosen.candidate,
            "right": right.get(decision.experience),
            "lost_steps": lost_steps(decision, lengths[decision.experience - 1]),
            "scores": {e.candidate: round(e.score, DIGITS) for e in decision.candidates},
        }
        for decision in topology.decisions
        if decision.about == "task"
    ]
    return {
        "decisions": decisions,
        "tasks": list(result.tasks),
        "matrix": [[s if s is None else round(s, DIGITS) for s in row] for row in summary.scores],
        "forgetting": summary.measures["forgetting"].mean,
        "modules": len(topology.modules),
        "parameters": result.parameters.total,
        "multiply_adds": dict(summary.stages[-1].multiply_adds),
        "steps": result.steps,
        "train_seconds": result.train_seconds,
        "seconds": result.seconds,
    }


def lost_steps(decision: DecisionEntry, length: int) -> int:
    """Return the steps of candidates that the run did not go on from.

    These are the steps of all candidates that were not chosen, less those that the run skipped,
    because the chosen one was fitted. If the chosen one was at the end of the experience, whose
    ``length`` is given, it began again.
    """
    if decision.chosen.steps < length:
        return decision.extra_steps
    return sum(entry.steps for entry in decision.candidates)


def write_compact_record(
    command: Sequence[str], folder: Path, path: Path, fingerprint: str, error: str = ""
) -> None:
    """Write the record of a run on one line: its scores, or the error that ended it."""
    record: Record = {"command": " ".join(command), "fingerprint": fingerprint}
    if error:
        record["failed"] = error[:300]
    else:
        environment = json.loads((folder / "environment.json").read_text())
        record["result"] = score_run(folder)
        record["environment"] = {key: environment.get(key) for key in ENVIRONMENT}
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n")


def accuracy(record: Record) -> float:
    """Return A, the mean final test accuracy over the tasks."""
    return mean(record["result"]["matrix"][-1])


def last_accuracy(record: Record) -> float:
    """Return the final test accuracy on the last task."""
    return float(record["result"]["matrix"][-1][-1])


def transfer(record: Record, alone: Record) -> float:
    """Return T, the test accuracy on the last task minus that of a network of its own."""
    return last_accuracy(record) - last_accuracy(alone)


def cost(record: Record, recipe_steps: int) -> float:
    """Return the steps of the run and of all candidates over those of training once.

    Args:
        record: of the run.
        recipe_steps: of all experiences, without the budget of a race.
    """
    result = record["result"]
    return (result["steps"] + sum(d["lost_steps"] for d in result["decisions"])) / recipe_steps


def chosen_kinds(runs: RunsBySeed) -> dict[int, dict[str, int]]:
    """Return by experience how often each kind of candidate was chosen, the most frequent first."""
    counts: dict[int, dict[str, int]] = {}
    for record in runs.values():
        for decision in record["result"]["decisions"]:
            kinds = counts.setdefault(decision["experience"], {})
            kind = decision["chosen"].partition(" of ")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
    return {n: dict(sorted(kinds.items(), key=lambda k: -k[1])) for n, kinds in counts.items()}


def by_seed(runs: RunsBySeed, reference: RunsBySeed) -> Mapping[int, tuple[Record, Record]]:
    """Return pairs of records of the same seed."""
    return {seed: (runs[seed], reference[seed]) for seed in sorted(runs.keys() & reference.keys())}
