"""Growth within a task: the network as it is races against itself with something more.

Every ``growth.every`` steps of an experience ``keep``, the network as it is, races against a
challenger on the same batches. That is a new module of each kind that is configured, which reads
only what comes with it and joins the head with columns of zeros. Where the last race went against
a module, it is the closed reading for which the gradient speaks most, if it speaks for any; where
it went against a reading, a module again. Two challengers at once would halve the race. In a race
the learning rate falls to zero, and then it is that of the run again. The network grows only if a
paired test says that the validation loss is lower by more than the price of what is new: lower than
that of ``keep``, and than before the race.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import build
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.search.edges import BATCHES, Evidence, edge_evidence
from thalnet_mtl.training.search.paired import sign_flip
from thalnet_mtl.training.search.paired_race import Outcome, PairedRace
from thalnet_mtl.training.search.race import Entrant

LEVEL = 0.01  # of the test of a race
MODULE = "module"  # how a challenger with a new module is called


def grow_within(
    run: RunContext, task: str, price: float, allowance: int, edges: bool = True
) -> Outcome | None:
    """Let the network of a run race against larger ones, and decide which goes on.

    Returns None if nothing more fits into ``model.budget``. The run itself stays as it is.

    Args:
        run: between two steps of an experience.
        task: the only one that the experience trains.
        price: of as many parameters as a new module has, as a share of the loss of guessing.
        allowance: steps that the race may take beside those that the winner goes on from.
        edges: whether closed readings race, too.
    """
    race = PairedRace(run, task, price)
    challenger = race.enter_changed("", lambda network: attach_and_connect(network, run, task))
    challenger.candidate = f"{MODULE} {', '.join(new_modules(challenger.changes))}"
    alone, extra, about_edges = challenger.parameters, 0, ""
    budget = run.config.model.budget or inf
    fits = count_parameters(challenger.state.network) <= budget
    turn = is_turn_of_edges(run.state.growth.decisions, run.experience.number)
    if edges and (turn or not fits):
        evidence = edge_evidence(run, task)
        extra, about_edges = BATCHES if evidence else 0, f"; {why_edge(evidence)}"
        if evidence and evidence[0].accepted:
            edge = evidence[0]
            challenger = race.enter_changed(str(edge), lambda network: open_edge(network, edge))
    if count_parameters(challenger.state.network) > budget:
        return None
    keep, before = race.enter_changed("keep", lambda network: []), race.losses()
    challenger.price = price * challenger.parameters / alone
    for entrant in (keep, challenger):
        race.advance(entrant, allowance - extra)
    # Losses may jump: what only outruns a jump of ``keep`` is no better.
    limit = challenger.losses + challenger.price
    p_value = max(sign_flip(losses - limit) for losses in (keep.losses, before))
    winner = challenger if p_value <= LEVEL else keep
    reason = why(keep, challenger, float(before.mean()), p_value) + about_edges
    return race.outcome("growth", winner, (keep, challenger), p_value, reason, extra)


def is_turn_of_edges(decisions: Sequence[Mapping[str, Any]], experience: int) -> bool:
    """Return whether a reading races next: the last race went against a module, or for a reading.

    Args:
        decisions: of the run so far.
        experience: that goes on.
    """
    races = [d for d in decisions if d["about"] == "growth" and d["experience"] == experience]
    if not races:
        return False
    challenger = races[-1]["candidates"][1]
    return bool(challenger["candidate"].startswith(MODULE) != challenger["chosen"])


def attach_and_connect(network: Network, run: RunContext, task: str) -> list[TopologyChange]:
    """Attach the configured modules, which read only each other, and connect them with a task."""
    growth, head = run.config.growth, run.tasks[task].head_name
    number = next(
        n
        for n in range(2, 2 + len(network.body.graph or ()))
        if not any(f"{head}_{name}{n}" in (network.body.graph or ()) for name in growth.modules)
    )
    changes, names = list[TopologyChange](), dict[str, str]()
    for name, fields in growth.modules.items():
        names[name] = full = f"{head}_{name}{number}"
        spec = build.module(
            full,
            replace(fields, reads=(), tasks=()),
            run.config.model,
            {head: run.tasks[task].spec},
            width(run.config, name),
        )
        spec = replace(spec, reads=tuple(names.values()))
        changes.append(network.attach(spec, read_by=[n for n in names.values() if n != full]))
    ends = {
        end: [names[name] for name, fields in growth.modules.items() if getattr(fields, end)]
        for end in ("input", "output")
    }
    changes.append(
        network.connect(head, input_modules=ends["input"], output_modules=ends["output"])
    )
    return changes


def width(config: Config, name: str) -> int:
    """Return the number of features of a configured module.

    Raises:
        UserError: it is not set.
    """
    features = config.growth.modules[name].features or config.model.features
    if not features:
        raise UserError(
            f"the width of module '{name}' is not set: give its features, or model.features."
        )
    return features


def open_edge(network: Network, edge: Evidence) -> list[TopologyChange]:
    """Let a module read another."""
    return [network.route(edge.reader, edge.source)]


def new_modules(changes: Sequence[TopologyChange]) -> list[str]:
    """Return the names of the modules that changes have attached."""
    graphs = [graph for change in changes for graph in change.graphs if graph is not None]
    return [name for name in graphs[-1] if name not in graphs[0]]


def why(keep: Entrant[str], challenger: Entrant[str], start: float, p_value: float) -> str:
    """Return why a challenger has won or lost."""
    verb = "lowers" if p_value <= LEVEL else "does not lower"
    return (
        f"{challenger.candidate} {verb} the loss by more than its price of "
        f"{challenger.price:.4f}: {challenger.score - challenger.price:.4f} against "
        f"{keep.score:.4f}, and {start:.4f} before the race, p = {p_value:.2g}"
    )


def why_edge(evidence: Sequence[Evidence]) -> str:
    """Return what the gradients say about closed readings."""
    if not evidence:
        return "no reading is closed"
    best = evidence[0]
    verb = "speaks" if best.accepted else "does not speak"
    return (
        f"of {len(evidence)} closed readings the gradient {verb} for {best}, p = {best.p_value:.2g}"
    )
