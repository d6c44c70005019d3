"""Growth within a task: the network as it is races against itself with something more.

Every ``growth.every`` steps of an experience there are up to three entrants: ``keep``, the network
as it is; a new module of each kind that is configured, which reads only what comes with it and
joins the head with columns of zeros; and the closed reading for which the gradient speaks most. All
train on the same batches. The network grows only if a paired test says that the validation loss
falls by more than the price of what is new, and otherwise waits for the next race.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import build
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.search.edges import BATCHES, Evidence, edge_evidence
from thalnet_mtl.training.search.paired import rejected, sign_flip
from thalnet_mtl.training.search.paired_race import Outcome, PairedRace, entry

LEVEL = 0.01  # of the tests of a race together


def grow_within(run: RunContext, task: str, price: float, allowance: int) -> Outcome | None:
    """Let the network of a run race against larger ones, and decide which goes on.

    Returns None if nothing more fits into ``model.budget``. The run itself stays as it is.

    Args:
        run: between two steps of an experience.
        task: the only one that the experience trains.
        price: of as many parameters as a new module has, as a share of the loss of guessing.
        allowance: steps that the race may take beside those that the winner goes on from.
    """
    evidence = edge_evidence(run, task)
    race = PairedRace(run, task, price)
    module = race.enter_changed("", lambda network: attach_and_connect(network, run, task))
    module.candidate = f"module {', '.join(new_modules(module.changes))}"
    challengers = [module]
    if evidence and evidence[0].accepted:
        edge = evidence[0]
        challengers.append(race.enter_changed(str(edge), lambda network: open_edge(network, edge)))
    budget = run.config.model.budget or inf
    challengers = [e for e in challengers if count_parameters(e.state.network) <= budget]
    if not challengers:
        return None
    keep = race.enter_changed("keep", lambda network: [])
    extra = BATCHES if evidence else 0
    for entrant in (keep, *challengers):
        entrant.price = race.price * entrant.parameters / module.parameters
        race.advance(entrant, (allowance - extra) // len(challengers))
    p_values = [sign_flip(keep.losses - e.losses - e.price) for e in challengers]
    better = [e for e, ok in zip(challengers, rejected(p_values, LEVEL), strict=True) if ok]
    winner = min(better, key=lambda e: e.score, default=keep)
    race.count_seconds(winner, (keep, *challengers))
    tested = zip((keep, *challengers), (None, *p_values), strict=True)
    entries = [entry(entrant, p_value, entrant is winner) for entrant, p_value in tested]
    record = DecisionEntry(
        step=run.step,
        changes=len(run.state.topology_log),
        experience=run.experience.number,
        task=task,
        about="growth",
        reason=f"{why(entries)}; {why_edge(evidence)}",
        candidates=entries,
        gradients=extra,
    )
    return Outcome(winner, record)


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


def why(entries: Sequence[CandidateEntry]) -> str:
    """Return why the chosen entrant has won."""
    keep, *challengers = entries
    best = min(challengers, key=lambda e: e.p_value if e.p_value is not None else 1.0)
    shown = next((e for e in challengers if e.chosen), best)
    verb = "lowers" if shown.chosen else "does not lower"
    return (
        f"{shown.candidate} {verb} the loss by more than its price of {shown.price:.4f}: "
        f"{shown.score - shown.price:.4f} against {keep.score:.4f}, p = {shown.p_value:.2g}"
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
