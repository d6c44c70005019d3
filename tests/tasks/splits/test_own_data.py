"""Data sets, loaders and files of a user: the same batches as from memory, never read whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from thalnet_mtl import SequenceTask, TextTask, UserError
from thalnet_mtl.tasks.splits import items, reader
from thalnet_mtl.tasks.splits.sequences import SPLITS, Sequences, StoredSequences

XS = torch.rand(70, 5, 3, generator=torch.Generator().manual_seed(0))
YS = torch.arange(70) % 3
RAGGED = [x[: 1 + k % 5] for k, x in enumerate(XS)]


class Pairs(Dataset):
    """Pairs, which counts how often an item is read."""

    def __init__(self, xs=XS, ys=YS):
        self.xs, self.ys, self.reads = xs, ys, 0

    def __len__(self):
        return len(self.xs)

    def __getitem__(self, k):
        self.reads += 1
        return self.xs[k], self.ys[k]


class Named(Pairs):
    """The same as mappings."""

    def __getitem__(self, k):
        x, y = super().__getitem__(k)
        return {"signal": x, "first": x[:, :1], "rest": x[:, 1:], "kind": y, "steps": len(x)}


class Endless(IterableDataset):
    def __iter__(self):
        yield XS[0], 0


def task_of(split, **options):
    return SequenceTask("own", dict.fromkeys(SPLITS, split), **options).load("cpu")


def batches(task):
    return [task.training_batch(step, 20, 1, seed=3) for step in range(7)] + list(
        task.iterate("test", 16, 1)
    )


def assert_same_batches(first, second):
    for one, other in zip(batches(first), batches(second), strict=True):
        for a, b in zip(one, other, strict=True):
            if isinstance(a, torch.Tensor):
                assert a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
            else:
                assert a == b


def hugging_face():
    import datasets

    rows = [{"signal": x.tolist(), "kind": int(y)} for x, y in zip(XS, YS, strict=True)]
    return datasets.Dataset.from_list(rows)


SOURCES = {
    "data set": lambda: (Pairs(), {}),
    "tensors": lambda: (TensorDataset(XS, YS), {}),
    "subset": lambda: (Subset(Pairs(), range(70)), {}),
    "loader": lambda: (DataLoader(Pairs(), 7, shuffle=True, drop_last=True), {}),
    "mappings": lambda: (Named(), {"inputs": "signal", "targets": "kind"}),
    "Hugging Face": lambda: (hugging_face(), {"inputs": "signal", "targets": "kind"}),
    "columns": lambda: ({"a": XS, "b": YS}, {"inputs": "a", "targets": "b"}),
    "arrays": lambda: (Pairs(XS.numpy(), YS.numpy()), {}),
}


@pytest.mark.parametrize("kept", [2**30, 0])
@pytest.mark.parametrize("name", SOURCES)
def test_a_data_set_gives_the_batches_of_its_arrays(name, kept, monkeypatch):
    monkeypatch.setattr(items, "KEPT_BYTES", kept)
    monkeypatch.setattr(items, "ITEMS", 16)
    split, options = SOURCES[name]()
    task = task_of(split, **options)
    in_memory = kept or name == "columns"
    assert isinstance(task.split("train"), Sequences if in_memory else StoredSequences)
    assert_same_batches(task, task_of((XS, YS)))


@pytest.mark.parametrize("kept", [2**30, 0])
@pytest.mark.parametrize("every_step", [False, True])
def test_items_of_unequal_length_are_padded(kept, every_step, monkeypatch):
    monkeypatch.setattr(items, "KEPT_BYTES", kept)
    monkeypatch.setattr(items, "ITEMS", 16)
    ys = [(x[:, 0] > 0.5).long() for x in RAGGED] if every_step else YS
    task = task_of(Pairs(RAGGED, ys))
    assert task.spec.every_step == every_step and task.spec.steps == 5
    assert_same_batches(task, task_of((RAGGED, ys)))
    lengths = [len(x) for x in RAGGED]
    assert_same_batches(task, task_of((XS, YS if not every_step else padded(ys), lengths)))


def padded(ys):
    return torch.nn.utils.rnn.pad_sequence(ys, batch_first=True, padding_value=-100)


@pytest.mark.parametrize("kept", [2**30, 0])
def test_several_inputs_go_by_name(kept, monkeypatch):
    monkeypatch.setattr(items, "KEPT_BYTES", kept)
    task = task_of(Named(RAGGED), inputs=["first", "rest"], targets="kind", lengths="steps")
    assert task.spec.inputs == {"first": 1, "rest": 2}
    batch, whole = (t.training_batch(0, 70, 1, 0) for t in (task, task_of((RAGGED, YS))))
    assert torch.equal(torch.cat([batch.xs["first"], batch.xs["rest"]], -1), whole.xs)
    assert torch.equal(batch.lengths, whole.lengths)


def test_training_reads_a_data_set_block_by_block(monkeypatch):
    monkeypatch.setattr(items, "KEPT_BYTES", 0)
    monkeypatch.setattr(reader, "BLOCK_SIZE", 20)
    data = Pairs()
    other = (XS, YS)
    task = SequenceTask("own", {"train": data, "validation": other, "test": other}).load("cpu")
    loaded = data.reads
    assert loaded == 70 + 2  # once, and twice the first item to see whether it changes
    task.training_batch(0, 10, 1, 0)
    assert data.reads == loaded + 20
    task.training_batch(1, 10, 1, 0)
    assert data.reads == loaded + 20
    task.training_batch(5, 10, 1, 0)
    assert data.reads == loaded + 40


REFUSED = {
    "a sampler": (
        lambda: DataLoader(Pairs(), 7, sampler=WeightedRandomSampler([1.0] * 70, 70)),
        "sampler of its own, WeightedRandomSampler. Pass its data set.*class_weights",
    ),
    "a collate_fn": (
        lambda: DataLoader(Pairs(), 7, collate_fn=list), "collate_fn of its own. Pass its data set",
    ),
    "batches": (
        lambda: DataLoader(Pairs(), batch_sampler=[[0, 1]]), "a batch sampler of its own, list",
    ),
    "endless": (lambda: DataLoader(Endless()), "with a length, got Endless"),
    "empty": (lambda: Pairs(XS[:0], YS[:0]), "there is no sequence"),
    "an input alone": (lambda: TensorDataset(XS), "item 0 is tuple of length 1; expected a pair"),
    "names": (lambda: Named(), r"item 0: unknown column 'x'. Allowed: signal.*inputs="),
    "numbers": (lambda: Pairs(YS, YS), "item 0 is a single number; expected a sequence"),
    "ranks": (lambda: Pairs([*XS, XS], [*YS, 0]), "row 70 has inputs of another shape"),
    "widths": (lambda: Pairs([*XS[:9], XS[0, :, :2]], YS[:10]), r"row 9 has shape \(5, 2\)"),
    "no numbers": (lambda: Pairs(["abc"] * 3, [0, 1, 0]), "item 0: expected an array of numbers"),
    "too few targets": (lambda: Pairs(XS, YS[:60]), "fails to read items 0 … 69: IndexError"),
    "NaN": (lambda: Pairs(XS.masked_fill(XS[44, 2, 1] == XS, np.nan)), "the input of row 44 holds"),
}  # fmt: skip


@pytest.mark.parametrize("kept", [2**30, 0])
@pytest.mark.parametrize("name", REFUSED)
def test_a_data_set_that_does_not_fit_is_refused(name, kept, monkeypatch):
    monkeypatch.setattr(items, "KEPT_BYTES", kept)
    monkeypatch.setattr(items, "ITEMS", 70)
    make, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        task_of(make())


def test_a_data_set_that_changes_is_refused():
    class Noisy(Pairs):
        def __getitem__(self, k):
            x, y = super().__getitem__(k)
            return x + self.reads, y

    with pytest.raises(UserError, match=r"item 0 differs between two reads.*transform="):
        task_of(Noisy())


# Arrays that are mapped from a file


@pytest.mark.parametrize("dtype", ["float32", "float16", ">f8", "uint16", "int8"])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_an_array_on_disk_gives_the_batches_of_one_in_memory(tmp_path, dtype, with_lengths):
    xs = (XS.numpy() * 100).astype(dtype)
    np.save(tmp_path / "xs.npy", xs)
    more = ([len(x) for x in RAGGED],) if with_lengths else ()
    mapped = np.load(tmp_path / "xs.npy", mmap_mode="r")
    task = task_of((mapped[:, :, :2], YS, *more))
    assert isinstance(task.split("train"), StoredSequences)
    assert_same_batches(task, task_of((xs[:, :, :2], YS, *more)))


def test_an_array_on_disk_is_checked_and_its_row_named(tmp_path):
    xs = np.lib.format.open_memmap(tmp_path / "xs.npy", "w+", "float32", (70, 5, 3))
    xs[:] = XS
    xs[33, 2, 1] = np.nan
    with pytest.raises(UserError, match="the input of row 33 holds NaN"):
        task_of((xs, YS))


def test_memory_holds_a_block_of_an_array_on_disk(tmp_path, monkeypatch):
    def private():
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

    shape = (2_000, 128, 256)  # 250 MiB of float32
    xs = np.lib.format.open_memmap(tmp_path / "xs.npy", "w+", "float32", shape)
    xs[:, 0, 0] = np.arange(2_000)
    ys = np.lib.format.open_memmap(tmp_path / "ys.npy", "w+", "int64", (2_000,))
    ys[:] = np.arange(2_000) % 2
    xs, ys = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("xs", "ys"))
    monkeypatch.setattr(reader, "BLOCK_BYTES", 2**23)
    monkeypatch.setattr("thalnet_mtl.tasks.splits.checks.BLOCK_BYTES", 2**23)
    before = most = private()
    task = task_of((xs, ys))
    seen = []
    for step in range(40):
        batch = task.training_batch(step, 50, 1, 0)
        seen += batch.xs[:, 0, 0].long().tolist()
        most = max(most, private())
    assert sorted(seen) == list(range(2_000))
    assert most - before < 100


def test_a_text_on_disk_is_not_copied(tmp_path):
    tokens = (np.arange(5000) % 300).astype("uint16")
    tokens.tofile(tmp_path / "tokens")
    for dtype in ("uint16", "int32", "uint8"):
        stored = tokens if dtype == "uint16" else (tokens % 200).astype(dtype)
        stored.tofile(tmp_path / "tokens")
        mapped = np.memmap(tmp_path / "tokens", dtype, "r")
        task = TextTask("own", lambda m=mapped: dict.fromkeys(SPLITS, m), 300).load("cpu")
        same = TextTask("own", lambda s=stored: dict.fromkeys(SPLITS, s), 300).load("cpu")
        for a, b in zip(task.iterate("test", 4, 7), same.iterate("test", 4, 7), strict=True):
            assert torch.equal(a.xs, b.xs) and torch.equal(a.ys, b.ys)
        if dtype != "uint16":
            assert np.shares_memory(task.split("train").numpy(), mapped)


def test_classes_without_a_sequence_are_told():
    notices = [task_of((XS, ys)).notices for ys in (YS, YS + 1, 3 * YS, YS.clamp(min=1))]
    assert notices == [
        (),
        ("class 0 has no training row.",),
        ("classes 1, 2, 4 and 1 more have no training row.",),
        ("class 0 has no training row.",),
    ]
