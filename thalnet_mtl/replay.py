"""Strategies that keep sequences of earlier experiences and see them again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.config import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.run import Run
from thalnet_mtl.strategy import Naive, learning
from thalnet_mtl.stream import Experience
from thalnet_mtl.tasks import Batch

Kept = dict[str, list[Tensor]]  # by task: inputs, targets, random keys in rising order
FAR = 1_000_000  # an epoch that no run reaches
MARGIN = 0.5  # γ of GEM, as its authors' code
RIDGE = 1e-10  # added to the diagonal of GGᵀ in GEM, where that is 1


class Memory(Naive):
    """Sequences of earlier experiences, at most ``strategy.memory`` in all, whatever their shape.

    ``reservoir``: every sequence of all training parts so far is as likely to be among them
    (Vitter 1985, by random keys). ``per_class``: as many of each class of each task.
    Text, one class, is kept in chunks, which begin without a state.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.kept: Kept = {}
        shapes = [task.interface for task in run.tasks.values()]
        least = sum(1 if shape.target == "every" else shape.classes for shape in shapes)
        if self.options.choice == "per_class" and self.options.memory < least:
            raise UserError(
                f"strategy.memory {self.options.memory} holds no sequence of each class of each "
                f"task; must be at least {least}."
            )

    def tasks(self, run: Run, batches: Mapping[str, Batch]) -> list[str]:
        return list(self.kept)

    def end(self, run: Run, experience: Experience) -> None:
        room, choice = self.options.memory, CHOICES[self.options.choice]
        # Few of many are of a rare class.
        count = room if choice is reservoir else 20 * room
        generator = torch.Generator().manual_seed(1_000_003 * run.config.train.seed + run.step)
        new = {  # a task that was learned before has had its chance
            task: drawn(run, task, count, generator)
            for task in experience.tasks
            if task not in self.kept
        }
        self.kept = choice(self.kept | new, room)

    def older(self, run: Run) -> list[str]:
        """Tasks of which something is kept, and learns, but that are not learned now."""
        now = run.experience.tasks
        return [
            task
            for task, (*_, keys) in self.kept.items()
            if len(keys) and task in run.awake and task not in now
        ]

    def recalled(self, run: Run, tasks: Sequence[str]) -> Tensor:
        """The mean loss of some sequences of some tasks, a fixed choice for every step."""
        sizes = [len(self.kept[task][2]) for task in tasks]
        count = min(run.config.train.batch, sum(sizes))
        generator = torch.Generator().manual_seed(1_000_003 * run.config.train.seed + run.step)
        chosen = torch.randperm(sum(sizes), generator=generator)[:count]
        total: list[Tensor] = []
        for k, task in enumerate(tasks):
            own = chosen - sum(sizes[:k])
            own = own[(own >= 0) & (own < sizes[k])]
            if len(own):
                xs, ys = (part[own.to(part.device)] for part in self.kept[task][:2])
                logits, _ = run.network(run.tasks[task].port, xs)
                loss = F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten())
                total.append(loss * (len(own) / count))
        return torch.stack(total).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        for task, (xs, ys, keys) in state["kept"].items():
            self.kept[task] = [xs.to(run.device), ys.to(run.device), keys.cpu()]


def drawn(run: Run, task: str, count: int, generator: torch.Generator) -> list[Tensor]:
    """Sequences of the training part with the least of random keys, in the order of these."""
    options, source = run.config.train, run.tasks[task]
    whole = source.steps("train", 1, options.chunk)
    keys = torch.rand(whole, generator=generator, dtype=torch.float64).sort().values[:count]
    # One by one: sequences of a batch lie at fixed places of a text, and some are in no batch.
    places, order = torch.randperm(whole, generator=generator)[: len(keys)].sort()
    batches = [
        source.batch(FAR * whole + place, 1, options.chunk, options.seed)
        for place in places.tolist()
    ]
    back = order.argsort()
    xs, ys = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    return [xs[back.to(xs.device)], ys[back.to(ys.device)], keys]


def reservoir(kept: Kept, room: int) -> Kept:
    """Those with the least keys of all."""
    keys = torch.cat([parts[2] for parts in kept.values()]).sort().values[:room]
    return {
        task: [part[parts[2].to(part.device) <= keys[-1]] for part in parts]
        for task, parts in kept.items()
    }


