"""A race between a run as it is and other networks for it, decided by paired tests."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.training.search.race import Entrant, Race, changed_copy
from thalnet_mtl.training.search.warm_up import new_entries

Act = Callable[[Network], list[TopologyChange]]


class Outcome(NamedTuple):
    """The winner of a race, whose state the run is to take over, and the record of it."""

    winner: Entrant[str]
    record: DecisionEntry


class PairedRace(Race):
    """A race for a task that is trained already.

    Args:
        run: between two steps of an experience.
        task: the only one that the experience trains.
        price: of as many parameters as a new module has, in losses of guessing.
    """

    def enter_changed(self, candidate: str, act: Act) -> Entrant[str]:
        """Return an entrant on a copy of the state of the run, after changes of its network."""
        state, changes, size = changed_copy(self.run, act)
        rng = torch.get_rng_state()
        return Entrant(candidate, state, rng, changes, size, warm_up=new_entries(changes))

    def learning_rate(self, entrant: Entrant[Any], steps: int) -> float:
        """Return the rate of the next step, which falls to zero in the race.

        At a constant rate losses jump from step to step by more than what a module gains.
        """
        return self.run.learning_rate() * (1 - entrant.steps / steps)

    def outcome(
        self,
        about: str,
        winner: Entrant[str],
        entrants: Sequence[Entrant[str]],
        p_value: float,
        reason: str,
        gradients: int = 0,
    ) -> Outcome:
        """Return the winner and the record; the seconds of all entrants count for the winner.

        Args:
            about: kind of the decision; see ``DecisionEntry``.
            winner: of the race.
            entrants: the network as it is, which comes first, and those against it.
            p_value: of the test of the others.
            reason: why it has won.
            gradients: batches whose gradients were computed beside the steps.
        """
        start = self.start.timers.train_seconds
        losers = [entrant.state.timers for entrant in entrants if entrant is not winner]
        winner.state.timers.train_seconds += sum(t.train_seconds - start for t in losers)
        candidates = [
            CandidateEntry(
                candidate=entrant.candidate,
                parameters=entrant.parameters,
                steps=entrant.steps,
                score=entrant.score,
                price=entrant.price,
                scores=entrant.scores,
                p_value=p_value if number else None,
                chosen=entrant is winner,
            )
            for number, entrant in enumerate(entrants)
        ]
        record = DecisionEntry(
            step=self.run.step,
            changes=len(self.run.state.topology_log),
            experience=self.run.experience.number,
            task=self.task.name,
            about=about,
            reason=reason,
            candidates=candidates,
            gradients=gradients,
        )
        return Outcome(winner, record)
