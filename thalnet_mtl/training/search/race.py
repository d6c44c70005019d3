"""The race of the search: candidates train on the same batches, and the worse ones drop out.

With B steps in the experience all candidates take B/32 steps, the best two of them B/8; the winner
keeps what it has learned and goes on. A race has no checkpoint of its own: a run that is stopped
in it resumes at the begin of the experience and runs the same race again, to the same bits.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search.candidates import Candidate, apply, candidates, reusable
from thalnet_mtl.training.search.prior import Fit, fit_heads
from thalnet_mtl.training.search.reason import reason
from thalnet_mtl.training.state import TrainState
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.topology_changes import on_topology_change

ROUNDS = ((32, 2), (8, 1))  # the steps B / n of a candidate, and how many go on after them
BLOCK = 50  # validation sequences whose mean loss is compared in pairs


@dataclass
class Entrant:
    """A candidate with the state that the run has if it is chosen.

    Args:
        candidate: what the new task gets.
        state: of the run.
        rng: state of the main random stream.
        changes: of the network.
        parameters: their number that is new.
        price: what they count.
        steps: that it has taken.
        losses: of blocks of the validation split, divided by the loss of guessing.
        scores: after every round.
    """

    candidate: Candidate
    state: TrainState
    rng: Tensor
    changes: list[TopologyChange]
    parameters: int
    price: float = 0.0
    steps: int = 0
    losses: Tensor = field(default_factory=lambda: torch.zeros(0))
    scores: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Mean loss relative to guessing, plus the price; lower is better."""
        return float(self.losses.mean()) + self.price


class Race:
    """The choice of what a new task gets.

    Args:
        run: at the begin of the experience of the task, with the earlier tasks frozen.
        task: name of the new task.
    """

    def __init__(self, run: RunContext, task: str):
        self.run, self.task = run, run.tasks[task]
        self.shapes = {each.head_name: each.spec for each in run.tasks.values()}
        self.start = run.state

    def decide(self) -> tuple[Entrant, Entrant, DecisionEntry]:
        """Return the best candidate as it has trained and as it was, and the record of it."""
        run = self.run
        fits = self.fit_heads()
        guess = run.guess(self.task.name, "validation")["loss"]
        prior = {name: fit.loss / guess for name, fit in fits.items()}
        source = min(prior, key=prior.__getitem__, default="")
        entrants = [
            self.enter(candidate, fits)
            for candidate in candidates(run.config, self.task.spec, source)
        ]
        alone = next(e.parameters for e in entrants if e.candidate.kind == "alone")
        for entrant in entrants:
            entrant.price = run.config.growth.price * entrant.parameters / alone
        length = run.experience.stop - run.experience.start
        remaining = entrants
        for divisor, keep in ROUNDS:
            for entrant in remaining:
                self.advance(entrant, -(-length // divisor))
            remaining = ranked(remaining)[:keep]
        (winner,) = remaining
        timers = winner.state.timers
        timers.train_seconds += sum(
            entrant.state.timers.train_seconds - self.start.timers.train_seconds
            for entrant in entrants
            if entrant is not winner
        )
        return winner, self.enter(winner.candidate, fits), self.record(entrants, winner, prior)

    def record(
        self, entrants: Sequence[Entrant], winner: Entrant, prior: Mapping[str, float]
    ) -> DecisionEntry:
        """Return the record of the decision for a candidate."""
        entries = [
            CandidateEntry(
                candidate=str(entrant.candidate),
                parameters=entrant.parameters,
                steps=entrant.steps,
                score=entrant.score,
                price=entrant.price,
                scores=entrant.scores,
                error=None if entrant is winner else standard_error(entrant, winner),
                chosen=entrant is winner,
            )
            for entrant in entrants
        ]
        return DecisionEntry(
            step=self.start.step,
            changes=len(self.start.topology_log),
            experience=self.run.experience.number,
            task=self.task.name,
            about="task",
            reason=reason(entries),
            candidates=entries,
            prior=prior,
        )

    def fit_heads(self) -> dict[str, Fit]:
        """Return heads that are fitted to the earlier paths that the inputs of the task fit."""
        heads = reusable(self.run.network, self.task.spec)
        return fit_heads(self.run.network, self.task, heads, self.run.chunk)

    def enter(self, candidate: Candidate, fits: Mapping[str, Fit]) -> Entrant:
        """Return a candidate on a copy of the state at the begin.

        Where it has the features of an earlier path at first, its head is the one fitted to them.
        """
        run, rng = self.run, torch.get_rng_state()
        before = count_parameters(run.network)
        with self.state(run.copy_state(run)) as state:
            with run.separate_rng():
                changes = apply(candidate, run.network, run.config, self.shapes, self.head)
            for change in changes:
                on_topology_change(run, change)
            if candidate.kind in ("probe", "finetune"):
                head = fits[candidate.source].head
                run.network.adapter(self.head).head.load_state_dict(head.state_dict())
            return Entrant(candidate, state, rng, changes, count_parameters(run.network) - before)

    @property
    def head(self) -> str:
        """Name of the head of the new task."""
        return self.task.head_name

    def advance(self, entrant: Entrant, steps: int) -> None:
        """Train a candidate until it has taken some steps, and score it on validation data."""
        run, rng, begin = self.run, torch.get_rng_state(), time.monotonic()
        torch.set_rng_state(entrant.rng)
        with self.state(entrant.state) as state:
            train_step = TrainStep(run)
            while entrant.steps < steps:
                losses = train_step(StepInputs(next_batches(run), run.learning_rate()))
                state.loss_log[state.step % len(state.loss_log)] = losses
                state.step += 1
                entrant.steps += 1
            state.timers.train_seconds += time.monotonic() - begin
            entrant.losses = self.losses()
            entrant.scores.append(entrant.score)
        entrant.rng = torch.get_rng_state()
        torch.set_rng_state(rng)

    @contextmanager
    def state(self, state: TrainState) -> Iterator[TrainState]:
        """Let the run have another state within a context."""
        before = self.run.state
        self.run.take_over(state)
        try:
            yield state
        finally:
            self.run.take_over(before)

    @torch.no_grad()
    def losses(self) -> Tensor:
        """Return the losses of blocks of the validation split, relative to that of guessing."""
        run, network, task = self.run, self.run.network, self.task
        batches = task.iterate("validation", BLOCK, run.chunk)
        losses, state = [], None
        with evaluation_mode(network):
            for batch in islice(batches, run.config.evaluate.batches or None):
                state = None if batch.starts_sequence else state
                outputs, state = network(self.head, batch.xs, state, batch.lengths)
                losses.append(task.loss(outputs, batch).double())
        return torch.stack(losses).cpu() / run.guess(task.name, "validation")["loss"]


def ranked(entrants: Sequence[Entrant]) -> list[Entrant]:
    """Return candidates, the best first. A tie goes to fewer new parameters.

    Two are tied if their scores differ by at most the standard error of the mean difference of
    their losses, block by block. A candidate whose loss is not finite is the last.
    """
    rest, order = list(entrants), list[Entrant]()
    while rest:
        best = min(rest, key=lambda e: e.score if torch.isfinite(e.losses).all() else torch.inf)
        tied = [e for e in rest if e is best or e.score - best.score <= standard_error(e, best)]
        order.append(min(tied, key=lambda e: (e.parameters, e.score)))
        rest.remove(order[-1])
    return order


def standard_error(first: Entrant, second: Entrant) -> float:
    """Return the standard error of the mean difference of two candidates' losses."""
    difference = first.losses - second.losses
    return float(difference.std() / len(difference) ** 0.5) if len(difference) > 1 else 0.0
