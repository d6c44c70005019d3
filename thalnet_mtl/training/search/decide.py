"""A decision of the search, carried out in a run."""

from typing import Any

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.monitor import Monitor
from thalnet_mtl.training.search.race import Race
from thalnet_mtl.training.topology_changes import on_topology_change


def search(
    run: RunContext, monitor: Monitor, task: str
) -> tuple[list[TopologyChange], dict[str, Any]]:
    """Give a new task what the best candidate has, and train it as long as the race took.

    The tasks before it are frozen. If the user asks to stop, the run is as it was before.

    Args:
        run: at the begin of the experience of the task.
        monitor: of the run; scores the task before its training.
        task: its name.

    Returns:
        the changes of the network, and a record of the decision.

    Raises:
        StopRequested: in the middle of the race.
    """
    frozen = freeze_earlier(run)
    race = Race(run, task)
    winner, untrained, record = race.decide()
    with race.state(untrained.state) as state:
        monitor.score_untrained(task)
        scores = state.scores.untrained[task]
    run.take_over(winner.state)
    run.state.scores.untrained[task] = scores
    run.state.growth.decisions.append(record)
    return frozen + winner.changes, record


def freeze_earlier(run: RunContext) -> list[TopologyChange]:
    """Freeze all tasks of the network. Returns the changes."""
    network, changes = run.network, list[TopologyChange]()
    for head in network.adapters:
        if not network.adapter(head).spec.frozen:
            changes.append(network.freeze(task=head))
            on_topology_change(run, changes[-1])
    return changes


def summary(record: dict[str, Any]) -> str:
    """Return the decision of a record in a line."""
    scores = sorted((c["scores"][-1], name) for name, c in record["candidates"].items())
    shown = ", ".join(f"{name} {score:.3f}" for score, name in scores)
    return f"search: {record['task']} gets {record['decision']} (loss of guessing 1: {shown})"
