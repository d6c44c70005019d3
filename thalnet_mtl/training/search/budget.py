"""The plan of growth and pruning within an experience: at which steps, and how many they take.

Costs are in steps of all entrants, as a multiple of the steps that the run goes on from.
"""

from math import ceil, floor
from typing import NamedTuple

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.search.edges import BATCHES

SETTLE = 0.02  # of the steps of an experience: how long a pruned network trains for a comparison
SHORTEST = 20  # steps of a race that can tell anything


class Budget(NamedTuple):
    """The plan of an experience.

    Args:
        every: steps between two races; 0: none.
        prune: whether modules are taken out at the end.
        cost: of all training, as a multiple of the steps of the run.
        spent: part of it for the races for new tasks, without the steps that their winners keep.
    """

    every: int
    prune: bool
    cost: float
    spent: float

    @property
    def allowance(self) -> int:
        """Steps that a race may take beside those of its winner."""
        share = self.cost - 1 - self.spent - SETTLE * self.prune
        return min(floor(share * self.every + 1e-9), self.every - 1)

    def check(self) -> None:
        """Raise ``UserError`` if the cost leaves too few steps."""
        least = SHORTEST + BATCHES
        if self.every and self.allowance < least:
            cost = self.cost + (least - self.allowance) / self.every
            raise UserError(
                f"growth.every {self.every}: growth.cost {self.cost:g} leaves "
                f"{max(0, self.allowance)} steps for a race, which needs {least}; raise "
                f"growth.cost to {ceil(cost * 100) / 100:g}, or growth.every."
            )
        if 1 + self.spent + SETTLE * self.prune > self.cost + 1e-9:
            raise UserError(
                f"growth.prune: growth.cost {self.cost:g} leaves nothing for it; raise growth.cost "
                f"to {1 + self.spent + SETTLE:g}."
            )

    def settling(self, experience: Experience) -> int:
        """Return the steps before the last one in which a pruned network settles; 0 for none."""
        length = experience.stop - experience.start
        return min(ceil(SETTLE * length), length - 1) if self.prune else 0

    def grows(self, experience: Experience, step: int) -> bool:
        """Return whether there is a race before a step: the winner has ``every`` steps left."""
        position, stop = step - experience.start, experience.stop - self.settling(experience)
        in_turn = self.every and position and position % self.every == 0
        return bool(in_turn and step + self.every <= stop)

    def prunes(self, experience: Experience, step: int) -> bool:
        """Return whether modules are taken out before a step."""
        settling = self.settling(experience)
        return settling > 0 and step == experience.stop - settling - 1


def share_of_races(run: RunContext) -> float:
    """Return the share of the steps of a run in experiences that begin with a race."""
    seen, steps = set(run.stream[0].tasks), 0
    for experience in run.stream[1:]:
        if not seen.issuperset(experience.tasks):
            steps += experience.stop - experience.start
        seen.update(experience.tasks)
    return steps / run.total_steps
