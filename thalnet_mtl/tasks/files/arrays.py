"""Tasks on arrays of your own: a file ``.npz``, or a folder of files ``.npy`` that stay on disk."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from thalnet_mtl.errors import UserError, suggest
from thalnet_mtl.files import suggest_path
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.files.observations import check_fractions
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.sequences import SPLITS

Kind = Literal["class", "labels", "numbers"]
KINDS = ("xs", "ys", "lengths")


@register("task", "npz")
def npz(
    path: str,
    target: Kind = "class",
    scale: float = 1.0,
    standardize: bool = False,
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15),
    split_seed: int = 0,
) -> SequenceTask:
    """Arrays of a file .npz of your own: train_xs, train_ys, …, or xs and ys to be split.

    ``xs`` is (N, time, inputs), or (N, time) whole numbers as tokens; ``ys`` is (N,) for a class
    and (N, outputs) otherwise, with an axis of time after N for targets at every step; ``lengths``
    (N,), if there are any, are the steps of each sequence.

    Args:
        path: a file with ``train_xs``, ``train_ys``, ``validation_xs``, … and ``test_ys``, and
            perhaps ``train_lengths``, …; or with ``xs``, ``ys`` and perhaps ``lengths``.
        target: ``class``, ``labels`` (0 or 1, missing NaN) or ``numbers`` (missing NaN).
        scale: divisor of the inputs; 255 brings bytes into [0, 1].
        standardize: scale inputs, and targets that are numbers, to mean 0 and deviation 1 of the
            training part. Scores are in the units of the arrays nevertheless.
        fractions: sizes of train, validation and test, where the file has no splits.
        split_seed: seed of the choice of sequences for each.

    Raises:
        UserError: an array is missing, or does not fit the others.
    """
    file = _existing(path)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise UserError(f"{file} cannot be read as .npz: {_reason(error)}.") from error
    splits = _splits(arrays, str(file), fractions, split_seed)
    return SequenceTask("npz", splits, target=target, scale=scale, standardize=standardize)


@register("task", "folder")
def folder(
    path: str, target: Kind = "class", scale: float = 1.0, standardize: bool = False
) -> SequenceTask:
    """Arrays of your own in a folder of .npy files, which may be larger than memory.

    Shapes are those of the task ``npz``. Files are read from disk as they are needed.

    Args:
        path: a folder with ``train_xs.npy``, ``train_ys.npy``, ``validation_xs.npy``, … and
            ``test_ys.npy``, and perhaps ``train_lengths.npy``, ….
        target: ``class``, ``labels`` (0 or 1, missing NaN) or ``numbers`` (missing NaN).
        scale: divisor of the inputs; 255 brings bytes into [0, 1].
        standardize: scale inputs, and targets that are numbers, to mean 0 and deviation 1 of the
            training part. Scores are in the units of the arrays nevertheless.

    Raises:
        UserError: a file is missing, or does not fit the others.
    """
    root = _existing(path)
    if not root.is_dir():
        raise UserError(f"{root} is no folder; for one file use the task npz.")
    arrays = {}
    for file in sorted(root.glob("*.npy")):
        try:
            arrays[file.stem] = np.load(file, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file} cannot be read as .npy: {_reason(error)}.") from error
    return SequenceTask(
        "folder", _splits(arrays, str(root)), target=target, scale=scale, standardize=standardize
    )


def _splits(
    arrays: Mapping[str, np.ndarray],
    where: str,
    fractions: Sequence[float] = (),
    seed: int = 0,
) -> dict[str, tuple[Any, ...]]:
    """Return the splits of arrays by name; one set of arrays is split by ``fractions``."""
    allowed = [f"{part}_{kind}" for part in SPLITS for kind in KINDS]
    if fractions and "xs" in arrays:
        allowed = list(KINDS)
    for name in arrays:
        if name not in allowed:
            raise UserError(
                f"{where}: unknown array '{name}'. Allowed: {', '.join(allowed)}."
                f"{suggest(name, allowed)}"
            )
    whole = allowed == list(KINDS)
    for name in allowed:
        if name not in arrays and not name.endswith("lengths"):
            names = ", ".join(arrays) or "none"
            raise UserError(f"{where} has no array '{name}'. Its arrays: {names}.")
    if not whole:
        return {part: _sequences(arrays, f"{part}_") for part in SPLITS}
    check_fractions(fractions)
    data = _sequences(arrays, "")
    count = len(data[0])
    for name, array in zip(KINDS, data, strict=False):
        if len(array) != count:
            raise UserError(f"{where}: {count} sequences in xs, but {len(array)} in {name}.")
    order = np.random.RandomState(seed).permutation(count)  # frozen by NumPy's compatibility policy
    ends = np.rint(np.cumsum(fractions) * count).astype(int)[:-1]
    chosen = zip(SPLITS, np.split(order, ends), strict=True)
    return {part: tuple(array[places] for array in data) for part, places in chosen}


def _sequences(arrays: Mapping[str, np.ndarray], prefix: str) -> tuple[np.ndarray, ...]:
    return tuple(arrays[f"{prefix}{kind}"] for kind in KINDS if f"{prefix}{kind}" in arrays)


def _existing(path: str) -> Path:
    """Return a path, or raise with the closest name if it does not exist."""
    if not path:
        raise UserError("the path of the data is empty.")
    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f"no file {file} in {Path.cwd()}.{suggest_path(file)}")
    return file


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, in one line."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    if "allow_pickle" in reason or "Python objects" in reason:
        return "it holds an array of objects; pad the sequences and give lengths"
    return reason
