"""The whole story from Python: build, train, save, load and read results, without a config file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_tasks import STREAM

import thalnet_mtl
from thalnet_mtl import (
    Config,
    Design,
    LossWeighting,
    ModuleSpec,
    Network,
    Reading,
    SequenceTask,
    Strategy,
    TaskSpec,
    ThalNet,
    UserError,
    load_config,
    load_model,
    load_run,
    register,
    registry,
    save_model,
    train,
)
from thalnet_mtl.config.schema import ModelConfig, TaskConfig
from thalnet_mtl.config.training import EvaluateConfig, TrainConfig
from thalnet_mtl.models.baselines import MLP, StackedLSTM
from thalnet_mtl.models.stacked_gru import StackedGRU

PUBLIC = [
    *("ThalNet", "Network", "ModuleSpec", "TaskSpec", "Body", "RecurrentBody", "PathChooser"),
    *("SequenceTask", "TextTask", "Task"),
    *("Reading", "Design", "Strategy", "LossWeighting", "register"),
    *("GrowthRule", "Search", "search", "StrategyLoop", "Callback", "Tracker"),
    *("Config", "load_config", "train", "load_run", "load_runs", "table"),
    *("load_model", "save_model", "UserError"),
]

TOY = Config(
    model=ModelConfig(features=6, modules=3),
    task=TaskConfig("toy_rows"),
    train=TrainConfig(steps=20, batch=10, learning_rate=0.01),
    evaluate=EvaluateConfig(every=10, batch=50, log_every=5),
)


def test_tab_shows_the_public_names_and_nothing_else():
    assert dir(thalnet_mtl) == sorted([*PUBLIC, "__version__"])
    assert sorted(thalnet_mtl.__all__) == sorted(PUBLIC)
    assert all(getattr(thalnet_mtl, name) is not None for name in dir(thalnet_mtl))
    with pytest.raises(AttributeError, match="module 'thalnet_mtl' has no attribute 'ThalNt'"):
        thalnet_mtl.ThalNt  # noqa: B018


def test_every_public_name_has_a_docstring():
    for name in PUBLIC:
        assert len(getattr(thalnet_mtl, name).__doc__ or "") > 20, name
        assert f"``{name}``" in thalnet_mtl.__doc__, name


def test_the_package_is_imported_without_torch_and_knows_its_version():
    code = "import sys, thalnet_mtl as t; dir(t); t.__version__; t.Config; t.load_config; "
    code += "t.UserError; t.register; t.TaskSpec; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert thalnet_mtl.__version__[0].isdigit() or thalnet_mtl.__version__ == "unknown"


def test_a_type_checker_sees_every_public_name():
    source = Path(thalnet_mtl.__file__).read_text()
    for name in PUBLIC:
        assert f" import {name} as {name}\n" in source, name


def test_a_run_is_trained_and_opened_without_a_config_file(tmp_path):
    result = train(TOY, tmp_path / "a")
    again = train(load_config({"task": {"name": "toy_rows"}}, model=TOY.model, train=TOY.train,
                              evaluate=TOY.evaluate), str(tmp_path / "a"))  # fmt: skip
    assert again == result
    assert 0 <= result.tasks["toy_rows"].test <= 1

    run = load_run(str(tmp_path / "a"))
    assert run.config == TOY and run.result == result
    curve = run.curve("toy_rows", "validation", "accuracy")
    assert curve.shape == (2, 3) and list(curve[:, 0]) == [10, 20]
    assert run.accuracy_matrix.shape == (2, 1)
    assert run.accuracy_matrix[1, 0] == result.tasks["toy_rows"].test
    logits, _ = run.network("toy_rows", torch.rand(2, 4, 3))
    assert logits.shape == (2, 3)


def test_a_stream_has_an_accuracy_matrix(tmp_path):
    config = load_config(STREAM, model=TOY.model, train={"batch": 10, "chunk": 7},
                         evaluate=TOY.evaluate)  # fmt: skip
    train(config, tmp_path / "stream")
    matrix = load_run(tmp_path / "stream").accuracy_matrix
    assert isinstance(matrix, np.ndarray) and matrix.shape == (4, 3)
    assert not np.isnan(matrix).any()


@pytest.mark.parametrize(
    "body",
    [
        lambda: ThalNet(inputs=8, modules=3, features=6),
        lambda: StackedGRU(inputs=8, features=6, layers=2),
        lambda: StackedLSTM(inputs=8, features=6, layers=2),
        lambda: MLP(inputs=8, features=6, layers=2, window=8),
    ],
    ids=["thalnet", "gru", "lstm", "mlp"],
)
def test_a_network_made_by_hand_is_saved_and_loaded(body, tmp_path):
    network = Network(body())
    network.add_task("digits", TaskSpec(inputs=8, outputs=10, steps=8))
    save_model(network, tmp_path / "model")
    xs = torch.rand(3, 8, 8)
    loaded = load_model(tmp_path / "model")
    assert torch.equal(loaded("digits", xs)[0], network.eval()("digits", xs)[0])


def test_a_network_that_has_grown_is_saved_and_loaded(tmp_path):
    network = Network(ThalNet(inputs=8, modules=3, features=6))
    network.add_task("digits", TaskSpec(inputs=8, outputs=10))
    network.freeze(task="digits")
    network.attach(ModuleSpec("new", features=4, context=4, inputs=5, output=True, tasks=("b",)))
    network.add_task("b", TaskSpec(inputs=5, outputs=2))
    save_model(network, str(tmp_path / "model"))
    loaded = load_model(str(tmp_path / "model"))
    for task, width in (("digits", 8), ("b", 5)):
        xs = torch.rand(2, 7, width)
        assert torch.equal(loaded(task, xs)[0], network.eval()(task, xs)[0])
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in loaded.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(train=TrainConfig(steps="many")), "config: train: steps: expected a whole number"),
        (Config(train=TrainConfig(optimizer="adan")), "Did you mean 'adam'"),
        (Config(task="digits_rows"), "task: expected a section of fields"),
        ({"task": "digits_rows"}, "expected a Config"),
        ("digits", "expected a Config"),
    ],
)
def test_a_mistake_in_a_config_made_by_hand_is_one_line_before_anything_is_written(
    config, message, tmp_path
):
    with pytest.raises(UserError, match=message) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_parts_of_a_users_own_are_named_in_a_config(tmp_path, monkeypatch):
    for kind in ("task", "reading", "module", "strategy", "weighting"):
        monkeypatch.setitem(registry._entries, kind, dict(registry.entries(kind)))
    updates = []

    @register("task", "my_task")
    def my_task():
        xs, ys = torch.randint(256, (40, 4, 3), dtype=torch.uint8), torch.arange(40) % 2
        splits = dict.fromkeys(("train", "validation", "test"), (xs, ys))
        return SequenceTask("my_task", lambda: splits, TaskSpec(3, 2, steps=4), scale=255)

    @register("reading", "my_reading")
    class MyReading(Reading):
        def weights(self, features=None):
            return torch.ones(self.context, self.center) / self.center

    @register("module", "my_design")
    class MyDesign(Design):
        layers = ("ff", "gru")

    @register("strategy", "my_strategy")
    class MyStrategy(Strategy):
        def after_update(self, batches):
            updates.append(list(batches))

    @register("weighting", "my_weighting")
    class MyWeighting(LossWeighting):
        def total(self, losses):
            return sum(losses.values())

    config = Config(
        model=ModelConfig(features=6, modules=2, reading="my_reading", module="my_design"),
        task=TaskConfig("my_task"),
        train=TrainConfig(steps=3, batch=8, strategy="my_strategy", combine="my_weighting"),
    )
    result = train(config, tmp_path)
    assert updates == [["my_task"]] * 3 and result.steps == 3
    assert "my_reading" in (tmp_path / "config.yaml").read_text()
    assert load_run(tmp_path).result == result
