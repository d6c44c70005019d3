"""The rule of growth that searches: for each new task candidates race, and the best is kept."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Annotated, ClassVar, NamedTuple

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.registry import register
from thalnet_mtl.runs.topology_file import DecisionEntry
from thalnet_mtl.signals import StopRequested, interruptible
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import GrowthRule
from thalnet_mtl.training.growth.modules import freeze_tasks
from thalnet_mtl.training.search.budget import Budget, share_of_races
from thalnet_mtl.training.search.candidates import Candidate, apply, candidates, reusable
from thalnet_mtl.training.search.kinds import KINDS
from thalnet_mtl.training.search.paired_race import Outcome
from thalnet_mtl.training.search.prune import prune_modules
from thalnet_mtl.training.search.race import Entrant, Race, ranked
from thalnet_mtl.training.search.related import related
from thalnet_mtl.training.search.within import attach_and_connect, grow_within
from thalnet_mtl.training.topology_changes import on_topology_change


class RaceOutcome(NamedTuple):
    """The outcome of a race for a new task.

    Args:
        winner: the best candidate, as it has trained.
        untrained: the same before its training.
        record: of all candidates, with the reason.
        seconds: of the training of all candidates.
    """

    winner: Entrant[Candidate]
    untrained: Entrant[Candidate]
    record: DecisionEntry
    seconds: float


@register("growth", "search")
class Search(GrowthRule):
    """Search: for each new task candidates race, and the best is kept; earlier tasks are frozen.

    The candidates reuse the path of an earlier task, in part or whole, or have modules of their
    own; see ``Candidate``. A path that knows nothing about the task is not reused; see ``related``.
    Candidates train on the same batches, but for a probe, whose head is fitted by L-BFGS. The score
    of a candidate is its validation loss as a share of the loss of guessing, plus price · p / q,
    for p new parameters where a task alone would get q. The lowest score wins; a tie within the
    standard error goes to fewer parameters. The winner goes on with what it has learned, and the
    others leave nothing behind.

    Another chooser overrides ``source``, ``candidates``, ``orders``, ``rounds`` or ``fitted``:

    >>> class LastTask(Search):
    ...     rounds = ()  # no candidate trains
    ...     def source(self, prior):
    ...         return list(prior)[-1] if prior else ""
    ...     def candidates(self, task, prior):
    ...         return super().candidates(task, prior)[:1]

    With ``every`` the network also grows while a task is trained: see ``grow_within``. With
    ``prune`` it loses modules at the end of an experience: see ``prune_modules``.

    Args:
        run: the run that the rule is part of.
        price: cost of as many parameters as a task alone would get, as a share of the loss of
            guessing.
        every: steps of an experience between two races for growth within the task; 0: none.
        edges: whether closed readings race in turn with new modules.
        prune: whether modules are taken out if the network does no worse without them.
        harm: the loss that pruning may add, as a share of the loss of guessing.
        cost: the most steps of all candidates, with growth within tasks and pruning, as a multiple
            of the steps of the run.

    Raises:
        UserError: older tasks are not frozen, the modules of a task cannot be built, or the cost
            is too low for what is to be tried.
    """

    decides: ClassVar[bool] = True
    needs_new_tasks: ClassVar[bool] = True  # but for ``every`` and ``prune``
    separate_rng: ClassVar[bool] = False  # a race trains, and draws for each candidate alike
    # Of B steps of the experience, each candidate takes B / n, and k of them go on: (n, k).
    rounds: ClassVar[Sequence[tuple[int, int]]] = ((64, 3), (8, 1))
    # Their head is fitted already: they train only after the race, and are in its last round.
    fitted: ClassVar[Sequence[str]] = ("probe",)
    # Orders of the inputs on which an earlier path must fit worse; 0: it may always be reused.
    orders: ClassVar[int] = 9
    # Whether the winner begins again. It must if the race takes all steps of the experience.
    restarts: ClassVar[bool] = False

    def __init__(
        self,
        run: RunContext,
        price: Annotated[float, Range(low=0.0)] = 0.02,
        every: Annotated[int, Range(low=0)] = 0,
        edges: bool = True,
        prune: bool = False,
        harm: Annotated[float, Range(low=0.0)] = 0.01,
        cost: Annotated[float, Range(low=1.0)] = 1.3,
    ):
        super().__init__(run)
        self.price, self.harm, self.edges = price, harm, edges
        self.budget = Budget(every, prune, cost, self.race_cost() * share_of_races(run))
        if self.acts_within:
            self.budget.check()
            check_single_tasks(run)

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise ``UserError`` if the modules of a task cannot be built of the configured ones."""
        check_modules(config)

    @property
    def acts_within(self) -> bool:
        return bool(self.budget.every or self.budget.prune)

    def race_cost(self) -> float:
        """Return the steps of a race for a new task beside those of its winner, of B steps."""
        entrants, last, cost = len(KINDS) - len(self.fitted), 0.0, 0.0
        for divisor, keep in self.rounds:
            cost += entrants * (1 / divisor - last)
            entrants, last = keep, 1 / divisor
        return cost - last * (not self.restarts)

    def source(self, prior: Mapping[str, float]) -> str:
        """Return the head of the earlier task whose path may be reused; '' for none.

        Args:
            prior: by head of an earlier task whose inputs have the same shape, the validation
                loss of a linear head on its features, as a share of the loss of guessing.
        """
        return min(prior, key=prior.__getitem__, default="")

    def candidates(self, task: Task, prior: Mapping[str, float]) -> list[Candidate]:
        """Return the candidates for a new task.

        Args:
            task: the new one.
            prior: see ``source``.
        """
        return candidates(self.network, self.run.config, task.spec, self.source(prior))

    def rank(self, entrants: Sequence[Entrant[Candidate]]) -> list[Entrant[Candidate]]:
        """Return candidates that have raced, the best first."""
        return ranked(entrants)

    def best(self, entrants: Sequence[Entrant[Candidate]], number: int) -> list[Entrant[Candidate]]:
        """Return those that go on: the best, and with them at least one that reuses no path.

        What reuses a path begins ahead of modules that have learned nothing yet.
        """
        ordered = self.rank(entrants)
        if number == 1:
            return ordered[:1]
        fitted = [entrant for entrant in ordered if entrant.candidate.kind in self.fitted]
        trained = [entrant for entrant in ordered if entrant not in fitted]
        chosen, new = trained[:number], [e for e in trained if not e.candidate.source]
        if new and all(entrant.candidate.source for entrant in chosen):
            chosen[-1] = new[0]
        return chosen + fitted

    def decide(self, task: str) -> RaceOutcome:
        """Return what a new task gets; the run is as it was.

        Args:
            task: its name. The tasks before it are frozen.
        """
        race, experience = Race(self.run, task, self.price), self.experience
        every, why = related(race, self.candidates(race.task, race.prior), self.orders)
        remaining = entrants = [race.enter(each) for each in every]
        length = experience.stop - experience.start
        for divisor, keep in self.rounds or ((None, 1),):
            for entrant in remaining:
                steps = -(-length // divisor) if divisor else 0
                race.advance(entrant, steps, train=entrant.candidate.kind not in self.fitted)
            remaining = self.best(remaining, keep)
        winner = remaining[0]
        record = race.record(entrants, winner, **why)
        start = race.start.timers.train_seconds
        seconds = sum(entrant.state.timers.train_seconds - start for entrant in entrants)
        return RaceOutcome(winner, race.enter(winner.candidate), record, seconds)

    def begin_experience(self) -> list[TopologyChange]:
        run, new, timers = self.run, self.new_heads, self.run.state.timers
        if not new:
            with run.separate_rng():
                return self.add_tasks()
        task = next(n for n in self.experience.tasks if run.tasks[n].head_name == new[0])
        for change in freeze_tasks(self.network, self.network.adapters):
            on_topology_change(run, change)
        with interruptible():
            outcome = self.decide(task)
            with run.having(outcome.untrained.state):
                untrained = run.score_untrained(task)
        chosen = outcome.untrained if self.restarts else outcome.winner
        run.take_over(chosen.state)
        torch.set_rng_state(chosen.rng)
        run.state.scores.untrained[task] = untrained
        run.state.timers.train_seconds = timers.train_seconds + outcome.seconds
        self.record(outcome.record)
        return []  # the run has followed all changes

    def before_step(self) -> list[TopologyChange]:
        run, budget = self.run, self.budget
        grows = budget.grows(self.experience, run.step)
        prunes = budget.prunes(self.experience, run.step)
        if not (grows or prunes) or not run.active_tasks:
            return []
        (task,) = run.active_tasks
        rng = torch.get_rng_state()
        try:
            with interruptible():
                outcome = self.act_within(task, grows)
        except StopRequested:  # the run is saved as it is now
            torch.set_rng_state(rng)
            raise
        if outcome:
            run.take_over(outcome.winner.state)
            torch.set_rng_state(outcome.winner.rng)
            self.record(outcome.record)
        return []  # the run has followed all changes

    def act_within(self, task: str, grows: bool) -> Outcome | None:
        """Let the network of a task grow, or else be pruned; the run is as it was."""
        if grows:
            return grow_within(self.run, task, self.price, self.budget.allowance, self.edges)
        settling = self.budget.settling(self.experience)
        return prune_modules(self.run, task, self.harm, settling)

    def rehearse_within(self) -> list[TopologyChange]:
        """Attach modules once; later ones that are over the budget do not race."""
        if not self.budget.every:
            return []
        (task,) = self.experience.tasks
        return attach_and_connect(self.network, self.run, task)

    def rehearse_begin(self) -> list[TopologyChange]:
        """Build every candidate, and give the network the largest one."""
        new, network, config = self.new_heads, self.network, self.run.config
        if not new:
            return self.add_tasks()
        if len(new) > 1:
            raise UserError(
                f"'{new[0]}' and '{new[1]}' are both new; growth.when '{config.growth.when}' "
                f"decides for a single new task in an experience."
            )
        (head,) = new
        task = next(task for task in self.run.tasks.values() if task.head_name == head)
        changes = freeze_tasks(network, network.adapters)
        heads = reusable(network, task.spec)
        prior = dict.fromkeys(heads, 1.0) | dict.fromkeys(heads[-1:], 0.0)
        sizes = dict[Candidate, int]()
        for candidate in self.candidates(task, prior):
            copied = deepcopy(network)
            apply(candidate, copied, config, self.shapes, head)
            sizes[candidate] = count_parameters(copied)
        largest = max(sizes, key=sizes.__getitem__)
        return changes + apply(largest, network, config, self.shapes, head)


def check_single_tasks(run: RunContext) -> None:
    """Raise ``UserError`` if an experience trains several tasks."""
    for experience in run.stream:
        if len(experience.tasks) > 1:
            raise UserError(
                f"growth.every and growth.prune decide for a single task, and "
                f"{' and '.join(experience.tasks[:2])} are trained together; give each an "
                f"experience of its own in 'stream', or leave both options out."
            )


def check_modules(config: Config) -> None:
    """Raise ``UserError`` if the modules of a task cannot be built of the configured ones."""
    growth = config.growth
    where = f"growth.when '{growth.when}'"
    if growth.policy != "frozen":
        raise UserError(f"growth.policy {growth.policy}: {where} freezes older tasks.")
    for end in ("input", "output"):
        if not any(getattr(module, end) for module in growth.modules.values()):
            raise UserError(
                f"growth.modules: {where} builds whole tasks of them; give at least one {end} "
                f"module, as in modules: {{a: {{input: true}}, b: {{output: true}}}}."
            )
    for name, module in growth.modules.items():
        if module.tasks or module.reads:
            raise UserError(
                f"growth.modules.{name}: with {where} a candidate says what a module reads and "
                f"which tasks run it; leave out tasks and reads."
            )
