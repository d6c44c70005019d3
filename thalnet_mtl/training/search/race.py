"""The race of the search: candidates train on the same batches, and the worse ones drop out.

A race has no checkpoint of its own: a run that is stopped in it resumes at the begin of the
experience and runs the same race again, to the same bits.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search.candidates import Candidate, apply, reusable
from thalnet_mtl.training.search.prior import MORE_SAMPLES, Fit, fit_heads, has_orders
from thalnet_mtl.training.search.reason import reason
from thalnet_mtl.training.search.warm_up import WARM_UP, Entries, larger_steps
from thalnet_mtl.training.state import NOT_TRAINED, TrainState
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.topology_changes import on_topology_change

BLOCK = 50  # at most so many validation sequences have their mean loss compared in pairs,
BLOCKS = 20  # and fewer where there would be fewer blocks than that


C = TypeVar("C")  # the type of a candidate


@dataclass(eq=False)
class Entrant(Generic[C]):
    """A candidate with the state that the run has if it is chosen.

    Args:
        candidate: what the new task gets.
        state: of the run.
        rng: state of the main random stream.
        changes: of the network.
        parameters: their number that is new.
        price: what they count.
        steps: that it has taken.
        skipped: steps of the run that it had not to take.
        losses: of blocks of the validation split, divided by the loss of guessing.
        scores: after every round.
        warm_up: entries of parameters that take ``WARM_UP`` times larger steps.
    """

    candidate: C
    state: TrainState
    rng: Tensor
    changes: list[TopologyChange]
    parameters: int
    price: float = 0.0
    steps: int = 0
    skipped: int = 0
    losses: Tensor = field(default_factory=lambda: torch.zeros(0))
    scores: list[float] = field(default_factory=list)
    warm_up: Entries = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean loss relative to guessing, plus the price; lower is better."""
        return float(self.losses.mean()) + self.price


