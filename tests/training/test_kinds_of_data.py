"""Kinds of data that no built-in task has, from arrays to a trained network."""

import pytest
import torch

from thalnet_mtl import SequenceTask, load_config, train


def splits_of(xs, ys):
    parts = {"train": slice(0, 200), "validation": slice(200, 240), "test": slice(240, 300)}
    return {name: (xs[part], ys[part]) for name, part in parts.items()}


def trained(task, folder, body="thalnet", steps=120):
    config = load_config(
        {
            "task": {"name": task.name},
            "model": {"body": body, "modules": 2, "features": 12, "layers": 1, "budget": 0},
            "train": {"steps": steps, "batch": 40, "learning_rate": 0.02, "optimizer": "adam"},
        }
    )
    result = train(config, folder, tasks=[task]).tasks[task.name]
    return result.test


@pytest.mark.parametrize("body", ["thalnet", "gru"])
def test_a_text_has_one_class(tmp_path, body):
    generator = torch.Generator().manual_seed(0)
    texts = [
        torch.randint(1, 5, (int(n),), generator=generator)
        for n in torch.randint(2, 9, (300,), generator=generator)
    ]
    classes = torch.tensor([int(text[0] > 2) for text in texts])
    task = SequenceTask("texts", splits_of(texts, classes))
    assert task.spec.tokens and task.spec.inputs == 5 and not task.spec.every_step
    score = trained(task, tmp_path / "run", body)
    assert score > 0.95


@pytest.mark.parametrize("body", ["thalnet", "gru"])
def test_every_row_of_numbers_has_a_class(tmp_path, body):
    generator = torch.Generator().manual_seed(0)
    xs = [
        torch.rand(int(n), 3, generator=generator)
        for n in torch.randint(2, 9, (300,), generator=generator)
    ]
    # Which number was the largest in the row before; none is known for the first row.
    classes = [x.argmax(-1).roll(1) for x in xs]
    for ys in classes:
        ys[0] = -100
    task = SequenceTask("rows", splits_of(xs, classes))
    assert task.spec.every_step and task.spec.outputs == 3 and not task.spec.tokens
    score = trained(task, tmp_path / "run", body, steps=200)
    assert score > 0.8
