"""Pruning: modules without which the network does no worse are taken out before it is frozen.

A module is silenced first, which costs no training. Those whose silence does no harm leave a copy
of the network, which trains for the last steps of the experience beside the network as it is. The
copy goes on only if a paired test says that it is worse by less than a limit, ``growth.harm``.
"""

from contextlib import ExitStack
from copy import deepcopy

from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.search.edges import growing_modules, modular_body
from thalnet_mtl.training.search.paired import sign_flip
from thalnet_mtl.training.search.paired_race import Outcome, PairedRace

LEVEL = 0.05  # of the tests that there is no harm


def prune_modules(run: RunContext, task: str, harm: float, steps: int) -> Outcome | None:
    """Take modules out of a copy of a run, and decide whether it goes on.

    Returns None if every module is frozen, or another task runs it. The run itself stays as it is.

    Args:
        run: near the end of an experience.
        task: the only one that the experience trains.
        harm: the loss that may be added, as a share of the loss of guessing.
        steps: that both take before they are compared.
    """
    head, race = run.tasks[task].head_name, PairedRace(run, task)
    if not growing_modules(run.network, head):
        return None
    silent, reason = harmless_modules(race, head, harm)
    keep = race.enter_changed("keep", lambda network: [])
    keep.losses, p_value = race.losses(), 1.0
    entrants = [keep]
    if silent:
        names = ", ".join(silent)
        pruned = race.enter_changed(
            f"without {names}", lambda network: remove(network, head, silent)
        )
        entrants.append(pruned)
        for entrant in entrants:
            race.advance(entrant, steps)
        p_value = sign_flip(harm - (pruned.losses - keep.losses))
        verb = "is worse by less than" if p_value <= LEVEL else "may be worse by more than"
        reason = (
            f"the network without {names} {verb} the harm of {harm:.3f}: {pruned.score:.4f} "
            f"against {keep.score:.4f}, p = {p_value:.2g}"
        )
    winner = entrants[-1] if p_value <= LEVEL else keep
    return race.outcome("pruning", winner, entrants, p_value, reason)


def harmless_modules(race: PairedRace, head: str, harm: float) -> tuple[list[str], str]:
    """Return modules that can be silent together, and why the next one cannot.

    The module that matters least comes first.
    """
    network, silent, reason = race.run.network, list[str](), "the input needs a path to the head"
    before, waiting = race.losses(), growing_modules(network, head)
    while waiting:
        losses = {name: silenced(race, [*silent, name]) for name in waiting}
        name = min(losses, key=lambda name: float(losses[name].mean()))
        waiting.remove(name)
        p_value = sign_flip(harm - (losses[name] - before))
        if p_value > LEVEL:
            reason = (
                f"without {name} the loss may rise by more than the harm of {harm:.3f}: "
                f"{losses[name].mean():.4f} against {before.mean():.4f}, p = {p_value:.2g}"
            )
            break
        if can_be_removed(network, head, [*silent, name]):
            silent.append(name)
    return silent, reason


def silenced(race: PairedRace, names: list[str]) -> Tensor:
    """Return the losses of blocks of the validation split while some modules are silent."""
    with ExitStack() as lesions:
        for name in names:
            lesions.enter_context(modular_body(race.run.network).lesioned(name))
        return race.losses()


def can_be_removed(network: Network, head: str, names: list[str]) -> bool:
    """Return whether a network has a path from the input to the head without some modules."""
    try:
        remove(deepcopy(network), head, names)
    except UserError:
        return False
    return True


def remove(network: Network, head: str, names: list[str]) -> list[TopologyChange]:
    """Take modules away from the ends of a task and out of the network."""
    spec, changes = network.adapter(head).spec, list[TopologyChange]()
    ends = [name for name in names if name in (*spec.input_modules, *spec.output_modules)]
    if ends:
        changes.append(network.disconnect(head, *ends))
    return changes + [network.detach(name) for name in names]
