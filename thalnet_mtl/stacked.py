"""Several seeds of one small net, trained together: every step is one step of all of them.

Each seed is a run of its own, with its folder, its log and its checkpoints, as if it were alone.
Only the step is shared: parameters and moments of all runs lie in tensors with a leading axis, of
which those of a run are views, and one optimizer moves them all.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from thalnet_mtl.body import map_state
from thalnet_mtl.config import Config, RunError, UserError
from thalnet_mtl.results import finish
from thalnet_mtl.run import OPTIMIZERS, Run, level, prepare
from thalnet_mtl.tasks import Batch
from thalnet_mtl.thalnet import ThalNet
from thalnet_mtl.tracking import RunDirectory, Screen, check_same
from thalnet_mtl.train import (
    Interrupted,
    Steps,
    begin_or_resume,
    loop,
    stop_signals,
    train_step,
)

Request = tuple[dict[str, Batch], float]


def train_stacked(configs: Mapping[Path, Config], screen: Screen) -> None:
    """Train configurations that differ in their seed alone, in their run directories.

    Raises:
        UserError: something about them cannot be stacked.
        RunError: of the runs that failed; the others are finished.
        Interrupted: as ``train``, all are saved.
    """
    check(next(iter(configs.values())))
    open_ones = {}
    for folder, config in configs.items():
        if (folder / "result.json").exists():
            check_same(folder, config)
        else:
            open_ones[folder] = config
    if not open_ones:
        return
    with ExitStack() as closing:
        seats = []
        chorus = Chorus(screen, [folder.name for folder in open_ones])
        for folder, config in open_ones.items():
            run, directory = prepare(config, screen.fetch), RunDirectory(folder, config)
            closing.callback(directory.close)
            seats.append(Seat(folder.name, run, directory, Voice(chorus, folder.name)))
            begin_or_resume(run, directory, seats[-1].voice)
        step, total = max(seat.run.step for seat in seats), seats[0].run.total
        title = f"{len(seats)} seeds"
        with screen.progress(title, step, total), stop_signals(screen) as stopped:
            for seat in seats:
                seat.steps = loop(seat.run, seat.directory, seat.voice, stopped)
            advance(seats, chorus)
        for seat in seats:
            if isinstance(seat.end, Interrupted):
                raise seat.end
        for seat in seats:
            if seat.end is None:
                finish(seat.run, seat.directory)
    ends = [f"{seat.name}: {seat.end}" for seat in seats if seat.end]
    if ends:
        what = f"{len(ends)} of {len(seats)} seeds failed, the others are done"
        raise RunError(f"{what}. {' '.join(ends)}")


def check(config: Config) -> None:
    """Raise unless runs of this configuration take the same steps."""
    options = config.train
    for what, used in {
        f"model.body {config.model.body}": config.model.body != "thalnet",
        f"train.combine {options.combine}": options.combine != "fixed",
        f"train.draw {options.draw}": bool(options.draw),
        f"train.patience {options.patience}": bool(options.patience),
        "changes": bool(config.changes),
        f"train.ops {options.ops}": options.ops not in ("auto", "cpp", "batched"),
    }.items():
        if used:
            raise UserError(f"--stacked: {what} cannot be stacked; leave --stacked away.")


@dataclass
class Seat:
    """One of the runs, and what its loop asks for."""

    name: str
    run: Run
    directory: RunDirectory
    voice: "Voice"
    steps: Steps = field(init=False)
    request: Request = field(init=False)
    end: RunError | None = None  # what ended it early

    def turn(self, take: Callable[[], Request]) -> bool:
        """Get the next request; whether there is one."""
        try:
            self.request = take()
        except StopIteration:
            return False
        except RunError as end:
            self.end = end
            return False
        return True

    def first(self, step: int) -> Request:
        """The request for a step; a run that was saved a little earlier takes some alone."""
        request = next(self.steps)
        while self.run.step < step:
            request = self.steps.send(train_step(self.run, *request))
        return request


def advance(seats: Sequence[Seat], chorus: "Chorus") -> None:
    """Take the steps of all runs, together from where the last of them was saved."""
    latest = max(seat.run.step for seat in seats)
    stacked = [seat for seat in seats if seat.turn(partial(seat.first, latest))]
    if not stacked:
        return
    stack, going = Stack([seat.run for seat in stacked]), list(stacked)
    while going:
        chorus.names = [seat.name for seat in going]
        losses = stack.step([seat.request for seat in stacked])  # of ended ones, for nothing
        for seat, loss in zip(stacked, losses, strict=True):
            if seat in going and not seat.turn(partial(seat.steps.send, loss)):
                going.remove(seat)
                if seat.end and not isinstance(seat.end, Interrupted):
                    seat.voice.line(f"{seat.end} The other seeds go on.")


class Stack:
    """The networks of several runs, and one optimizer for all."""

    def __init__(self, runs: Sequence[Run]):
        self.runs, self.template = runs, runs[0].network
        body = self.template.body
        assert isinstance(body, ThalNet)
        config = runs[0].config
        levels = {level(config, self.template, task) for task in runs[0].tasks}
        if levels != {"cpp"}:  # beside it ``torch.vmap`` goes through operations of PyTorch alone
            body.ops = "batched"
        named = [dict(run.network.named_parameters()) for run in runs]
        self.leaves = {
            name: torch.stack([own[name].detach() for own in named]).requires_grad_(
                named[0][name].requires_grad
            )
            for name in named[0]
        }
        for k, own in enumerate(named):
            for name, parameter in own.items():
                parameter.data = self.leaves[name].data[k]
        options = runs[0].config.train
        learned = [leaf for leaf in self.leaves.values() if leaf.requires_grad]
        self.optimizer = OPTIMIZERS[options.optimizer](
            learned, lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.named = named
        self.states: dict[str, Any] = {
            task: tree_map(lambda *parts: torch.stack(parts), *(run.states[task] for run in runs))
            for task in runs[0].states
        }
        self.gather()

    def gather(self) -> None:
        """Moments of the runs, side by side."""
        for name, leaf in self.leaves.items():
            own = [run.optimizer.state.get(at[name], {}) for run, at in self._pairs()]
            if all(own):
                self.optimizer.state[leaf] = {
                    key: value.clone() if key == "step" else torch.stack([of[key] for of in own])
                    for key, value in own[0].items()
                }
        self.share()

    def share(self) -> None:
        """Give every run its part of the moments, as views."""
        for name, leaf in self.leaves.items():
            for k, (run, at) in enumerate(self._pairs()):
                for key, value in self.optimizer.state.get(leaf, {}).items():
                    run.optimizer.state[at[name]][key] = value if key == "step" else value[k]

    def _pairs(self) -> list[tuple[Run, dict[str, nn.Parameter]]]:
        return list(zip(self.runs, self.named, strict=True))

    def step(self, requests: Sequence[Request]) -> list[Tensor]:
        """One optimizer step of all; returns the losses of every run, by task."""
        run, options = self.runs[0], self.runs[0].config.train
        losses = torch.stack(
            [self._losses(name, [batches[name] for batches, _ in requests]) for name in run.tasks]
        )
        weights = losses.new_tensor([task.weight for task in run.config.named_tasks.values()])
        self.optimizer.zero_grad()
        (weights @ losses).sum().backward()
        if options.clip:
            self._clip(options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = requests[0][1]
        fresh = not self.optimizer.state
        self.optimizer.step()
        if fresh:
            self.share()
        return list(losses.detach().unbind(1))

    def _losses(self, task: str, batches: Sequence[Batch]) -> Tensor:
        """The loss of every run on its own batch."""
        run, network = self.runs[0], self.template
        xs = torch.stack([batch.xs for batch in batches])
        ys = torch.stack([batch.ys for batch in batches])
        state = None if batches[0].fresh else self.states.get(task)
        if state is None:
            state = map_state(
                lambda part: part.expand(len(batches), *part.shape),
                network.initial(task, xs.shape[1]),
            )

        def forward(weights: dict[str, Tensor], xs: Tensor, state: Any) -> tuple[Tensor, Any]:
            return torch.func.functional_call(network, weights, (task, xs, state))

        bf16 = run.config.train.precision == "bf16"
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits, state = torch.vmap(forward)(self.leaves, xs, state)
        if run.tasks[task].interface.target == "every":
            self.states[task] = map_state(Tensor.detach, state)
            for k, other in enumerate(self.runs):
                other.states[task] = map_state(partial(torch.select, dim=0, index=k), state)
        each = F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten(), reduction="none")
        return each.unflatten(0, (len(batches), -1)).mean(1)

    def _clip(self, most: float) -> None:
        """As ``clip_grad_norm_``, by run."""
        grads = [leaf.grad for leaf in self.leaves.values() if leaf.grad is not None]
        square = torch.stack([grad.reshape(len(grad), -1).square().sum(1) for grad in grads]).sum(0)
        factor = (most / (square.sqrt() + 1e-6)).clamp(max=1)
        for grad in grads:
            grad.mul_(factor.view(-1, *[1] * (grad.ndim - 1)))


class Chorus:
    """One screen for several runs."""

    def __init__(self, screen: Screen, names: Sequence[str]):
        self.screen, self.names = screen, list(names)
        self.losses: dict[str, Mapping[str, float]] = {}

    def status(self, name: str, step: int, losses: Mapping[str, float]) -> None:
        """The mean loss over all runs, when the last one has told its own."""
        self.losses[name] = losses
        if self.losses.keys() >= set(self.names):
            known = [self.losses[name] for name in self.names]
            means = {task: sum(of[task] for of in known) / len(known) for task in losses}
            self.screen.status(step, means)
            self.losses.clear()


class Voice(Screen):
    """The screen of one of them: its lines by name."""

    def __init__(self, chorus: Chorus, name: str):
        super().__init__(chorus.screen.console)
        self.chorus, self.name = chorus, name

    def line(self, text: str) -> None:
        self.chorus.screen.line(f"{self.name}  {text.strip()}")

    def advance(self, step: int) -> None:
        self.chorus.screen.advance(step)

    def status(self, step: int, losses: Mapping[str, float]) -> None:
        self.chorus.status(self.name, step, losses)