class Race:
    """A comparison of candidates for a new task, each on a copy of the state of a run.

    Args:
        run: at the begin of the experience of the task, with the earlier tasks frozen.
        task: name of the new task.
        price: of as many parameters as the task alone would get, in losses of guessing.
    """

    def __init__(self, run: RunContext, task: str, price: float = 0.0):
        self.run, self.task, self.price = run, run.tasks[task], price
        self.shapes = {each.head_name: each.spec for each in run.tasks.values()}
        self.start = run.state
        self._heads_of_paths = dict[str, dict[str, Tensor]]()

    def record(
        self, entrants: Sequence[Entrant[Any]], winner: Entrant[Any], **fields: Any
    ) -> DecisionEntry:
        """Return the record of the decision for a candidate, with other values of some fields."""
        rivals = [e for e in entrants if e.state.step == winner.state.step and e is not winner]
        entries = [
            CandidateEntry(
                candidate=str(entrant.candidate),
                parameters=entrant.parameters,
                steps=entrant.steps,
                score=entrant.score,
                price=entrant.price,
                scores=entrant.scores,
                error=standard_error(entrant, winner) if entrant in rivals else None,
                chosen=entrant is winner,
            )
            for entrant in entrants
        ]
        record = DecisionEntry(
            step=self.start.step,
            changes=len(self.start.topology_log),
            experience=self.run.experience.number,
            task=self.task.name,
            about="task",
            reason=reason(entries),
            candidates=entries,
            skipped=winner.skipped,
            prior=self.prior,
        )
        return replace(record, **fields)

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """Heads that are fitted to the earlier paths that the inputs of the task fit."""
        heads = reusable(self.run.network, self.task.spec)
        return fit_heads(self.run.network, self.task, heads, self.run.chunk)

    def head_of_path(self, source: str) -> dict[str, Tensor]:
        """Return the weights of a head that is fitted to an earlier path, on more sequences."""
        if source not in self._heads_of_paths:
            run = self.run
            fits = fit_heads(run.network, self.task, [source], run.chunk, MORE_SAMPLES)
            self._heads_of_paths[source] = fits[source].head.state_dict()
        return self._heads_of_paths[source]

    @cached_property
    def prior(self) -> dict[str, float]:
        """By head, the validation loss with the fitted head as a share of that of guessing."""
        return {head: fit.loss / self.guess for head, fit in self.fits.items()}

    @property
    def has_orders(self) -> bool:
        """Whether the inputs of the task have enough orders."""
        return has_orders(self.task)

    def prior_of_orders(self, source: str, number: int) -> list[float]:
        """Return the prior of a path for inputs in some other orders, with the same decay."""
        run, decays = self.run, [self.fits[source].decay]
        fits = [
            fit_heads(run.network, self.task, [source], run.chunk, decays=decays, order=order)
            for order in range(1, 1 + number)
        ]
        return [fit[source].loss / self.guess for fit in fits]

    @cached_property
    def guess(self) -> float:
        """The loss of guessing."""
        return self.run.guess(self.task.name, "validation")["loss"]

    @cached_property
    def parameters_alone(self) -> int:
        """The number of parameters that a task with modules of its own has."""
        return self.copy_with(Candidate("alone"))[2]

    def enter(self, candidate: Candidate) -> Entrant[Candidate]:
        """Return a candidate on a copy of the state at the begin.

        Where it has the features of an earlier path at first, its head is the one fitted to them.
        """
        state, changes, parameters = self.copy_with(candidate)
        price = self.price * parameters / self.parameters_alone
        if candidate.kind in ("probe", "bottom", "finetune"):
            head = state.network.adapter(self.head).head
            head.load_state_dict(self.head_of_path(candidate.source))
        return Entrant(candidate, state, torch.get_rng_state(), changes, parameters, price)

    def copy_with(self, candidate: Candidate) -> tuple[TrainState, list[TopologyChange], int]:
        """Return a copy of the state with a candidate, the changes, and the new parameters."""
        return changed_copy(
            self.run,
            lambda network: apply(candidate, network, self.run.config, self.shapes, self.head),
        )

    @property
    def head(self) -> str:
        """Name of the head of the new task."""
        return self.task.head_name

    def advance(self, entrant: Entrant[Any], steps: int, train: bool = True) -> None:
        """Train a candidate until it has taken some steps, and score it on validation data.

        Without ``train`` its state gets to that step as it is.
        """
        run, rng, begin = self.run, torch.get_rng_state(), time.monotonic()
        torch.set_rng_state(entrant.rng)
        with run.having(entrant.state) as state:
            train_step = TrainStep(run)
            if not train:
                skip_steps(run, steps - entrant.skipped)
                entrant.skipped = steps
            while train and entrant.steps < steps:
                inputs = StepInputs(next_batches(run), self.learning_rate(entrant, steps))
                with larger_steps(run.network, entrant.warm_up, WARM_UP):
                    losses = train_step(inputs)
                state.loss_log[state.step % len(state.loss_log)] = losses
                state.step += 1
                entrant.steps += 1
            state.timers.train_seconds += time.monotonic() - begin
            entrant.losses = self.losses()
            entrant.scores.append(entrant.score)
        entrant.rng = torch.get_rng_state()
        torch.set_rng_state(rng)

    def learning_rate(self, entrant: Entrant[Any], steps: int) -> float:
        """Return the rate of the next step of a candidate that is to take some: that of the run."""
        return self.run.learning_rate()

    @torch.no_grad()
    def losses(self) -> Tensor:
        """Return the losses of blocks of the validation split, relative to that of guessing."""
        run, network, task = self.run, self.run.network, self.task
        options, sequences = run.config.evaluate, task.batches_per_epoch("validation", 1, run.chunk)
        if options.batches:
            sequences = min(sequences, options.batches * options.batch)
        block = max(1, min(BLOCK, sequences // BLOCKS))
        batches = task.iterate("validation", block, run.chunk)
        losses, state = [], None
        with evaluation_mode(network):
            for batch in islice(batches, -(-sequences // block)):
                state = None if batch.starts_sequence else state
                outputs, state = network(self.head, batch.xs, state, batch.lengths)
                losses.append(task.loss(outputs, batch).double())
        return torch.stack(losses).cpu() / self.guess


def skip_steps(run: RunContext, steps: int) -> None:
    """Go on by some steps without training."""
    state = run.state
    for _ in range(steps):
        state.loss_log[state.step % len(state.loss_log)] = NOT_TRAINED
        state.step += 1


def changed_copy(
    run: RunContext, act: Callable[[Network], list[TopologyChange]]
) -> tuple[TrainState, list[TopologyChange], int]:
    """Return a copy of the state of a run after changes of its network, and how it has grown.

    Args:
        run: stays as it is.
        act: changes a network, and returns how.
    """
    before = count_parameters(run.network)
    with run.having(run.copy_state(run)) as state:
        with run.separate_rng():
            changes = act(run.network)
        for change in changes:
            on_topology_change(run, change)
        return state, changes, count_parameters(run.network) - before


def ranked(entrants: Sequence[Entrant[C]]) -> list[Entrant[C]]:
    """Return candidates, the best first. A tie goes to fewer new parameters.

    Two are tied if their scores differ by at most the standard error of the mean difference of
    their losses, block by block. A candidate whose loss is not finite is the last.
    """
    rest, order = list(entrants), list[Entrant[C]]()
    while rest:
        best = min(rest, key=lambda e: e.score if torch.isfinite(e.losses).all() else torch.inf)
        tied = [e for e in rest if e is best or e.score - best.score <= standard_error(e, best)]
        order.append(min(tied, key=lambda e: (e.parameters, e.score)))
        rest.remove(order[-1])
    return order


def standard_error(first: Entrant[Any], second: Entrant[Any]) -> float:
    """Return the standard error of the mean difference of two candidates' losses."""
    difference = first.losses - second.losses
    return float(difference.std() / len(difference) ** 0.5) if len(difference) > 1 else 0.0
