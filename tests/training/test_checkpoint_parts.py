"""Checkpoints of a stream: what has not changed is stored once, and is always found."""

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_and_resume import flatten
from toy_tasks import toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.training import checkpoint_parts
from thalnet_mtl.training.checkpoint import FORMAT, load_checkpoint, part_files, save_checkpoint
from thalnet_mtl.training.trainer import train

NAMES = [f"t{number}" for number in range(12)]
TASKS = {name: {"name": "toy_rows"} for name in NAMES}
MODULES = {"side": {"features": 4, "output": True, "tasks": ["new"], "reads": ["input", "side"]}}


def content(frozen: torch.Tensor, rows: int, step: int) -> dict:
    return {
        "config": {"train.steps": 3, "stream": ("a", "b")},
        "network": {"frozen": frozen, "moving": torch.full((40,), float(step))},
        "scores": {"accuracy_matrix": [{"a": 0.1 * k, "b": float("nan")} for k in range(rows)]},
        "strategy": {"stored": {"a": [torch.arange(50), None]}},
        "empty": [torch.zeros(0), torch.tensor(step), torch.tensor(True)],
    }


def same(first: object, second: object) -> bool:
    a, b = flatten(first), flatten(second)
    return a.keys() == b.keys() and all(
        torch.equal(x, y) and x.dtype == y.dtype
        if isinstance(x := a[key], torch.Tensor)
        else repr(x) == repr(y)
        for key, y in b.items()
    )


def as_read(values: dict) -> dict:
    return values | {"config": json.loads(json.dumps(values["config"])), "format": FORMAT}


def test_what_has_not_changed_is_written_once_and_read_as_it_was(tmp_path):
    frozen, parts = torch.rand(1000), part_files(tmp_path)
    sizes = []
    for step in range(8):
        saved = content(frozen, 40, step)
        save_checkpoint(tmp_path / "last.pt", saved, parts)
        sizes.append((tmp_path / "last.pt").stat().st_size)
        assert same(load_checkpoint(tmp_path / "last.pt"), as_read(saved))
    assert sizes[-1] < sizes[0] - frozen.nbytes
    names = {path.name for path in tmp_path.glob("part-*.pt")}
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*.pt")}
    save_checkpoint(tmp_path / "last.pt", content(frozen, 40, 9), parts)
    assert {path.name for path in tmp_path.glob("part-*.pt")} == names
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in written.items())


def test_a_tensor_that_changes_again_is_saved_as_it_is_now(tmp_path):
    frozen, parts = torch.zeros(1000), part_files(tmp_path)
    for step in range(4):
        save_checkpoint(tmp_path / "last.pt", content(frozen, 3, step), parts)
    frozen[500] = 1  # neither end shows it
    save_checkpoint(tmp_path / "last.pt", content(frozen, 3, 4), parts)
    assert load_checkpoint(tmp_path / "last.pt")["network"]["frozen"][500] == 1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 11), min_size=8, max_size=30), st.integers(0, 10**6))
def test_every_checkpoint_finds_its_parts_whenever_the_run_is_killed(tmp_path_factory, moves, seed):
    # Each tensor changes now and then; the process ends before, between or after its writes.
    folder = tmp_path_factory.mktemp("run")
    random = torch.Generator().manual_seed(seed)
    values = [torch.rand(200, generator=random) for _ in range(4)]
    parts, expected = part_files(folder), {}
    real = checkpoint_parts.write_atomically
    for step, move in enumerate(moves):
        if move < len(values):
            values[move] = torch.rand(200, generator=random)
        name = "best.pt" if step % 5 == 4 else "last.pt"
        writes, dies = [], int(torch.randint(1, 9, (), generator=random))

        def write(path, function, writes=writes, dies=dies):
            writes.append(path)
            if len(writes) == dies:
                raise KeyboardInterrupt
            real(path, function)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint_parts, "write_atomically", write)
            try:
                save_checkpoint(folder / name, {"values": list(values), "step": step}, parts)
                expected[name] = {"values": list(values), "step": step, "format": FORMAT}
            except KeyboardInterrupt:
                parts = part_files(folder)  # another process goes on
        for checkpoint, saved in expected.items():
            assert same(load_checkpoint(folder / checkpoint), saved)


def test_a_part_that_is_missing_or_damaged_is_named(tmp_path):
    frozen, parts = torch.rand(1000), part_files(tmp_path)
    for step in range(4):
        save_checkpoint(tmp_path / "last.pt", content(frozen, 3, step), parts)
    part = next(tmp_path.glob("part-*.pt"))
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{part.name} is damaged"):
        load_checkpoint(tmp_path / "last.pt")
    part.unlink()
    with pytest.raises(UserError, match=rf"{part.name}"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The bytes that each experience wrote to checkpoints, of a network that grows and freezes."""
    folder, written, sizes = tmp_path_factory.mktemp("stream"), [0], []
    real = checkpoint_parts.write_atomically

    def write(path, function):
        real(path, function)
        written[-1] += os.stat(path).st_size
        if path.name == "last.pt":
            sizes.append(written[-1])
            written.append(0)

    config = toy(
        tasks=TASKS,
        stream=[{"tasks": [name], "steps": 2} for name in NAMES],
        growth={"when": "per_task", "modules": MODULES},
        train={"batch": 4},
        evaluate={"every": 2, "batches": 1, "batch": 10},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_parts, "write_atomically", write)
        train(config, folder / "run")
    return folder / "run", sizes


def test_a_finished_stream_leaves_a_best_checkpoint_that_stands_for_itself(grown):
    folder, _ = grown
    content = torch.load(folder / "checkpoint" / "best.pt", weights_only=True)
    assert content.keys() == {"step", "topology", "network", "config", "format"}
    assert len(content["network"]) > 12


def test_few_files_of_parts_are_left(grown):
    folder, _ = grown
    assert 1 <= len(list((folder / "checkpoint").glob("part-*.pt"))) <= 6


def test_an_experience_at_the_end_writes_about_as_much_as_one_at_the_start(grown):
    _, sizes = grown  # of the first checkpoint, then of each experience
    assert sum(sizes[-4:]) < 1.6 * sum(sizes[1:5])
