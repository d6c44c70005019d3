"""Plugins in programs of Avalanche: growth, metrics and the logger."""

import math
import re
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche_fixtures import network_for, silent, strategy_of, tasks
from torch.nn import functional as F
from toy_tasks import toy_rows, toy_text, toy_turned, toy_wide

from thalnet_mtl import Network, ThalNet, UserError
from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.avalanche.model import as_avalanche
from thalnet_mtl.avalanche.plugins import Growth, RichLogger, StreamMetrics
from thalnet_mtl.config.schema import GrowthConfig, ModuleConfig
from thalnet_mtl.console import Console

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]


def test_to_evaluate_changes_nothing():
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows, b=toy_rows)
    stream, network = benchmark(loaded), network_for(tasks(a=toy_rows))
    growth = Growth(
        GrowthConfig("per_task", "frozen", {"own": ModuleConfig(features=4, output=True)})
    )
    strategy = strategy_of(Naive, as_avalanche(network, loaded), plugins=[growth])
    before = deepcopy(network.state_dict())
    with pytest.raises(UserError, match="task 'b' has no head yet"):
        strategy.eval(stream.test_stream)
    strategy.eval(stream.test_stream[:1])
    after = network.state_dict()
    assert before.keys() == after.keys() and network.training is False
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ["Naive", "EWC", "Replay"])
def test_what_is_frozen_answers_to_the_bit_as_before(kind):
    from avalanche.training import supervised

    loaded = tasks(a=toy_rows, b=toy_turned, c=toy_wide)
    stream, network = (
        benchmark(loaded, limit=100),
        Network(ThalNet(inputs=3, modules=2, features=5)),
    )
    growth = GrowthConfig(
        "per_task", "frozen", {"own": ModuleConfig(features=4, output=True, input=True)}
    )
    model = as_avalanche(network, loaded)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    knobs = {"EWC": {"ewc_lambda": 1.0}, "Replay": {"mem_size": 30}}.get(kind, {})
    strategy = strategy_of(
        getattr(supervised, kind), model, optimizer=optimizer, plugins=[Growth(growth)], **knobs
    )
    xs, seen = torch.rand(5, 4, 3), {}
    for name, experience in zip(loaded, stream.train_stream, strict=True):
        strategy.train(experience)
        network.eval()
        for old, logits in seen.items():
            assert torch.equal(network(old, xs)[0], logits)
        if name != "c":  # of another shape
            seen[name] = network(name, xs)[0]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in network.parameters() if p.requires_grad}
    assert list(network.adapters) == ["a", "b", "c"]


def test_moments_of_what_goes_on_learning_survive_growth():
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows, b=toy_wide)
    stream, network = (
        benchmark(loaded, limit=100),
        Network(ThalNet(inputs=3, modules=2, features=5)),
    )
    model = as_avalanche(network, loaded)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    growth = GrowthConfig("per_task", "shared", {"own": ModuleConfig(features=4, input=True)})
    strategy = strategy_of(Naive, model, optimizer=optimizer, plugins=[Growth(growth)])
    strategy.train(stream.train_stream[0])
    name = "body.cells.input.design.stack.0.weight"
    before = optimizer.state[dict(network.named_parameters())[name]]["exp_avg"].clone()
    seen = []

    class Look(Growth):
        def before_training_exp(self, strategy, *args, **options):
            super().before_training_exp(strategy, *args, **options)
            seen.append(optimizer.state[dict(network.named_parameters())[name]]["exp_avg"].clone())

    strategy.plugins[0] = Look(growth)
    strategy.train(stream.train_stream[1])
    assert torch.equal(seen[0], before) and before.abs().sum() > 0


@pytest.mark.parametrize("rule", ["on_plateau", "search"])
def test_growth_that_needs_validation_scores_is_refused_from_their_side(rule):
    with pytest.raises(UserError, match=f"growth.when '{rule}' needs validation scores"):
        Growth(GrowthConfig(rule))


def test_measures_equal_those_of_avalanche():
    from avalanche.evaluation.metrics import (
        accuracy_metrics,
        bwt_metrics,
        forgetting_metrics,
        forward_transfer_metrics,
    )
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows, b=toy_turned, c=toy_rows)
    stream = benchmark(loaded)
    ours = StreamMetrics(loaded)
    theirs = [
        accuracy_metrics(stream=True),
        forgetting_metrics(stream=True),
        bwt_metrics(stream=True),
        forward_transfer_metrics(stream=True),
    ]
    model = as_avalanche(network_for(loaded), loaded)
    strategy = strategy_of(
        Naive,
        model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.03),
        evaluator=silent(ours, *theirs),
        train_epochs=4,
        eval_every=0,
    )
    strategy.eval(stream.test_stream)
    for experience in stream.train_stream:
        strategy.train(experience, eval_streams=[stream.test_stream])
    measures = strategy.eval(stream.test_stream)

    def value(start):
        return next(v for k, v in measures.items() if k.startswith(start))

    def ours_of(name):
        return measures[f"{name}/eval_phase/test_stream"]

    assert ours_of("ACC") == pytest.approx(value("Top1_Acc_Stream"), abs=1e-12)
    assert ours_of("forgetting (Avalanche)") == pytest.approx(value("StreamForgetting"), abs=1e-12)
    assert ours_of("BWT") == pytest.approx(value("StreamBWT"), abs=1e-12)
    assert ours_of("FWT") == pytest.approx(value("StreamForwardTransfer"), abs=1e-12)
    assert ours_of("BWT") != 0


