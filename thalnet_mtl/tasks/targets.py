"""The kinds of target: one class, several labels, or numbers, for a sequence or for every step.

A kind says which targets are missing, which values are valid, which constant answer is the best,
and what the outputs of a head say as a distribution. It does not know the loss.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.errors import UserError, unknown

WRONG = 30.0  # a logit of certainty
MISSING_CLASS = -100  # the default ``ignore_index`` of PyTorch


class Target:
    """A kind of target.

    Outputs of a head are (…, outputs), where … is (batch,) or (batch, time).
    """

    name: ClassVar[str]
    loss: ClassVar[str]  # the name of its default loss
    metrics: ClassVar[tuple[str, ...]]  # the names of its default metrics
    missing: ClassVar[float]  # stands for a target that is not known
    for_text: ClassVar[str] = "give numbers"  # what to do about targets that are words

    def present(self, ys: Tensor) -> Bool[Tensor, " *ys"]:
        """Return which targets are there; the others are missing, or after the end."""
        raise NotImplementedError

    def shaped(self, ys: Tensor, outputs: int, every_step: bool, where: str) -> Tensor:
        """Return the targets of N sequences with a last axis of ``outputs``, which is 1 if missing.

        Classes have no such axis.
        """
        raise NotImplementedError

    def checked(self, ys: Tensor, outputs: int, where: str) -> Tensor:
        """Return targets as they are stored.

        Args:
            ys: numbers of any type: classes (N,) or (N, time), others (…, outputs).
            outputs: width of the head.
            where: task and split, for errors.

        Raises:
            UserError: a target is not valid; the message names the row.
        """
        raise NotImplementedError

    def constant(self, ys: Tensor, outputs: int) -> Float[Tensor, " outputs"]:
        """Return the outputs of the best constant answer: frequencies as logits, or means."""
        raise NotImplementedError

    def wrong(self, ys: Tensor, constant: Tensor) -> Float[Tensor, "*answers outputs"]:
        """Return outputs that are wrong for every target, or constant where no answer is wrong.

        Args:
            ys: the targets.
            constant: (outputs,) the best constant answer.
        """
        return constant.expand(*ys.shape[:-1], -1).clone()

    def answers(self, outputs: Tensor) -> Tensor:
        """Return what outputs say, in the form of targets: the likeliest class, labels, numbers."""
        raise NotImplementedError

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Draw targets from the distribution that outputs describe; ``generator`` is on the CPU."""
        raise NotImplementedError

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return how far outputs are from those of a teacher, in their shape (…, outputs)."""
        raise NotImplementedError


class ClassTarget(Target):
    """A class among ``outputs`` ones, given as an integer; −100 is missing. Outputs are logits."""

    name = "class"
    loss = "cross_entropy"
    metrics = ("accuracy",)
    missing = MISSING_CLASS
    for_text = "number the classes from 0"

    def present(self, ys: Tensor) -> Tensor:
        return ys != MISSING_CLASS

    def shaped(self, ys: Tensor, outputs: int, every_step: bool, where: str) -> Tensor:
        return ys[..., 0] if ys.ndim == 2 + every_step and ys.shape[-1] == 1 else ys

    def checked(self, ys: Tensor, outputs: int, where: str) -> Tensor:
        if ys.is_floating_point():
            if row := first_row(~((ys == ys.round()) & ys.isfinite())):
                raise UserError(
                    f"{where}: target {row.value(ys)} of row {row} is no class. A class is a "
                    f"whole number below {outputs}; a missing one is {MISSING_CLASS}. For "
                    f"regression set the target to 'numbers'."
                )
            ys = ys.long()
        if row := out_of_range(ys, outputs, MISSING_CLASS):
            raise UserError(
                f"{where}: class {row.value(ys)} of row {row} is not allowed; classes must lie in "
                f"0 … {outputs - 1}."
            )
        return ys

    def constant(self, ys: Tensor, outputs: int) -> Tensor:
        counts = torch.bincount(ys[self.present(ys)].flatten().long(), minlength=outputs)
        return (counts + 1.0).log() - (counts.sum() + outputs).log()

    def wrong(self, ys: Tensor, constant: Tensor) -> Tensor:
        targets = ys.long().clamp(min=0)[..., None]
        return constant.expand(*ys.shape, -1).scatter(-1, targets, -WRONG)

    def answers(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        probabilities = outputs.detach().flatten(0, -2).softmax(-1).cpu()
        classes = torch.multinomial(probabilities, 1, generator=generator)
        return classes.view(outputs.shape[:-1]).to(outputs.device)

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return the terms of T² KL(p_teacher ‖ p) at a temperature T, one for each class."""
        student, teacher = ((part / temperature).log_softmax(-1) for part in (outputs, teacher))
        return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True)


