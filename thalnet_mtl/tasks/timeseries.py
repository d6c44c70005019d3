"""Tasks on time series: a class or a number for each series of an archive, and forecasts.

The training and test cases of the archives (UCR, UEA and Monash) are kept as they are. Of the
training cases of each class, every fifth in the order of the file is for validation; without
classes, every fifth of all. Inputs are standardized by channel with the mean and the standard
deviation of the cases that are left for training; targets are not.

The forecasts are of the next values at every step. Their splits follow time; see ``forecasting``.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from thalnet_mtl.data import datasets
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.files.ts_format import TsCases, read_ts
from thalnet_mtl.tasks.forecasting import Windows, check_parts, forecasting_splits
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec

Splits = dict[str, tuple[list[np.ndarray], np.ndarray]]
# Takes the length of the training part, returns inputs (time, inputs) and values (time,).
SeriesReader = Callable[[int], tuple[np.ndarray, np.ndarray]]


@register("task", "japanese_vowels")
def japanese_vowels() -> SequenceTask:
    """Speaker of a Japanese vowel, one of nine: 12 channels, 7 to 29 steps (unequal lengths).

    216 training, 54 validation and 370 test utterances. Channels are cepstral coefficients. The
    paper that published the data reports 94.1 % (Kudo, Toyama and Shimbo, 1999, Pattern Recognition
    Letters 20).
    """
    return _archive_task("japanese_vowels", TaskSpec(12, 9))


@register("task", "pickup_gesture")
def pickup_gesture() -> SequenceTask:
    """Person who picks up a remote control, one of ten: its acceleration, 29 to 361 steps.

    PickupGestureWiimoteZ of the UCR archive: 40 training, 10 validation and 50 test cases, as many
    of each class.
    """
    return _archive_task("pickup_gesture", TaskSpec(1, 10))


@register("task", "basic_motions")
def basic_motions() -> SequenceTask:
    """Standing, running, walking or badminton, from a smart watch: 6 channels, 100 steps.

    32 training, 8 validation and 40 test cases, as many of each class.
    """
    return _archive_task("basic_motions", TaskSpec(6, 4, steps=100))


@register("task", "gun_point")
def gun_point() -> SequenceTask:
    """A gun drawn or a finger pointed, from the position of the hand on video: 150 steps.

    41 training, 9 validation and 150 test cases of two classes.
    """
    return _archive_task("gun_point", TaskSpec(1, 2, steps=150))


@register("task", "italy_power_demand")
def italy_power_demand() -> SequenceTask:
    """October to March or April to September, from the power demand of a day: 24 steps.

    55 training, 12 validation and 1,029 test cases of two classes.
    """
    return _archive_task("italy_power_demand", TaskSpec(1, 2, steps=24))


@register("task", "covid3month")
def covid3month() -> SequenceTask:
    """Deaths per confirmed case in %, from 84 days of confirmed cases of a country: one number.

    112 training, 28 validation and 61 test countries. The input is log(1 + cases).
    """
    spec = TaskSpec(1, 1, steps=84)
    return _archive_task("covid3month", spec, "numbers", transform=np.log1p, unit=0.01)


@register("task", "solar")
def solar(steps: int = 48, horizon: int = 1) -> SequenceTask:
    """Solar power of Great Britain, the next half hours: numbers at every step.

    289 half hours from 1 to 7 May 2021, as shares of the installed capacity (0 to 0.56): 192 for
    training, 48 for validation, 49 for the test. Inputs are the standardized power and the time of
    day as sine and cosine.

    Args:
        steps: half hours in a window.
        horizon: number of half hours to forecast.
    """

    def read(training: int) -> tuple[np.ndarray, np.ndarray]:
        power = _read_column("solar")
        return np.column_stack([_standardized(power, training), _phase(len(power), 48)]), power

    parts = {"train": 192, "validation": 48, "test": 49}
    return _forecast_task("solar", parts, 3, steps, horizon, read)


@register("task", "airline")
def airline(steps: int = 24, horizon: int = 1) -> SequenceTask:
    """Passengers of airlines, the next months: numbers at every step.

    144 months from 1949 to 1960, as 143 changes of the logarithm: 95 for training (to 1956), 24 for
    validation, 24 for the test. The forecast of a change is a forecast of the next month's number,
    as this month's is known, and its error is about the relative error of that. Inputs are the
    standardized change and the month as sine and cosine.

    Args:
        steps: months in a window.
        horizon: number of months to forecast.
    """

    def read(training: int) -> tuple[np.ndarray, np.ndarray]:
        changes = np.diff(np.log(_read_column("airline")))
        months = _phase(len(changes), 12)
        return np.column_stack([_standardized(changes, training), months]), changes

    parts = {"train": 95, "validation": 24, "test": 24}
    return _forecast_task("airline", parts, 3, steps, horizon, read)


@register("task", "lynx")
def lynx(steps: int = 20, horizon: int = 1) -> SequenceTask:
    """Lynx trapped in Canada, the next years: numbers at every step.

    The decimal logarithm of 114 years from 1821 to 1934, less its mean in the training part: 76
    years for training, 19 for validation, 19 for the test. Errors are differences of decimal
    logarithms. The input is the standardized logarithm.

    Args:
        steps: years in a window.
        horizon: number of years to forecast.
    """

    def read(training: int) -> tuple[np.ndarray, np.ndarray]:
        logarithm = np.log10(_read_column("lynx"))
        centered = logarithm - logarithm[:training].mean()
        return _standardized(logarithm, training)[:, None], centered

    parts = {"train": 76, "validation": 19, "test": 19}
    return _forecast_task("lynx", parts, 1, steps, horizon, read)


@register("task", "ts")
def ts(train: str, test: str) -> SequenceTask:
    """A class or a number for each series in files of your own in the format ``.ts``.

    Args:
        train: path of the file with the training cases, of which every fifth is for validation.
        test: path of the file with the test cases.

    Raises:
        UserError: a file cannot be read or lacks values of a series, or the two files do not have
            the same channels and classes.
    """
    files = _without_gaps(train), _without_gaps(test)
    channels, test_channels = (file.series[0].shape[1] for file in files)
    if channels != test_channels or files[0].classes != files[1].classes:
        raise UserError(f"{train} and {test} differ in their channels or classes.")
    spec = TaskSpec(channels, len(files[0].classes) or 1)
    target = "class" if files[0].classes else "numbers"
    return SequenceTask("ts", partial(_archive_splits, *files), spec, target=target)


def _without_gaps(path: str) -> TsCases:
    """Read a file and return its cases; a UserError names the first that lacks a value."""
    cases = read_ts(path)
    for number, series in enumerate(cases.series, 1):
        if (step := np.isnan(series).any(1)).any():
            raise UserError(
                f"{path}: case {number} lacks a value at step {step.argmax() + 1}; fill it in, as "
                f"missing values are allowed for targets only."
            )
    return cases


def _archive_task(
    name: str,
    spec: TaskSpec,
    target: str = "class",
    *,
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray,
    unit: float = 1,
) -> SequenceTask:
    """Return the task of a stored data set of two ``.ts`` files; see ``_archive_splits``."""

    def read_splits() -> Splits:
        folder = datasets.verified_folder(name)
        train, test = (read_ts(folder / file) for file in datasets.checksums(name))
        return _archive_splits(train, test, transform, unit)

    return SequenceTask(name, read_splits, spec, target=target, source=name)


def _archive_splits(
    train: TsCases,
    test: TsCases,
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray,
    unit: float = 1,
) -> Splits:
    """Return the three splits of two files, with inputs transformed and standardized.

    ``unit`` is that of the targets, if they are numbers: they are divided by it.
    """
    held_out = _every_fifth(train.targets if train.classes else np.zeros(len(train.targets)))
    parts = {"train": (train, ~held_out), "validation": (train, held_out)}
    parts["test"] = test, np.ones(len(test.targets), bool)
    splits = {}
    for name, (file, chosen) in parts.items():
        series = [transform(file.series[case]) for case in np.flatnonzero(chosen)]
        targets = file.targets[chosen]
        splits[name] = series, targets if file.classes else targets / unit
    steps = np.concatenate(splits["train"][0])
    mean, deviation = steps.mean(0), steps.std(0)
    deviation[deviation == 0] = 1  # a constant channel becomes zero
    return {
        name: ([((case - mean) / deviation).astype(np.float32) for case in series], targets)
        for name, (series, targets) in splits.items()
    }


def _every_fifth(groups: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of every fifth case of each group, in order."""
    chosen = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        chosen[np.flatnonzero(groups == group)[4::5]] = True
    return chosen


def _forecast_task(
    name: str, parts: Mapping[str, int], inputs: int, steps: int, horizon: int, read: SeriesReader
) -> SequenceTask:
    """Return the task to forecast a series, whose inputs and values a function reads."""

    def read_splits() -> dict[str, Windows]:
        xs, values = read(parts["train"])
        return forecasting_splits(xs.astype(np.float32), values, parts, steps, horizon)

    check_parts(parts, steps, horizon)
    spec = TaskSpec(inputs, horizon, every_step=True, steps=steps)
    return SequenceTask(name, read_splits, spec, target="numbers", source=name)


def _read_column(name: str) -> np.ndarray:
    """Return the second column of a stored data set of one CSV file."""
    folder = datasets.verified_folder(name)
    (file,) = datasets.checksums(name)
    return np.loadtxt(folder / file, delimiter=",", skiprows=1, usecols=1)


def _standardized(values: np.ndarray, training: int) -> np.ndarray:
    """Return values with mean 0 and standard deviation 1 in the training part."""
    part = values[:training]
    return (values - part.mean()) / part.std()


def _phase(time: int, period: int) -> np.ndarray:
    """Return the place in a period as its sine and cosine: (time, 2)."""
    angle = 2 * np.pi * np.arange(time) / period
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
