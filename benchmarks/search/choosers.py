"""Choosers to compare with the search: rules of growth that decide in another way.

Importing this file registers them, for ``growth.when``. All of them give a new task one of the
candidates of the search, and freeze the tasks before it.
"""

from collections.abc import Mapping

import numpy as np

from thalnet_mtl.registry import register
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.search.candidates import Candidate
from thalnet_mtl.training.search.kinds import REUSING
from thalnet_mtl.training.search.rule import Search

USEFUL = 0.5  # share of the loss of guessing below which the prior alone reuses a path


@register("growth", "independent")
class Independent(Search):
    """Networks of their own: every task gets modules that read only each other."""

    rounds = ()

    def candidates(self, task: Task, prior: Mapping[str, float]) -> list[Candidate]:
        return [Candidate("alone")]


@register("growth", "random")
class Random(Search):
    """A candidate that is drawn by chance, with a source that is drawn by chance."""

    rounds, orders = (), 0

    def source(self, prior: Mapping[str, float]) -> str:
        return str(self.rng().choice([*prior])) if prior else ""

    def candidates(self, task: Task, prior: Mapping[str, float]) -> list[Candidate]:
        every = super().candidates(task, prior)
        return [every[self.rng().randint(len(every))]]

    def rng(self) -> np.random.RandomState:
        """Return a random stream that the seed and the experience fix."""
        return np.random.RandomState([self.run.seed, self.experience.number])


@register("growth", "oracle")
class Oracle(Search):
    """The first of the right answers that the stream holds; modules of its own where it has none.

    An answer without a source, as 'finetune', takes the source of the search.
    """

    rounds, orders = (), 0

    def candidates(self, task: Task, prior: Mapping[str, float]) -> list[Candidate]:
        answers = self.run.config.stream[self.experience.number - 1].expect or ("alone",)
        kind, _, source = answers[0].partition(" of ")
        return [Candidate(kind, source or (self.source(prior) if kind in REUSING else ""))]


@register("growth", "exhaustive")
class Exhaustive(Search):
    """An exhaustive search: every candidate trains to the end; the best one begins again.

    The head of a probe is fitted, not trained, as in every race.
    """

    rounds, orders = ((1, 1),), 0
    fitted = ()
    restarts = True


@register("growth", "prior_alone")
class PriorAlone(Search):
    """No race: a new head on the path that fits best, or modules of its own if none fits well."""

    rounds, orders = (), 0

    def candidates(self, task: Task, prior: Mapping[str, float]) -> list[Candidate]:
        source = self.source(prior)
        fits = bool(source) and prior[source] < USEFUL
        return [Candidate("probe", source) if fits else Candidate("alone")]


@register("growth", "race_alone")
class RaceAlone(Search):
    """No prior: the candidates reuse the path of the last task."""

    orders = 0

    def source(self, prior: Mapping[str, float]) -> str:
        return [*prior][-1] if prior else ""


@register("growth", "any_path")
class AnyPath(Search):
    """A race even if the path that fits best knows nothing about the task."""

    orders = 0
