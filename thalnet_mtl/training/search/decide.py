"""A decision of the search, carried out in a run."""

from dataclasses import asdict
from operator import attrgetter

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.runs.topology_file import DecisionEntry
from thalnet_mtl.signals import interruptible
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth import freeze_tasks
from thalnet_mtl.training.monitor import Monitor
from thalnet_mtl.training.search.race import Race
from thalnet_mtl.training.topology_changes import on_topology_change


def search(run: RunContext, monitor: Monitor, task: str) -> list[TopologyChange]:
    """Give a new task what the best candidate has, and train it as long as the race took.

    The tasks before it are frozen. Returns the changes of the network.

    Args:
        run: at the begin of the experience of the task.
        monitor: of the run; scores the task before its training, and reports the decision.
        task: its name.

    Raises:
        StopRequested: in the middle of the race.
    """
    frozen = freeze_tasks(run.network, run.network.adapters)
    for change in frozen:
        on_topology_change(run, change)
    race = Race(run, task)
    with interruptible():
        winner, untrained, record = race.decide()
    with race.state(untrained.state) as state:
        monitor.score_untrained(task)
        scores = state.scores.untrained[task]
    run.take_over(winner.state)
    run.state.scores.untrained[task] = scores
    run.state.growth.decisions.append(asdict(record))
    monitor.console.print(f"  step {run.step:,}  {summary(record)}")
    return frozen + winner.changes


def summary(decision: DecisionEntry) -> str:
    """Return a decision in a line."""
    ordered = sorted(decision.candidates, key=attrgetter("score"))
    shown = ", ".join(f"{entry.candidate} {entry.score:.3f}" for entry in ordered)
    chosen = decision.chosen.candidate
    return f"search: {decision.task} gets {chosen} (scores, 1 is guessing: {shown})"
