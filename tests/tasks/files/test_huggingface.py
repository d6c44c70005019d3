"""Tests of tasks on data sets of Hugging Face, from local files."""

import json

import pytest
import torch

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.files.huggingface import huggingface

PARTS = ("train", "validation", "test")
TEXTS = ["good", "bad", "very good", "not bad at all", "gut ä"] * 8


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of one's own, with the cache of the library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def lines(name="a.jsonl", rows=None):
    """Write rows as JSON, a line each."""
    rows = rows or [{"text": t, "mood": "+" if "good" in t else "-", "n": len(t)} for t in TEXTS]
    with open(name, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return name


def test_a_text_has_a_class_and_its_bytes_are_tokens():
    task = huggingface(lines(), "text", ["mood"]).load("cpu")
    assert task.spec.tokens and task.spec.inputs == 256 and task.class_names == ("+", "-")
    seen = 0
    for part in PARTS:
        for batch in task.iterate(part, 3, 0):
            for xs, y, length in zip(batch.xs, batch.ys, batch.lengths, strict=True):
                text = bytes(xs[:length].tolist()).decode()
                assert text in TEXTS and ("good" in text) == (task.class_names[y] == "+")
                assert not xs[length:].any()
                seen += 1
    assert seen == len(TEXTS) and len(task.split("train")) == 28


def test_characters_that_training_lacks_become_one_token():
    texts = {"train": ["abc", "cab"], "validation": ["ab", "xy"], "test": ["a", "b"]}
    files = {
        part: lines(f"{part}.jsonl", [{"t": text, "y": k} for k, text in enumerate(texts[part])])
        for part in PARTS
    }
    task = huggingface(files, "t", ["y"], tokenizer="characters", longest=2).load("cpu")
    assert task.spec.inputs == 5  # a, b, c, the end of a line, any other
    assert task.split("train").xs.tolist() == [[1, 2], [3, 1]]
    assert task.split("validation").xs.tolist() == [[1, 2], [4, 4]]
    assert task.split("test").xs.tolist() == [[1], [2]]


def test_texts_without_outputs_are_read_one_after_another():
    task = huggingface(lines(), "text").load("cpu")
    tokens = task.split("train")
    assert task.carries_state and bytes(tokens.tolist()).decode().split("\n")[0] in TEXTS
    batch = next(task.iterate("train", 2, 10))
    assert torch.equal(batch.xs[:, 1:], batch.ys[:, :-1])


def test_lists_of_numbers_are_steps_and_columns_of_numbers_are_targets():
    rows = [{"x": list(range(k + 1)), "a": k, "b": -k} for k in range(12)]
    task = huggingface(lines(rows=rows), "x", ["a", "b"], target="numbers").load("cpu")
    for part in PARTS:
        batch = next(task.iterate(part, 12, 0))
        assert torch.equal(batch.ys[:, 0], batch.xs.amax((1, 2)))
        assert torch.equal(batch.ys[:, 1], -batch.ys[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "b.jsonl"}, r"no file b\.jsonl in .*Did you mean 'a\.jsonl'"),
        ({"path": {"train": "a.jsonl", "test": "a.pdf"}}, r"unknown kind of file '\.pdf'"),
        ({"inputs": "txet"}, r"inputs: a\.jsonl: unknown column 'txet'.*Did you mean 'text'"),
        ({"outputs": ["mod"]}, r"outputs: a\.jsonl: unknown column 'mod'"),
        ({"outputs": ["mood", "n"]}, r"outputs: a class is one column"),
        ({"outputs": ["mood"], "target": "numbers"}, r"train: targets must be numbers"),
        ({"splits": {"tset": "a"}}, r"splits: unknown split 'tset'"),
        ({"splits": {"test": "dev"}}, r"splits: a\.jsonl: unknown split 'dev'\. Allowed: train"),
        ({"fractions": (1, 0, 0)}, r"fractions \[1, 0, 0\]: expected three numbers above 0"),
        ({"inputs": "n", "outputs": []}, r"column 'n': the next token is that of texts"),
    ],
)
def test_a_mistake_is_one_line(change, message):
    options = {"path": lines(), "inputs": "text", "outputs": ["mood"]} | change
    with pytest.raises(UserError, match=message) as error:
        huggingface(**options)
    assert "\n" not in str(error.value)


def test_an_empty_text_and_a_damaged_file_are_named():
    with pytest.raises(UserError, match=r"column 'text': row \d+ is empty"):
        huggingface(lines(rows=[{"text": "", "y": 1}] * 20), "text", ["y"])
    with open("b.jsonl", "w") as file:
        file.write("{no json")
    with pytest.raises(UserError, match=r"b\.jsonl cannot be loaded: ") as error:
        huggingface("b.jsonl", "text", ["y"])
    assert "\n" not in str(error.value)


def test_numbers_are_standardized_on_request():
    rows = [{"x": [k, k + 1.0, k + 2.0], "y": 1000.0 + k} for k in range(40)]
    task = huggingface(lines(rows=rows), "x", ["y"], "numbers", standardize=True).load("cpu")
    batch = next(task.iterate("train", 28, 0))
    for part in (batch.xs, batch.ys):
        assert abs(part.mean()) < 1e-5 and part.std(correction=0) == pytest.approx(1, abs=1e-5)
    assert task.in_units(batch.ys).min() >= 999.9
    with pytest.raises(UserError, match="standardize scales numbers; without outputs"):
        huggingface(lines(), "text", standardize=True)
