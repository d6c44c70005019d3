"""A run goes on with the data with which it began, or says that it is other data."""

import pytest
import torch
from toy_tasks import toy

from thalnet_mtl.errors import Interrupted, UserError
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.training import fingerprint as module
from thalnet_mtl.training.fingerprint import fingerprint
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.trainer import train

SPLITS = ("train", "validation", "test")


def arrays(seed=0):
    """Return inputs, classes and lengths of 60 sequences."""
    generator = torch.Generator().manual_seed(seed)
    xs = torch.rand(60, 5, 2, generator=generator)
    return xs, (xs[:, 0, 0] > 0.5).long(), torch.randint(2, 6, (60,), generator=generator)


def task_of(xs, ys, lengths=None, name="mine"):
    data = (xs, ys) if lengths is None else (xs, ys, lengths)
    return SequenceTask(name, dict.fromkeys(SPLITS, data))


def of(*data):
    return fingerprint(task_of(*data).load("cpu"), 5)


def changed(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


def test_the_fingerprint_is_that_of_inputs_targets_and_lengths():
    xs, ys, lengths = arrays()
    other_lengths = lengths.clone()
    other_lengths[7] = 6 - other_lengths[7] if other_lengths[7] != 3 else 4
    found = [
        of(xs, ys),
        of(changed(xs, (59, 4, 1), 0.25), ys),
        of(xs, changed(ys, 59, 1 - ys[59])),
        of(xs, ys, lengths),
        of(xs, ys, other_lengths),
        of(xs.flip(0), ys.flip(0)),
        of(*arrays(1)[:2]),
    ]
    assert len(set(found)) == len(found)
    blank = torch.zeros_like(xs)  # so that the lengths alone differ
    assert of(blank, ys, lengths) != of(blank, ys, other_lengths)
    assert of(xs.clone(), ys.clone()) == found[0] and of(xs, ys, lengths) == found[3]


def test_of_large_data_evenly_spaced_sequences_and_all_targets_count(monkeypatch):
    xs, ys, _ = arrays()
    monkeypatch.setattr(module, "LARGEST", 10 * 5 * 2 * 4)  # ten sequences: 0, 6, 12, …
    whole = of(xs, ys)
    assert of(changed(xs, (7, 0, 0), 0.1), ys) == whole != of(changed(xs, (6, 0, 0), 0.1), ys)
    assert of(xs, changed(ys, 7, 1 - ys[7])) != whole


def test_the_fingerprint_of_a_text_is_that_of_its_tokens():
    text = torch.arange(200) % 7
    texts = [text, changed(text, 100, 5)]
    tasks = [TextTask("t", lambda t=t: dict.fromkeys(SPLITS, t), vocabulary=7) for t in texts]
    found = [fingerprint(task.load("cpu"), 9) for task in tasks]
    assert found[0] != found[1]


CONFIG = {"task": {"name": "mine"}, "train": {"steps": 12, "batch": 10}, "evaluate": {"every": 4}}


def stop_at(step, monkeypatch):
    after_step = Trainer.after_step

    def stop_early(self, values):
        self.stop_requested = lambda: self.run.step == step
        after_step(self, values)

    monkeypatch.setattr(Trainer, "after_step", stop_early)


def test_a_run_does_not_go_on_with_other_data_of_the_same_shape(tmp_path, monkeypatch):
    xs, ys, _ = arrays()
    other = task_of(changed(xs, (3, 1, 0), 0.5), ys)
    with monkeypatch.context() as context:
        stop_at(7, context)
        with pytest.raises(Interrupted):
            train(toy(**CONFIG), tmp_path / "run", tasks=[task_of(xs, ys)])
    before = (tmp_path / "run" / "checkpoint" / "last.pt").read_bytes()
    with pytest.raises(UserError, match="task 'mine': its training data is not that") as error:
        train(toy(**CONFIG), tmp_path / "run", tasks=[other])
    assert "\n" not in str(error.value)
    assert (tmp_path / "run" / "checkpoint" / "last.pt").read_bytes() == before
    result = train(toy(**CONFIG), tmp_path / "run", tasks=[task_of(xs, ys)])
    assert result.steps == 12
    with pytest.raises(UserError, match="task 'mine': its training data is not that"):
        train(toy(**CONFIG), tmp_path / "run", tasks=[other])  # it has finished
    assert train(toy(**CONFIG), tmp_path / "run", tasks=[task_of(xs, ys)]) == result


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_run_does_not_go_on_with_other_data_to_score(tmp_path, split):
    xs, ys, lengths = arrays()
    parts = dict.fromkeys(SPLITS, (xs, ys, lengths))
    other = parts | {split: (changed(xs, (3, 0, 0), 0.5), ys, lengths)}
    train(toy(**CONFIG), tmp_path, tasks=[SequenceTask("mine", parts)])
    longer = CONFIG | {"train": CONFIG["train"] | {"steps": 20}}
    for config in (CONFIG, longer):
        with pytest.raises(UserError, match="'mine': its validation or test data is not that"):
            train(toy(**config), tmp_path, tasks=[SequenceTask("mine", other)])
    assert train(toy(**longer), tmp_path, tasks=[SequenceTask("mine", parts)]).steps == 20


def test_a_run_does_not_go_on_with_a_file_that_has_changed(tmp_path, monkeypatch):
    rows = [f"{k % 7},{k % 3},{k % 5}" for k in range(400)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["x,z,y", *rows]))
    task = {"name": "csv", "path": str(path), "inputs": ["x", "z"], "outputs": ["y"], "window": 4}
    config = toy(**CONFIG | {"task": task})
    with monkeypatch.context() as context:
        stop_at(7, context)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "run")
    rows[10], rows[12] = rows[12], rows[10]
    path.write_text("\n".join(["x,z,y", *rows]))
    with pytest.raises(UserError, match="task 'csv': its training data is not that"):
        train(config, tmp_path / "run")
    rows[10], rows[12] = rows[12], rows[10]
    path.write_text("\n".join(["x,z,y", *rows]))
    assert train(config, tmp_path / "run").steps == 12
