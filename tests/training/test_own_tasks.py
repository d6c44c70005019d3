"""Tasks from Python, without the registry: trained, resumed, loaded and evaluated."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from thalnet_mtl import SequenceTask, TaskSpec, UserError, load_config, load_run, train
from thalnet_mtl.cli.main import main
from thalnet_mtl.errors import Interrupted
from thalnet_mtl.registry import entries
from thalnet_mtl.training.evaluate import evaluate
from thalnet_mtl.training.loop import Trainer

EXAMPLE = """
import torch
from thalnet_mtl import SequenceTask, load_config, load_run, train
from thalnet_mtl.training.evaluate import evaluate

splits = dict(zip(("train", "validation", "test"), torch.utils.data.random_split(
    dataset, [0.8, 0.1, 0.1], torch.Generator().manual_seed(0)), strict=True))
task = SequenceTask("mine", splits)  # its shape is read from the data
config = load_config(task={"name": "mine"}, train={"epochs": 3}, model={"budget": 5000})
result = train(config, "runs/mine", tasks=[task])  # the same call resumes a run
run = load_run("runs/mine", tasks=[task])
scores = evaluate(run.network, run.task().load("cpu"), "test")
"""


class Waves(Dataset):
    """Sequences of 5 to 9 steps of 2 numbers; the class is whether the first rises."""

    def __len__(self):
        return 200

    def __getitem__(self, k):
        generator = torch.Generator().manual_seed(k)
        steps = int(torch.randint(5, 10, (1,), generator=generator))
        x = torch.rand(steps, 2, generator=generator)
        return x, int(x[-1, 0] > x[0, 0])


def own_task(name="mine", **options):
    data = torch.utils.data.random_split(Waves(), [160, 20, 20], torch.Generator().manual_seed(0))
    splits = dict(zip(("train", "validation", "test"), data, strict=True))
    return SequenceTask(name, splits, **options)


def settings(name="mine", **sections):
    return load_config(
        {"task": {"name": name}, "model": {"modules": 2, "features": 5, "budget": 0}},
        {"train": {"steps": 12, "batch": 20}, "evaluate": {"every": 4, "log_every": 1}},
        **sections,
    )


def test_a_data_set_of_the_user_is_trained_and_evaluated_in_few_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLE.strip().splitlines()) < 15
    variables = {"dataset": Waves()}
    exec(EXAMPLE, variables)
    result, scores = variables["result"], variables["scores"]
    assert scores["accuracy"] == result.tasks["mine"].test
    assert "mine" not in entries("task")
    exec(EXAMPLE, variables)  # the same call returns the result
    assert variables["result"].seconds == result.seconds


def test_a_run_with_an_own_task_and_a_transform_resumes_exactly(tmp_path, monkeypatch):
    def noise(batch, generator):
        return batch._replace(xs=batch.xs + 0.1 * torch.randn(batch.xs.shape, generator=generator))

    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [line.split('"seconds"')[0] for line in lines if '"train"' in line]

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(settings(), whole, tasks=[own_task(transform=noise)])
    after_step = Trainer.after_step

    def stop_early(self, values):
        self.stop_requested = lambda: self.run.step == 7
        after_step(self, values)

    monkeypatch.setattr(Trainer, "after_step", stop_early)
    with pytest.raises(Interrupted):
        train(settings(), stopped, tasks=[own_task(transform=noise)])
    monkeypatch.undo()
    train(settings(), stopped, tasks=[own_task(transform=noise)])
    assert losses(whole) == losses(stopped)
    plain = tmp_path / "plain"
    train(settings(), plain, tasks=[own_task()])
    assert losses(plain) != losses(whole)
    tensors = [load_run(path, tasks=[own_task()]).network.state_dict() for path in (whole, stopped)]
    assert all(torch.equal(a, tensors[1][name]) for name, a in tensors[0].items())


def test_a_transform_changes_training_batches_only():
    def blank(batch, generator):
        return batch._replace(xs=torch.zeros_like(batch.xs))

    task = own_task(transform=blank).load("cpu")
    assert not task.training_batch(0, 10, 1, 0).xs.any()
    assert next(task.iterate("train", 10, 1)).xs.any()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda batch, generator: batch.xs, "transform must return a Batch, not Tensor"),
        (lambda batch, generator: batch._replace(ys=batch.ys[:3]), "transform changes ys"),
        (lambda batch, generator: batch._replace(xs=batch.xs.double()), "transform changes xs"),
    ],
)
def test_a_transform_of_another_shape_is_refused_before_training(tmp_path, transform, message):
    with pytest.raises(UserError, match=message):
        train(settings(), tmp_path / "run", tasks=[own_task(transform=transform)])
    assert not (tmp_path / "run").exists()


def test_several_tasks_get_their_names_from_a_mapping(tmp_path):
    config = load_config(
        {"tasks": {"first": {}, "second": {}}, "model": {"modules": 2, "features": 5, "budget": 0}},
        {"train": {"steps": 3, "batch": 20}},
    )
    task = own_task()
    result = train(config, tmp_path / "run", tasks={"first": task, "second": task})
    assert list(result.tasks) == ["first", "second"]
    assert task.name == "mine" and not task.splits  # the task of the user is as it was


def test_tasks_that_do_not_fit_the_configuration_are_refused(tmp_path):
    def refused(message, config, tasks):
        with pytest.raises(UserError, match=message):
            train(config, tmp_path / "run", tasks=tasks)

    refused("unknown task 'mine'.*Did you mean 'mined'", settings("mined"), [own_task()])
    refused("unknown task 'mine'", settings(), [])
    refused(
        "'digits_rows' is registered already", settings("digits_rows"), [own_task("digits_rows")]
    )
    refused("expected tasks, got int", settings(), [3])
    refused("two of them have the name 'mine'", settings(), [own_task(), own_task()])


def test_a_run_says_which_task_it_misses(tmp_path, capsys):
    folder = tmp_path / "run"
    train(settings(train={"steps": 1}), folder, tasks=own_task())
    with pytest.raises(UserError, match=r"has a task 'mine' that is not registered.*tasks="):
        load_run(folder)
    assert main(["evaluate", str(folder)]) == 2
    assert "has a task 'mine' that is not registered" in capsys.readouterr().err
    run = load_run(folder, tasks={"mine": own_task()})
    scores = evaluate(run.network, run.task().load("cpu"), "test")
    assert scores["accuracy"] == run.result.tasks["mine"].test
    assert main(["compare", str(folder)]) == 0


def test_tasks_of_one_head_with_different_classes_are_class_incremental(tmp_path):
    def pair(low):
        data = torch.rand(60, 3, 2), low + torch.arange(60) % 2
        return SequenceTask(
            f"from_{low}", dict.fromkeys(("train", "validation", "test"), data), spec=own_spec
        )

    own_spec = TaskSpec(2, 4, steps=3)
    config = load_config(
        {
            "tasks": {"from_0": {"head": "all"}, "from_2": {"head": "all"}},
            "stream": [{"tasks": ["from_0"]}, {"tasks": ["from_2"]}],
            "model": {"modules": 2, "features": 4, "budget": 0},
            "train": {"steps": 3, "batch": 10},
        }
    )
    result = train(config, Path(tmp_path) / "run", tasks=[pair(0), pair(2)])
    assert result.continual.scenario == "class-incremental"
