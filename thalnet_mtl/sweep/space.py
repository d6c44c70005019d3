"""The space of a search for settings: a distribution of values for every sampled field.

=============================================  ==================================================
``train.learning_rate=log:1e-4,1e-2``          log-uniform between two ends
``train.dropout=uniform:0,0.5``                uniform between two ends
``model.modules=int:2,6``                      a whole number, both ends included
``model.reading=linear,weight_norm``           one of some values
``ewc:strategy.strength=log:1,1e4``            only where the grid has the value ``ewc``
=============================================  ==================================================
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thalnet_mtl.config.load import closest_flag
from thalnet_mtl.config.yaml_text import parse_flag
from thalnet_mtl.errors import UserError, suggest, unknown
from thalnet_mtl.sweep.plan import check_values

RANGES = ("log", "uniform", "int")
EXPECTED = "expected section.field= and log:low,high, uniform:low,high, int:low,high or value,value"
DIGITS = 4  # significant digits of a sampled number: what a table shows is what was trained


@dataclass(frozen=True)
class Sample:
    """A word of ``--sample``: ``ewc:strategy.strength=log:1,1e4``."""

    arm: str  # value of the grid, or name of a run, that it is for; '' for all of them
    key: str  # section.field
    kind: str  # 'log', 'uniform', 'int' or 'values'
    texts: tuple[str, ...]  # the two ends, or the values

    @property
    def name(self) -> str:
        """Name of the sampled field in the command."""
        return f"{self.arm}:{self.key}" if self.arm else self.key

    @property
    def where(self) -> str:
        """Start of an error line."""
        return f"--sample {self.name}"

    @property
    def text(self) -> str:
        """The distribution as the command gives it, without blanks."""
        values = ",".join(self.texts)
        return values if self.kind == "values" else f"{self.kind}:{values}"


@dataclass(frozen=True)
class Distribution:
    """Values that a field may have; ``values`` are the two ends of a range, or all of them."""

    kind: str
    values: tuple[Any, ...]
    whole: bool = False  # whether a range is one of whole numbers

    def at(self, u: float) -> Any:
        """Return the value at a quantile 0 ≤ u < 1.

        >>> Distribution("log", (1e-4, 1e-2)).at(0.5), Distribution("int", (2, 4), True).at(0.99)
        (0.001, 4)
        """
        if self.kind == "values":
            return self.values[int(u * len(self.values))]
        low, high = self.values
        start, stop = (low - 0.5, high + 0.5) if self.whole else (low, high)
        if self.kind == "log":
            value = math.exp(math.log(start) + u * (math.log(stop) - math.log(start)))
        else:
            value = start + u * (stop - start)
        return self.rounded(value)

    def rounded(self, value: Any) -> Any:
        """Return a number of a range with few digits, or as a whole number, between its ends."""
        if self.kind == "values":
            return value
        low, high = self.values
        number = math.floor(value + 0.5) if self.whole else float(f"{value:.{DIGITS}g}")
        return min(max(number, low), high)


def parse_samples(words: Sequence[str]) -> list[Sample]:
    """Parse the words of ``--sample``.

    Raises:
        UserError: a word is not ``section.field=DISTRIBUTION``, or a field is given twice.
    """
    samples: dict[str, Sample] = {}
    for word in words:
        name, equals, text = word.partition("=")
        arm, _, key = name.rpartition(":")
        if not equals or not re.fullmatch(r"[a-z_]+(\.\w+)+", key):
            close = closest_flag(key)
            hint = f" Did you mean '{close}={text or '…'}'?" if close and close != key else ""
            raise UserError(f"--sample {word}: {EXPECTED}.{hint}")
        sample = Sample(arm, key, *_distribution(word, text))
        if sample.name in samples:
            raise UserError(f"{sample.where} is given twice.")
        samples[sample.name] = sample
    return list(samples.values())


def _distribution(word: str, text: str) -> tuple[str, tuple[str, ...]]:
    """Return the kind of a distribution, and its ends or values as text."""
    kind, colon, ends = text.partition(":")
    kind, where = kind.strip(), f"--sample {word}"
    if not colon or kind not in RANGES:
        kind_is_close = colon and suggest(kind, RANGES)
        if kind_is_close:
            raise UserError(f"{where}: {unknown('distribution', kind, RANGES)}")
        kind, ends = "values", text
    texts = tuple(value.strip() for value in ends.split(","))
    if not all(texts):
        raise UserError(f"{where}: a value is empty.")
    if kind in RANGES and len(texts) != 2:
        raise UserError(f"{where}: {kind} takes two ends, {kind}:low,high, not {len(texts)}.")
    return kind, texts


def distribution_of(sample: Sample, typed: Callable[[Any], Any]) -> Distribution:
    """Return the distribution of a sampled field in the type of the field.

    Args:
        sample: from the command.
        typed: returns a value in the type of the field, or raises ``UserError``.
    """
    where, parsed = sample.where, [parse_flag(text, sample.where) for text in sample.texts]
    if sample.kind == "values":
        try:
            values = [typed(value) for value in parsed]
        except UserError as error:
            numbers = re.fullmatch(r"([-+.\de]+):([-+.\de]+)", sample.text)
            hint = f" Write uniform:{numbers[1]},{numbers[2]} for a range." if numbers else ""
            raise UserError(f"{error}{hint}") from None
        check_values(values, where, sample.texts)
        return Distribution("values", tuple(values))
    for text, value in zip(sample.texts, parsed, strict=True):
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise UserError(f"{where}: expected a number, got '{text}'.")
        if sample.kind == "int" and value != int(value):
            raise UserError(f"{where}: int takes whole numbers, got {text}.")
    low, high = (typed(int(end) if sample.kind == "int" else float(end)) for end in parsed)
    if not _is_number(low):
        raise UserError(f"{where}: {sample.kind} is for numbers; give values: value,value.")
    whole = isinstance(low, int) or sample.kind == "int"
    if sample.kind == "uniform" and whole:
        raise UserError(f"{where}: the field takes whole numbers; write int:{low},{high}.")
    if sample.kind == "log" and low <= 0:
        raise UserError(f"{where}: both ends of log must be above 0, got {sample.texts[0]}.")
    if low >= high:
        raise UserError(f"{where}: the first end must be below the second, got {sample.text}.")
    return Distribution(sample.kind, (low, high), whole)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def samples_for(samples: Sequence[Sample], names: Sequence[str]) -> dict[str, Sample]:
    """Return the samples of an arm by key; one that names the arm replaces one for all arms.

    Args:
        samples: of the command.
        names: of the arm: its values in the grid, and its run.
    """
    general = {sample.key: sample for sample in samples if not sample.arm}
    specific: dict[str, Sample] = {}
    for sample in samples:
        if sample.arm in names and sample.arm:
            if sample.key in specific:
                first, second = specific[sample.key].name, sample.name
                raise UserError(f"--sample {first} and {second} are both for the arm "
                                f"{', '.join(names)}; give one of them.")  # fmt: skip
            specific[sample.key] = sample
    return general | specific


def check_keys(samples: Sequence[Sample], fixed: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise if a field is also given elsewhere, or a sample is for an arm that is not there.

    Args:
        samples: of the command.
        fixed: for fields that are given elsewhere, the option that does.
        names: values of the grid and names of runs that a sample may be for.
    """
    for sample in samples:
        if sample.key == "train.seed":
            raise UserError("--sample train.seed: seeds are given by --seeds and --confirm.")
        if sample.key in fixed:
            raise UserError(f"{sample.where} and {fixed[sample.key]}: give one of them.")
        if sample.arm and sample.arm not in names:
            if not names:
                raise UserError(f"{sample.where}: there is no --grid that has '{sample.arm}'.")
            raise UserError(
                f"--sample {sample.name}: {unknown('value of the grid', sample.arm, names)}"
            )
