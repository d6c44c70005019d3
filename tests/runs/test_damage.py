"""Damaged files of a run: every value of another type, and whole files, before every verb."""

import json
import shutil
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from thalnet_mtl import cli

TRAIN = ["train", "digits", "--model.budget=2000", "--train.steps=2", "--evaluate.batches=1"]
VERBS = {
    "compare": ["compare", "run"],
    "report": ["report", "run", "--out", "report.html"],
    "inspect": ["inspect", "run"],
    "evaluate": ["evaluate", "run", "--batches", "1"],
    "export": ["export", "run", "--to", "safetensors", "--out", "exported"],
    "train": [*TRAIN, "--out", "run"],
}
VALUES = (None, "x", 5, 2.5, True, [], {}, [[]], {"x": 1}, 10**400, "\x1b[2J\n")
REMOVED = object()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run, and one that differs in its learning rate."""
    folder = tmp_path_factory.mktemp("damage")
    for name, rate in (("run", "0.01"), ("other", "0.02")):
        out = ["--out", str(folder / name), "--train.learning_rate", rate]
        assert cli.main([*TRAIN, *out]) == 0
    return folder


class Damaged:
    """A copy of a run, to be damaged and read."""

    def __init__(self, trained: Path, capsys: pytest.CaptureFixture[str]):
        self.trained, self.capsys = trained, capsys
        self.restore()

    def restore(self, finished: bool = True, sums: bool = False) -> None:
        """Copy the run; without its checksums, the values themselves have to be looked at."""
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(self.trained / "run", "run")
        for name, stays in (("SHA256SUMS", sums), ("result.json", finished)):
            if not stays:
                Path("run", name).unlink()

    def read(self, verb: str) -> tuple[int, str, str]:
        """Run a verb; return its status, output and errors."""
        shutil.rmtree("exported", ignore_errors=True)
        rate = ["--train.learning_rate", "0.01"] if verb == "train" else []
        self.capsys.readouterr()
        status = cli.main([*VERBS[verb], *rate])
        return status, *self.capsys.readouterr()

    def check(self, verb: str, file: str, what: Any, same: str | None = None) -> bool:
        """Check that a verb names the file in one line, or gives ``same``; return if it did not."""
        status, output, errors = self.read(verb)
        case = f"{verb}, {file} {what}: {status} {errors}"
        assert "\x1b" not in output + errors, case
        if status == 0:
            assert same is None or output == same, case
            return False
        assert status == 2 and len(errors.splitlines()) == 1, case
        assert Path(file).name in errors, case
        return True


@pytest.fixture
def run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda file: None)  # nothing here has to outlast a power cut
    return Damaged(trained, capsys)


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value of a tree; of a list, only the first two."""
    yield place
    pairs = tree.items() if isinstance(tree, dict) else ()
    if isinstance(tree, list | tuple):
        pairs = list(enumerate(tree))[:2]
    for key, value in pairs:
        yield from places(value, (*place, key))


def kind(value: Any) -> type:
    """Return the type of a value; whole and other numbers are of one type."""
    return float if type(value) is int and abs(value) < 2**63 else type(value)


def planted(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a tree with another value at a place."""
    if not place:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if value is REMOVED and len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = planted(copy[place[0]], place[1:], value)
    return copy


def variants(tree: Any, each: int, values: tuple[Any, ...] = VALUES) -> Iterator[tuple[Any, Any]]:
    """Yield (place and value, changed tree): ``each`` values of other types at every place."""
    turn = count()
    for place in places(tree):
        old = tree
        for key in place:
            old = old[key]
        others = [value for value in values if kind(value) is not kind(old)]
        others += [REMOVED] * bool(place and isinstance(place[-1], str))
        for _ in range(each):
            value = others[next(turn) * 7 % len(others)]
            yield (place, value), planted(tree, place, value)


@pytest.mark.parametrize(
    ("file", "verb", "each", "least"),
    [
        ("result.json", "compare", 2, 0.6),
        ("topology.json", "inspect", 1, 0.6),
        ("environment.json", "evaluate", 1, 0.3),
        ("metrics.json", "compare", 1, 0.6),
        ("config.yaml", "inspect", 1, 0.4),
    ],
)
def test_a_value_of_another_type_is_one_line_or_changes_nothing(run, file, verb, each, least):
    path = Path("run", file)
    tree = yaml.safe_load(path.read_text())
    _, same, _ = run.read(verb)
    refused = []
    for what, content in variants(tree, each):
        path.write_text((yaml.safe_dump if file == "config.yaml" else json.dumps)(content))
        refused.append(run.check(verb, file, what, same))
    assert sum(refused) > least * len(refused) > 5


def test_a_damaged_line_of_the_log_is_named(run):
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    numbers = []
    for what, content in variants(lines[1], 2):
        texts = map(json.dumps, [lines[0], content, *lines[2:]])
        Path("run/metrics.jsonl").write_text("\n".join(texts) + "\n")
        numbers.append(run.check("compare", "metrics.jsonl", what))
    assert sum(numbers) > 10


@pytest.mark.parametrize(
    ("file", "verb", "finished"),
    [("checkpoint/best.pt", "evaluate", True), ("checkpoint/last.pt", "train", False)],
)
def test_a_value_of_another_type_in_a_checkpoint_is_one_line(run, file, verb, finished):
    whole = torch.load(f"run/{file}", weights_only=True)
    run.restore(finished)
    refused = []
    for what, content in variants({k: v for k, v in whole.items() if k != "config"}, 1):
        if len(what[0]) > 1 and zlib.crc32(repr(what[0]).encode()) % 24:
            continue
        torch.save(content | {"config": whole["config"]} if what[0] else content, f"run/{file}")
        refused.append(run.check(verb, file, what))
        if not refused[-1]:
            run.restore(finished)
    assert sum(refused) > 0.7 * len(refused) > 5


WHOLE = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "other bytes": lambda data: b"\xff\xfe\x00\x1b[31m" * 50,
    "a flipped bit": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
    "nested": lambda data: b"[" * 100_000,
    "gone": None,
    "a folder": None,
    "a link to itself": None,
}
READ_BY = {  # the verbs that read a file; the last one of an unfinished run
    "config.yaml": ("compare", "inspect", "evaluate", "train"),
    "result.json": ("compare", "train"),
    "metrics.jsonl": ("compare",),
    "topology.json": ("inspect", "compare"),
    "readings.jsonl": ("compare",),
    "checkpoint/best.pt": ("evaluate", "export"),
    "model/model.safetensors": ("export",),
    "model/reading_weights.safetensors": ("compare",),
}
# Without a result a run is unfinished, and a copy may leave out the network.
MAY_BE_ABSENT = ("result.json", "model/reading_weights.safetensors")


@pytest.mark.parametrize("file", READ_BY)
def test_a_damaged_or_swapped_file_of_a_finished_run_is_named_by_what_reads_it(run, file):
    for name, verb in ((name, verb) for name in [*WHOLE, "swapped"] for verb in READ_BY[file]):
        run.restore(sums=True)
        path = Path("run", file)
        data = path.read_bytes()
        path.unlink()
        if name == "swapped":
            shutil.copy(run.trained / "other" / file, path)
            if path.read_bytes() == data:
                continue
        elif name == "a folder":
            path.mkdir()
        elif name == "a link to itself":
            path.symlink_to(path.name)
        elif change := WHOLE[name]:
            path.write_bytes(change(data))
        if name in ("gone", "a link to itself") and file in MAY_BE_ABSENT:
            continue
        assert run.check(verb, file, name), f"{verb} accepts {file}: {name}"
