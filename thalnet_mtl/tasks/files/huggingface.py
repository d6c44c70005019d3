"""Tasks on data sets of the library ``datasets`` of Hugging Face, by name or from local files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from thalnet_mtl.errors import UserError, suggest, unknown
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.files.observations import check_fractions
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.sequences import SPLITS
from thalnet_mtl.tasks.targets import MISSING_CLASS
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.topology.spec import TaskSpec

FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}
BYTES = 256
MOST_CHARACTERS = 20_000


@register("task", "huggingface")
def huggingface(
    path: str | dict[str, str],
    inputs: str,
    outputs: list[str] = [],  # noqa: B006
    target: Literal["class", "labels", "numbers"] = "class",
    tokenizer: Literal["bytes", "characters"] = "bytes",
    config: str = "",
    splits: dict[str, str] = {},  # noqa: B006
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15),
    split_seed: int = 0,
    longest: int = 0,
    standardize: bool = False,
) -> Task:
    """A data set of the Hugging Face hub, or local files: a text with a target, or next tokens.

    Args:
        path: name of a data set of the hub; a local file (.csv, .json, .jsonl, .parquet, .txt); or
            such files by split, ``{train: a.jsonl, test: b.jsonl}``.
        inputs: column of texts, or of lists of numbers (each a number, or a list, a step).
        outputs: column of the class, or columns of labels or numbers; without any, the task is to
            predict the next token of the texts, one after another.
        target: ``class``, ``labels`` or ``numbers``.
        tokenizer: of texts: ``bytes`` of UTF-8, or ``characters`` that the training part has;
            others become one further token.
        config: configuration of a data set of the hub, if it has several.
        splits: names in the data set of train, validation and test, such as
            ``{validation: dev}``. A split that is missing is cut off the training part.
        fractions: sizes of train, validation and test, where one is cut off.
        split_seed: seed of the choice of rows that are cut off.
        longest: number of tokens after which a text is cut; 0 for no limit.
        standardize: scale inputs and targets that are numbers to mean 0 and deviation 1 of the
            training part. Scores are in the units of the data nevertheless.

    Raises:
        UserError: the data cannot be loaded, or a column does not fit; the message names it.
    """
    check_fractions(fractions)
    if standardize and not outputs:
        raise UserError("standardize scales numbers; without outputs, the task is on texts.")
    if longest < 0:
        raise UserError(f"longest {longest}: expected at least 0.")
    if target == "class" and len(outputs) > 1:
        raise UserError("outputs: a class is one column; for several set target: labels.")
    for part in splits:
        if part not in SPLITS:
            raise UserError(f"splits: {unknown('split', part, SPLITS)}")
    name = path if isinstance(path, str) else ", ".join(path.values())
    data = _with_all_splits(_load(path, config), splits, fractions, split_seed, name)
    columns = data["train"].column_names
    for option, chosen in (("inputs", [inputs]), ("outputs", outputs)):
        for column in chosen:
            if column not in columns:
                raise UserError(f"{option}: {name}: {unknown('column', column, columns)}")
    chosen = [inputs, *outputs]
    rows = {part: data[part].select_columns(chosen).with_format(None)[:] for part in SPLITS}
    values = {part: rows[part][inputs] for part in SPLITS}
    is_text = isinstance(values["train"][0], str)
    if not is_text and not outputs:
        raise UserError(f"{name}, column '{inputs}': the next token is that of texts; set outputs.")
    for part in SPLITS:
        _check_present(values[part], f"{name}, {part}, column '{inputs}'", is_text)
    if not is_text:
        xs: Any = {part: [np.asarray(x, np.float32) for x in values[part]] for part in SPLITS}
        xs = {part: [x[:, None] if x.ndim == 1 else x for x in xs[part]] for part in SPLITS}
        ys, classes = _targets(rows, outputs, target, data["train"].features, name)
        pairs = {part: (xs[part], ys[part]) for part in SPLITS}
        return SequenceTask(
            "huggingface", pairs, target=target, class_names=classes, standardize=standardize
        )
    encode, vocabulary = _tokenizer(tokenizer, values["train"])
    if not outputs:
        texts = {part: encode("\n".join(values[part])) for part in SPLITS}
        return TextTask("huggingface", lambda: texts, vocabulary)
    tokens = {part: [encode(text[: longest or None]) for text in values[part]] for part in SPLITS}
    if longest:
        tokens = {part: [text[:longest] for text in tokens[part]] for part in SPLITS}
    for part in SPLITS:
        _check_present(tokens[part], f"{name}, {part}, column '{inputs}'", is_text)
    ys, classes = _targets(rows, outputs, target, data["train"].features, name)
    width = max(1, len(classes)) if target == "class" else len(outputs)
    lengths = {len(text) for part in SPLITS for text in tokens[part]}
    spec = TaskSpec(vocabulary, width, tokens=True, steps=lengths.pop() if len(lengths) == 1 else 0)
    pairs = {part: (tokens[part], ys[part]) for part in SPLITS}
    return SequenceTask(
        "huggingface", pairs, spec, target=target, class_names=classes, standardize=standardize
    )


def _load(path: str | dict[str, str], config: str) -> Mapping[str, Any]:
    """Return the splits of a data set by their names in it."""
    import datasets

    files = {"train": path} if isinstance(path, str) else dict(path)
    local = {part: Path(file).expanduser() for part, file in files.items()}
    suffixes = {file.suffix for file in local.values()}
    is_local = not isinstance(path, str) or bool(suffixes & set(FORMATS))
    if is_local:
        for file in local.values():
            if file.suffix not in FORMATS:
                raise UserError(f"{file}: {unknown('kind of file', file.suffix, FORMATS)}")
            if not file.is_file():
                near = [f.name for f in file.parent.glob("*")] if file.parent.is_dir() else []
                raise UserError(f"no file {file} in {Path.cwd()}.{suggest(file.name, near)}")
        if len({FORMATS[suffix] for suffix in suffixes}) > 1:
            raise UserError(f"path: files of one kind only, got {', '.join(sorted(suffixes))}.")
    datasets.disable_progress_bars()
    try:
        if is_local:
            kind = FORMATS[suffixes.pop()]
            paths = {part: str(file) for part, file in local.items()}
            loaded: Mapping[str, Any] = datasets.load_dataset(kind, data_files=paths)
        else:
            loaded = datasets.load_dataset(path, config or None)
    except Exception as error:  # of the network, of files, of scripts: datasets raises many kinds
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"{path} cannot be loaded: {reason[:200]}") from error
    return loaded


def _with_all_splits(
    data: Mapping[str, Any],
    names: Mapping[str, str],
    fractions: Sequence[float],
    seed: int,
    where: str,
) -> dict[str, Any]:
    """Return three splits; one that is missing is cut off the training part."""
    parts = {}
    for part in SPLITS:
        name = names.get(part, part)
        if name in data:
            parts[part] = data[name]
        elif part in names or part == "train":
            raise UserError(f"splits: {where}: {unknown('split', name, data)}")
    missing = [part for part in SPLITS if part not in parts]
    if not missing:
        return parts
    train = parts["train"]
    order = np.random.RandomState(seed).permutation(len(train))  # NumPy freezes it
    shares = {part: fractions[SPLITS.index(part)] for part in ("train", *missing)}
    sizes = np.array(list(shares.values())) / sum(shares.values())
    ends = np.rint(np.cumsum(sizes) * len(train)).astype(int)[:-1]
    for part, places in zip(shares, np.split(order, ends), strict=True):
        if not len(places):
            raise UserError(f"{where}: {len(train)} rows are too few to cut off {part}.")
        parts[part] = train.select(sorted(places.tolist()))
    return parts


def _check_present(values: Sequence[Any], where: str, is_text: bool) -> None:
    """Raise if a value is missing, empty or of another kind than the others."""
    for row, value in enumerate(values):
        if value is None or not len(value):
            raise UserError(f"{where}: row {row} is empty.")
        if is_text and not isinstance(value, str | np.ndarray):
            raise UserError(f"{where}: row {row} is no text: {value!r:.50}.")


def _tokenizer(kind: str, texts: Sequence[str]) -> tuple[Any, int]:
    """Return the function from a text to its tokens (time,), and the size of the vocabulary."""
    if kind == "bytes":
        return lambda text: np.frombuffer(text.encode(), np.uint8).copy(), BYTES
    characters = sorted(set().union(*map(set, texts), "\n"))
    if len(characters) > MOST_CHARACTERS:
        raise UserError(f"{len(characters):,} different characters; set tokenizer: bytes.")
    token = {character: k for k, character in enumerate(characters)}
    unknown_token = len(characters)

    def encode(text: str) -> np.ndarray:
        return np.array([token.get(character, unknown_token) for character in text], np.int64)

    return encode, unknown_token + 1


def _targets(
    rows: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str],
    target: str,
    features: Mapping[str, Any],
    where: str,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the targets by split, and the names of classes in the order of their codes."""
    if target != "class":
        numbers = {}
        for part in SPLITS:
            columns_of_part = [rows[part][column] for column in columns]
            try:
                numbers[part] = np.array(columns_of_part, float).T
            except (TypeError, ValueError) as error:
                raise UserError(f"{where}, {part}: targets must be numbers ({error}).") from error
        return numbers, ()
    (column,) = columns
    cells = {part: rows[part][column] for part in SPLITS}
    if names := getattr(features[column], "names", None):
        missing = {None: MISSING_CLASS, -1: MISSING_CLASS}
        codes = {part: [missing.get(cell, cell) for cell in cells[part]] for part in SPLITS}
        return {part: np.array(codes[part], np.int64) for part in SPLITS}, tuple(names)
    values = {cell for part in SPLITS for cell in cells[part] if cell is not None}
    if odd := [value for value in values if not isinstance(value, str | int | bool)]:
        raise UserError(
            f"{where}, column '{column}': {odd[0]!r:.30} is no class; a class is a word or a whole "
            f"number. For amounts set target: numbers."
        )
    kinds = {isinstance(value, str) for value in values}
    order = sorted(values, key=str if len(kinds) > 1 else None)
    code = {value: k for k, value in enumerate(order)} | {None: MISSING_CLASS}
    return {p: np.array([code[c] for c in cells[p]], np.int64) for p in SPLITS}, tuple(
        map(str, order)
    )
