"""Tests of tasks on arrays: a file of them, and a folder that stays on disk."""

import numpy as np
import pytest
import torch

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.files.arrays import folder, npz

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of one's own, in which arrays are written."""
    monkeypatch.chdir(tmp_path)


def arrays(prefix="", count=40, **changes):
    rng = np.random.default_rng(0)
    xs, lengths = rng.normal(size=(count, 6, 2)).astype(np.float32), rng.integers(1, 7, count)
    made = {"xs": xs, "ys": np.arange(count) % 3, "lengths": lengths} | changes
    return {f"{prefix}{name}": array for name, array in made.items() if array is not None}


def all_splits(**changes):
    return {k: v for part in PARTS for k, v in arrays(f"{part}_").items()} | changes


def test_arrays_of_three_splits_are_read_from_one_file_and_from_a_folder_alike(tmp_path):
    content = all_splits()
    np.savez("a.npz", **content)
    (tmp_path / "a").mkdir()
    for name, array in content.items():
        np.save(f"a/{name}.npy", array)
    for task in (npz("a.npz").load("cpu"), folder("a").load("cpu")):
        assert (task.spec.inputs, task.spec.outputs, task.spec.steps) == (2, 3, 6)
        for part in PARTS:
            batch = next(task.iterate(part, 40, 0))
            lengths = torch.tensor(content[f"{part}_lengths"])
            assert torch.equal(batch.lengths, lengths)
            over = torch.arange(6) >= lengths[:, None]
            expected = torch.tensor(content[f"{part}_xs"]).masked_fill(over[..., None], 0)
            assert torch.equal(batch.xs, expected[:, : lengths.max()])
            assert batch.ys.tolist() == content[f"{part}_ys"].tolist()


def test_arrays_of_objects_are_refused_with_what_to_do(tmp_path):
    ragged = np.array([np.zeros(3), np.zeros(4)], object)
    np.savez("a.npz", xs=ragged, ys=np.arange(2))
    np.save("train_xs.npy", ragged)
    for make, path in ((npz, "a.npz"), (folder, ".")):
        with pytest.raises(UserError, match=r"objects; pad the sequences and give lengths\.$"):
            make(path)


def test_one_set_of_arrays_is_split_by_fractions_and_a_seed():
    xs = np.arange(20.0).reshape(20, 1, 1)
    np.savez("a.npz", xs=xs, ys=10 * xs[:, 0])
    task = npz("a.npz", "numbers", fractions=(0.5, 0.25, 0.25), split_seed=1).load("cpu")
    parts = [task.split(part) for part in PARTS]
    assert [len(part) for part in parts] == [10, 5, 5]
    assert sorted(torch.cat([part.xs for part in parts]).flatten().tolist()) == list(range(20))
    assert all(torch.equal(part.ys[:, 0], 10 * part.xs[:, 0, 0]) for part in parts)
    again, other = (npz("a.npz", "numbers", split_seed=seed).load("cpu") for seed in (0, 1))
    assert not torch.equal(again.split("train").xs, other.split("train").xs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (arrays(ys=None), r"a\.npz has no array 'ys'\. Its arrays: xs, lengths"),
        (arrays(y=np.arange(40)), r"unknown array 'y'\. Allowed: xs, ys, lengths\. Did you mean"),
        (all_splits(tset_xs=np.zeros(3)), r"unknown array 'tset_xs'.* Did you mean 'test_xs'\?"),
        (arrays("train_"), r"has no array 'validation_xs'"),
        (arrays(ys=np.arange(39) % 3), r"40 sequences in xs, but 39 in ys"),
        (arrays(ys=np.array(["a"] * 40)), r"expected an array of numbers"),
        (arrays(lengths=np.full(40, 9)), r"length 9 of row \d+ is not within 1 … 6"),
        (arrays(xs=np.full((40, 6, 2), np.nan)), r"input of row \d+ holds NaN"),
        ({"xs": np.array([{}]), "ys": np.arange(1)}, r"a\.npz cannot be read as \.npz"),
    ],
)
def test_a_mistake_is_one_line(content, message):
    np.savez("a.npz", **content)
    with pytest.raises(UserError, match=message) as error:
        npz("a.npz").load("cpu")
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file b\.npz in"):
        npz("b.npz")
    for text in ("", "no archive"):
        (tmp_path / "b.npz").write_text(text)
        with pytest.raises(UserError, match=r"b\.npz cannot be read as \.npz"):
            npz("b.npz")
    with pytest.raises(UserError, match=r"b\.npz is no folder; for one file use the task npz"):
        folder("b.npz")
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"a has no array 'train_xs'\. Its arrays: none"):
        folder("a")
    (tmp_path / "a" / "train_xs.npy").write_text("x")
    with pytest.raises(UserError, match=r"train_xs\.npy cannot be read as \.npy"):
        folder("a")