def per_class(kept: Kept, room: int) -> Kept:
    """Those with the least keys of each class of each task."""
    answers = {
        task: parts[1] if parts[1].ndim == 1 else torch.zeros(len(parts[1]), dtype=torch.long)
        for task, parts in kept.items()
    }
    quota = room // sum(len(ys.unique()) for ys in answers.values())
    found: Kept = {}
    for task, parts in kept.items():
        places = [(answers[task] == c).nonzero().flatten() for c in answers[task].unique()]
        chosen = torch.cat([place[:quota] for place in places]).sort().values
        found[task] = [part[chosen.to(part.device)] for part in parts]
    return found


CHOICES = {"reservoir": reservoir, "per_class": per_class}


@register("strategy", "replay")
class Replay(Memory):
    """Experience replay: the loss of this step, and that of ``train.batch`` kept sequences.

    Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019.
    """

    def loss(self, run: Run, batches: Mapping[str, Batch]) -> Tensor | None:
        older = self.older(run)
        return self.recalled(run, older) if older else None


class Projection(Memory):
    """The gradient g of a step, and what of the gradients g_k of kept sequences is added to it.

    All that learns is one vector; what a task does not use has a gradient of zero in it. So may
    heads of older tasks move: they are part of what raises or lowers their loss.
    """

    def together(self, older: list[str]) -> list[list[str]]:
        """Older tasks, by the gradient that they are in."""
        raise NotImplementedError

    def factors(
        self, along: Float[Tensor, " k"], products: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        """v, of g ← g + Σ_k v_k g_k, from ⟨g, g_k⟩ and ⟨g_j, g_k⟩, some of which are below 0."""
        raise NotImplementedError

    def learned(self, run: Run) -> None:
        pairs = [(p, p.grad) for p in learning(run.network).values() if p.grad is not None]
        mine, gradients = [p for p, _ in pairs], [gradient for _, gradient in pairs]
        found = [
            flat(torch.autograd.grad(self.recalled(run, tasks), mine, materialize_grads=True))
            for tasks in self.together(self.older(run))
        ]
        # A loss at its very minimum asks for nothing.
        found = [reference for reference in found if reference.any()]
        if not found:
            return
        references = torch.stack(found)
        along = references @ flat(gradients)
        if (along < 0).any():
            added = self.factors(along, references @ references.T) @ references
            parts = added.split([p.numel() for p in mine])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part.view_as(gradient)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """As one row, in float64: of small gradients squares are very small."""
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


@register("strategy", "agem")
class AGEM(Projection):
    """A-GEM: a gradient that would raise the loss of kept sequences loses that part of it.

    g ← g − (gᵀg_ref / g_refᵀg_ref) g_ref where gᵀg_ref < 0. Chaudhry et al., "Efficient Lifelong
    Learning with A-GEM", ICLR 2019.
    """

    def together(self, older: list[str]) -> list[list[str]]:
        return [older] if older else []

    def factors(
        self, along: Float[Tensor, " k"], products: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        return -along / products.diagonal()


@register("strategy", "gem")
class GEM(Projection):
    """GEM: the nearest gradient that would raise the loss of no older task.

    g ← g + Gᵀv where some ⟨g, g_k⟩ < 0; the g_k are the rows of G, one for every older task, of at
    most ``train.batch`` of its kept sequences, others at every step. v is the solution of
    min ½ vᵀGGᵀv + gᵀGᵀv, v ≥ γ: with γ = 0 a projection, above it old losses shall fall as well.
    Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017.
    """

    def together(self, older: list[str]) -> list[list[str]]:
        return [[task] for task in older]

    def factors(
        self, along: Float[Tensor, " k"], products: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        if not (along.isfinite().all() and products.isfinite().all()):
            return torch.zeros_like(along)  # the loop says that the run diverged
        from quadprog import solve_qp

        # Of unit vectors, as the solver knows no other sizes; the authors add 0.001 to any GGᵀ.
        length = products.diagonal().sqrt()
        square = products / torch.outer(length, length)
        square += RIDGE * torch.eye(len(along)).to(square)  # two tasks may ask for the same
        sought, least = -along / length, MARGIN * length
        size = torch.maximum(sought.abs(), least).max()
        numbers = square, sought / size, torch.eye(len(along)), least / size
        v, *_ = solve_qp(*(part.double().cpu().numpy() for part in numbers))
        return torch.from_numpy(v).to(along) * size / length