def test_scores_of_a_batch_of_several_tasks_are_those_of_each_alone():
    loaded = tasks(a=toy_rows, b=toy_wide)
    network = network_for(loaded)
    metrics = StreamMetrics(loaded)
    batches = {name: next(task.iterate("test", 40, 7)) for name, task in loaded.items()}
    widest = max(task.spec.outputs for task in loaded.values())
    outputs, labels, ys = [], [], []
    for k, (name, batch) in enumerate(batches.items()):
        logits = network(name, batch.xs)[0]
        outputs += [F.pad(row, (0, widest - len(row)), value=-1000.0) for row in logits]
        labels += [k] * len(batch.ys)
        ys += list(batch.ys)
    seen = SimpleNamespace(
        mb_task_id=torch.tensor(labels), mb_output=outputs, mb_y=ys,
        clock=SimpleNamespace(train_iterations=0),
        experience=SimpleNamespace(origin_stream=SimpleNamespace(name="test")),
    )  # fmt: skip
    metrics.after_eval_iteration(seen)
    metrics.after_eval(seen)
    for name, batch in batches.items():
        correct = network(name, batch.xs)[0].argmax(-1) == batch.ys
        assert metrics.rows["test"][-1][name] == correct.double().mean().item()


def test_bits_are_measured_in_bits():
    from avalanche.training import Naive

    loaded = tasks(b=toy_text)
    stream, network = benchmark(loaded, chunk=7), network_for(loaded)
    strategy = strategy_of(
        Naive, as_avalanche(network, loaded), evaluator=silent(StreamMetrics(loaded))
    )
    strategy.train(stream.train_stream[0])
    measures = strategy.eval(stream.test_stream)
    xs, ys, _ = loaded["b"].sequences("test", 7)
    with torch.no_grad():
        nats = F.cross_entropy(network("b", xs.long())[0].flatten(0, 1), ys.flatten().long())
    found = measures["ACC/eval_phase/test_stream"]
    assert found == pytest.approx(float(nats) / 0.6931471805599453, rel=1e-5)


def test_the_logger_prints_lines_where_there_is_no_terminal(capsys):
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows)
    evaluator = EvaluationPlugin(StreamMetrics(loaded), loggers=[RichLogger(Console())])
    strategy = strategy_of(Naive, as_avalanche(network_for(loaded), loaded), evaluator=evaluator)
    strategy.train(benchmark(loaded).train_stream[0])
    strategy.eval(benchmark(loaded).test_stream)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "experience 1: a …"
    assert re.fullmatch(r"  step 12  ACC/eval_phase/test_stream 0\.\d{4}", lines[1])


def test_each_stream_has_measures_of_its_own_in_any_order():
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows, b=toy_turned)
    stream, found = benchmark(loaded), []
    for order in (["test"], ["test", "train", "valid"], ["train", "valid", "test"]):
        model = as_avalanche(network_for(loaded), loaded)
        strategy = strategy_of(Naive, model, evaluator=silent(StreamMetrics(loaded)))
        for experience in stream.train_stream:
            strategy.train(experience)
            for name in order:
                measures = strategy.eval(stream.streams[name])
        by_stream = {
            name: {k: v for k, v in measures.items() if k.endswith(f"/{name}_stream")}
            for name in order
        }
        assert len(measures) == sum(map(len, by_stream.values()))
        found.append(by_stream)
    assert found[0]["test"] == found[1]["test"] == found[2]["test"]
    assert found[1] == found[2]
    assert found[1]["train"] != {k.replace("test", "train"): v for k, v in found[1]["test"].items()}


def test_a_measure_that_is_no_longer_defined_does_not_keep_its_old_value():
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows, b=toy_turned, c=toy_rows)
    stream, metrics = benchmark(loaded), StreamMetrics(loaded)
    model = as_avalanche(network_for(loaded), loaded)
    strategy = strategy_of(Naive, model, evaluator=silent(metrics))
    strategy.eval(stream.test_stream)
    strategy.train(stream.train_stream[0])
    strategy.train(stream.train_stream[1])  # without an evaluation after the first
    strategy.eval(stream.test_stream)
    name = "ACC/eval_phase/test_stream"
    assert 0 <= strategy.evaluator.get_last_metrics()[name] <= 1
    strategy.train(stream.train_stream[2])
    measures = strategy.eval(stream.test_stream[:1])  # two of three tasks have no score
    assert math.isnan(measures[name]) and metrics.result() == {}
    assert 0 <= strategy.eval(stream.test_stream)[name] <= 1


def test_a_task_that_returns_when_it_is_frozen_is_refused_in_words():
    from avalanche.training import Naive

    loaded = tasks(a=toy_rows, b=toy_turned)
    stream, network = benchmark(loaded, [["a"], ["b"], ["a"]]), network_for(tasks(a=toy_rows))
    growth = GrowthConfig("per_task", "frozen", {"own": ModuleConfig(features=4, output=True)})
    strategy = strategy_of(Naive, as_avalanche(network, loaded), plugins=[Growth(growth)])
    for experience in stream.train_stream[:2]:
        strategy.train(experience)
    with pytest.raises(UserError, match=r"nothing that task 'a' uses can be trained. With growth."):
        strategy.train(stream.train_stream[2])