class FloatTarget(Target):
    """Targets with a last axis of ``outputs``, one number each; NaN is missing."""

    missing = float("nan")

    def present(self, ys: Tensor) -> Tensor:
        return ~ys.isnan()

    def shaped(self, ys: Tensor, outputs: int, every_step: bool, where: str) -> Tensor:
        ys = floats(ys)
        if outputs == 1 and ys.ndim == 1 + every_step:
            return ys[..., None]
        if ys.ndim < 2 or ys.shape[-1] != outputs:
            raise UserError(
                f"{where}: targets have shape {tuple(ys.shape)}; the last axis must hold {outputs} "
                f"{self.name}."
            )
        return ys


class LabelsTarget(FloatTarget):
    """Several labels at once, each 0 or 1; NaN is missing. Outputs are a logit for each label."""

    name = "labels"
    loss = "binary_cross_entropy"
    metrics = ("f1",)

    def checked(self, ys: Tensor, outputs: int, where: str) -> Tensor:
        if row := first_row(~((ys == 0) | (ys == 1) | ys.isnan())):
            raise UserError(
                f"{where}: label {row.value(ys)} of row {row} is not allowed; a label is 0 or 1, a "
                f"missing one NaN."
            )
        return ys

    def constant(self, ys: Tensor, outputs: int) -> Tensor:
        ys = ys.reshape(-1, outputs)
        positive = ys.nansum(0)
        negative = self.present(ys).sum(0) - positive
        return ((positive + 1.0) / (negative + 1.0)).log()

    def wrong(self, ys: Tensor, constant: Tensor) -> Tensor:
        return (WRONG * (1 - 2 * ys)).nan_to_num(0)

    def answers(self, outputs: Tensor) -> Tensor:
        return (outputs > 0).to(outputs)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        probabilities = outputs.detach().sigmoid().cpu()
        return torch.bernoulli(probabilities, generator=generator).to(outputs.device)

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return T² KL(p_teacher ‖ p) at a temperature T for each label."""
        student, teacher = outputs / temperature, (teacher / temperature).sigmoid()
        cross = F.binary_cross_entropy_with_logits(student, teacher, reduction="none")
        entropy = F.binary_cross_entropy(teacher, teacher, reduction="none")
        return temperature**2 * (cross - entropy)


class NumbersTarget(FloatTarget):
    """Real numbers, one or several; NaN is missing. Outputs are the numbers themselves.

    As a distribution, outputs ŷ stand for N(ŷ, 1/2), whose −log p is (y − ŷ)² and a constant.
    """

    name = "numbers"
    loss = "mse"
    metrics = ("rmse", "mae")

    def checked(self, ys: Tensor, outputs: int, where: str) -> Tensor:
        if row := first_row(ys.isinf()):
            raise UserError(f"{where}: the target of row {row} is infinite; a missing one is NaN.")
        return ys

    def constant(self, ys: Tensor, outputs: int) -> Tensor:
        return ys.reshape(-1, outputs).double().nanmean(0).to(ys.dtype)

    def answers(self, outputs: Tensor) -> Tensor:
        return outputs

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(outputs.shape, generator=generator).to(outputs)
        return outputs.detach() + 0.5**0.5 * noise

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return the squared difference to the teacher; numbers have no temperature."""
        return (outputs - teacher).square()


TARGETS: dict[str, Target] = {
    target.name: target for target in (ClassTarget(), LabelsTarget(), NumbersTarget())
}


def target_of(name: str) -> Target:
    """Return the kind of target of a name; a UserError lists all."""
    if name not in TARGETS:
        raise unknown("kind of target", name, TARGETS)
    return TARGETS[name]


class Row(int):
    """The number of a row, from 0, with the value that is found there."""

    place: tuple[int, ...]

    def value(self, ys: Tensor) -> str:
        """Return the value of a tensor at the place, as text."""
        return f"{ys[self.place].item():g}"

    def __bool__(self) -> bool:
        return True


def first_row(invalid: Tensor) -> Row | None:
    """Return the first row in which a mask (N, …) is true, None if there is none."""
    if not invalid.any():
        return None
    place = tuple(invalid.nonzero()[0].tolist())
    row = Row(place[0])
    row.place = place
    return row


def out_of_range(ys: Tensor, count: int, missing: int = 0) -> Row | None:
    """Return the first row with a number that is neither in 0 … count − 1 nor ``missing``."""
    if not ys.numel() or 0 <= int(ys.min()) <= int(ys.max()) < count:
        return None
    wide = ys.long()  # a comparison in uint8 would wrap
    return first_row(((wide < 0) | (wide >= count)) & (wide != missing))


def floats(ys: Tensor) -> Tensor:
    """Return numbers in the default floating-point type."""
    return ys.to(torch.get_default_dtype())
