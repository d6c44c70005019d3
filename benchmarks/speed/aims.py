"""The aims of this benchmark, and what was reached of each: a line an aim, a column a record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.markdown import header, row

Measurement = dict[str, Any]
Value = Callable[[Sequence[Measurement]], float]


@dataclass(frozen=True)
class Aim:
    """A number to reach.

    Attributes:
        title: what is measured, as a table shows it.
        limit: that the number is to stay below, or with ``least`` above.
        value: returns the number from all measurements of a machine; a ``LookupError`` if it was
            not measured.
        form: of the number in a table.
    """

    title: str
    limit: float
    value: Value
    least: bool = False
    form: str = "{:.2f}"

    def shown(self) -> str:
        """Return the aim as text."""
        return f"{'≥' if self.least else '≤'} {self.form.format(self.limit)}"

    def reached(self, measurements: Sequence[Measurement]) -> str:
        """Return what was reached as text."""
        try:
            value = self.value(measurements)
        except LookupError:
            return "not measured"
        met = value >= self.limit if self.least else value <= self.limit
        return f"{self.form.format(value)}{'' if met else ' (missed)'}"


def find(measurements: Sequence[Measurement], **fields: Any) -> list[Measurement]:
    """Return the measurements with some values; a ``LookupError`` if there is none."""
    wanted = fields.items()
    matches = [m for m in measurements if all(m.get(key) == value for key, value in wanted)]
    if not matches:
        raise LookupError(fields)
    return matches


def threads(measurements: Sequence[Measurement]) -> int:
    """Return the largest number of threads of steps."""
    return max(m["threads"] for m in find(measurements, device="cpu"))


def of_gru(config: str) -> Value:
    """Return the time of the kernel's step relative to ``nn.GRU``, with all threads."""
    return lambda ms: find(ms, config=config, path="cpp", threads=threads(ms))[0]["ratio_to_gru"]


def of_four_modules(ms: Sequence[Measurement]) -> float:
    """Return the time of 64 modules relative to 4, the larger of one thread and all."""
    return max(
        _seconds(ms, "center256-modules64", count) / _seconds(ms, "center256-modules4", count)
        for count in {1, threads(ms)}
    )


def of_linear(reading: str) -> Value:
    """Return the time of a dynamic reading relative to a linear one, the larger of two widths."""
    return lambda ms: max(
        _seconds(ms, f"{reading}-features{n}", 1) / _seconds(ms, f"linear-features{n}", 1)
        for n in (16, 32)
    )


def _seconds(ms: Sequence[Measurement], config: str, count: int) -> float:
    step = find(ms, config=config, path="cpp", threads=count)[0]
    return float(step["cpu_seconds" if count == 1 else "seconds"])


def whole(key: str, pick: Callable[..., float] = min, **fields: Any) -> Value:
    """Return a value of the measurements of whole runs, the least or the largest of several."""
    return lambda ms: pick(float(m[key]) for m in find(ms, **fields))


AIMS = [
    Aim("step, CIFAR-10 rows, batch 50, × GRU", 0.16, of_gru("cifar50"), form="{:.3f}"),
    Aim("step, MNIST rows, batch 256, × GRU", 0.20, of_gru("mnist256"), form="{:.3f}"),
    Aim("64 modules of a center of 256, × 4 modules", 1.3, of_four_modules),
    Aim("Gaussian reading, × linear", 3, of_linear("fast_gaussian")),
    Aim("softmax reading, × linear", 6, of_linear("fast_softmax")),
    *(
        Aim(
            f"throughput of `thalnet train`, {name}, × bare step", 0.97,
            whole("throughput_to_bare", what="steps", config=config), least=True, form="{:.3f}",
        )
        for config, name in (
            ("mnist50", "MNIST rows, batch 50"),
            ("mnist256", "MNIST rows, batch 256"),
            ("cifar50", "CIFAR-10 rows, batch 50"),
        )
    ),
    Aim("throughput of evaluation, × training, the least of these three", 3,
        whole("throughput_to_training", what="evaluation"), least=True, form="{:.1f}"),
    Aim("joint step of three tasks, × sum of its parts", 1.1,
        whole("to_sum_of_parts", what="joint")),
    Aim("growth by a configured change, ms", 50, whole("milliseconds", max, rule="changes"),
        form="{:.0f}"),
    Aim("growth by the rule `per_task`, ms", 50, whole("milliseconds", max, rule="per_task"),
        form="{:.0f}"),
    Aim("stream of 100 tasks, last 20 experiences × first 20", 1.05,
        whole("last_to_first", growth="never")),
    Aim("the same, a module for each task", 1.05, whole("last_to_first", growth="per_task")),
    Aim("of it the training steps alone", 1.05, whole("steps_last_to_first", growth="per_task")),
]  # fmt: skip


def aims_table(by_machine: dict[str, Sequence[Measurement]]) -> str:
    """Return all aims and what was reached, with a column for each machine."""
    lines = header("aim", "limit", *by_machine)
    for aim in AIMS:
        reached = (aim.reached(measurements) for measurements in by_machine.values())
        lines.append(row(aim.title, aim.shown(), *reached))
    return "\n".join(lines)
