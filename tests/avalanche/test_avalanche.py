"""The bridge: our tasks, network, growth and metrics in Avalanche's hands."""

import ast
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from torch.nn import functional as F
from toy_tasks import toy, toy_rows, toy_text, toy_wide

import thalnet_mtl
from thalnet_mtl import Network, ThalNet, UserError
from thalnet_mtl.avalanche import runner
from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.avalanche.model import UNUSED_LOGIT, Loss, as_avalanche
from thalnet_mtl.avalanche.names import STRATEGIES
from thalnet_mtl.avalanche.plugins import Growth, RichLogger, StreamMetrics
from thalnet_mtl.avalanche.ragged import RaggedBatch, collate, stack
from thalnet_mtl.avalanche.strategies import PLUGINS
from thalnet_mtl.cli.main import main
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import GrowthConfig, ModuleConfig, StrategyConfig
from thalnet_mtl.console import Console
from thalnet_mtl.files import read_json
from thalnet_mtl.training.trainer import Interrupted, Trainer, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]

TABLE = Path(__file__).parents[2] / "benchmarks/continual/README.md"


def tasks(**makers):
    """Toy tasks by name, loaded."""
    return {name: make(None).named(name).load("cpu") for name, make in makers.items()}


def network_for(known, **options):
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=3, modules=2, features=5, **options))
    for name, task in known.items():
        network.add_task(name, task.spec)
    return network


def strategy_of(kind, model, **options):
    """Of Avalanche's own classes, as its users make them."""
    options = {"train_mb_size": 25, "eval_mb_size": 50, "evaluator": silent()} | options
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=0.1)
    return kind(model=model, optimizer=optimizer, criterion=Loss(), **options)


def silent(*metrics):
    return EvaluationPlugin(*metrics, loggers=[runner._SilentLogger()])


# Data


def test_an_experience_holds_the_parts_of_its_tasks_labelled_by_their_order():
    known = tasks(a=toy_rows, b=toy_text)
    found = benchmark(known, [["b"], ["a", "b"]], chunk=7)
    assert [one.task_labels for one in found.train_stream] == [[1], [0, 1]]
    assert [len(one.dataset) for one in found.train_stream] == [285, 300 + 285]
    assert [len(one.dataset) for one in found.test_stream] == [71, 100 + 71]
    assert [len(one.dataset) for one in found.valid_stream] == [71, 60 + 71]
    assert found.train_stream[1].classes_in_this_experience == [0, 1, 2]
    x, y, label = found.train_stream[0].dataset[3]
    tokens = known["b"].split("train")
    assert x.tolist() == tokens[21:28].tolist() and y.tolist() == tokens[22:29].tolist()
    assert label == 1
    x, y, label = found.train_stream[1].dataset[4]
    assert torch.equal(x, known["a"].split("train").xs[4] / 255) and label == 0
    assert int(y) == int(known["a"].split("train").ys[4])


def test_a_limit_draws_among_training_sequences_only():
    found = benchmark(tasks(a=toy_rows), limit=40)
    assert len(found.train_stream[0].dataset) == 40 and len(found.test_stream[0].dataset) == 100
    whole = {
        tuple(x.flatten().tolist())
        for x, *_ in benchmark(tasks(a=toy_rows)).train_stream[0].dataset
    }
    drawn = {tuple(x.flatten().tolist()) for x, *_ in found.train_stream[0].dataset}
    assert len(drawn) == 40 and drawn < whole


def test_a_batch_of_several_shapes_is_a_list_that_can_be_moved_and_indexed():
    parts = [torch.zeros(2, 3), torch.ones(4), 2 * torch.ones(2, 3)]
    batch = stack(parts)
    assert isinstance(batch, RaggedBatch) and len(batch) == 3
    assert batch[1] is parts[1] and torch.equal(batch[[0, 2]], torch.stack(parts[::2]))
    assert torch.equal(batch[torch.tensor([True, False, True])], torch.stack(parts[::2]))
    assert isinstance(batch[:2], RaggedBatch) and batch.to(torch.float64)[1].dtype == torch.float64
    assert torch.equal(stack(parts[::2]), torch.stack(parts[::2]))
    xs, ys, labels = collate([(parts[0], 1, 0), (parts[1], torch.tensor([2, 3]), 1)])
    assert isinstance(xs, RaggedBatch) and isinstance(ys, RaggedBatch) and labels.tolist() == [0, 1]


# Network and loss


def test_in_a_batch_of_several_tasks_each_gets_its_own_logits():
    known = tasks(a=toy_rows, b=toy_wide, c=toy_rows)
    network = network_for(known)
    model = as_avalanche(network, known)
    xs = {
        name: torch.rand(3, *shape) for name, shape in (("a", (4, 3)), ("b", (5, 4)), ("c", (4, 3)))
    }
    names = ["c", "b", "a", "b", "c", "a"]
    batch = stack([xs[name][k % 3] for k, name in enumerate(names)])
    out = model(batch, torch.tensor([list(known).index(name) for name in names]))
    for k, name in enumerate(names):
        logits = network(name, xs[name][k % 3][None])[0][0]
        torch.testing.assert_close(out[k, : len(logits)], logits)
        assert (out[k, len(logits) :] == UNUSED_LOGIT).all()
    assert torch.equal(model(xs["a"], torch.zeros(3).long()), network("a", xs["a"])[0])


def test_answers_at_every_step_and_at_the_last_one_may_meet():
    known = tasks(a=toy_rows, b=toy_text)
    network = network_for(known)
    xs, text = torch.rand(2, 4, 3), torch.randint(5, (1, 7))
    out = as_avalanche(network, known)(
        RaggedBatch([xs[0], text[0], xs[1]]), torch.tensor([0, 1, 0])
    )
    ys = RaggedBatch([torch.tensor(2), torch.randint(5, (7,)), torch.tensor(0)])
    losses = [F.cross_entropy(network("a", xs[k][None])[0][0], ys[2 * k]) for k in range(2)]
    losses.append(F.cross_entropy(network("b", text)[0][0], ys[1]))
    torch.testing.assert_close(Loss()(out, ys), torch.stack(losses).mean())


def test_the_loss_is_cross_entropy():
    logits, ys = torch.randn(6, 5), torch.randint(5, (6,))
    assert torch.equal(Loss()(logits, ys), F.cross_entropy(logits, ys))
    torch.testing.assert_close(
        Loss()(logits.view(2, 3, 5), ys.view(2, 3)), F.cross_entropy(logits, ys)
    )


def test_without_labels_all_seen_tasks_of_the_shape_answer():
    known = tasks(a=toy_rows, b=toy_wide, c=toy_rows, d=toy_text)
    model = as_avalanche(network_for(known), known)
    model.known_train_tasks_labels = {0, 1, 3}
    assert set(model(torch.rand(2, 4, 3), None)) == {0}
    assert set(model(torch.rand(2, 5, 4), None)) == {1}
    assert set(model(torch.randint(5, (2, 7)), None)) == {3}


def test_to_evaluate_changes_nothing():
    from avalanche.training import Naive

    known = tasks(a=toy_rows, b=toy_rows)
    stream, network = benchmark(known), network_for(tasks(a=toy_rows))
    growth = Growth(
        GrowthConfig("per_task", "frozen", {"own": ModuleConfig(features=4, output=True)})
    )
    strategy = strategy_of(Naive, as_avalanche(network, known), plugins=[growth])
    before = deepcopy(network.state_dict())
    with pytest.raises(UserError, match="task 'b' has no head yet"):
        strategy.eval(stream.test_stream)
    strategy.eval(stream.test_stream[:1])
    after = network.state_dict()
    assert before.keys() == after.keys() and network.training is False
    assert all(torch.equal(before[name], after[name]) for name in before)


# Growth


@pytest.mark.parametrize("kind", ["Naive", "EWC", "Replay"])
def test_what_is_frozen_answers_to_the_bit_as_before(kind):
    from avalanche.training import supervised

    known = tasks(a=toy_rows, b=toy_turned_rows, c=toy_wide)
    stream, network = benchmark(known, limit=100), Network(ThalNet(inputs=3, modules=2, features=5))
    growth = GrowthConfig(
        "per_task", "frozen", {"own": ModuleConfig(features=4, output=True, input=True)}
    )
    model = as_avalanche(network, known)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    knobs = {"EWC": {"ewc_lambda": 1.0}, "Replay": {"mem_size": 30}}.get(kind, {})
    strategy = strategy_of(
        getattr(supervised, kind), model, optimizer=optimizer, plugins=[Growth(growth)], **knobs
    )
    xs, seen = torch.rand(5, 4, 3), {}
    for name, experience in zip(known, stream.train_stream, strict=True):
        strategy.train(experience)
        network.eval()
        for old, logits in seen.items():
            assert torch.equal(network(old, xs)[0], logits)
        if name != "c":  # of another shape
            seen[name] = network(name, xs)[0]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in network.parameters() if p.requires_grad}
    assert list(network.adapters) == ["a", "b", "c"]


def toy_turned_rows(config):
    from toy_tasks import toy_turned

    return toy_turned(config)


def test_moments_of_what_goes_on_learning_survive_growth():
    from avalanche.training import Naive

    known = tasks(a=toy_rows, b=toy_wide)
    stream, network = benchmark(known, limit=100), Network(ThalNet(inputs=3, modules=2, features=5))
    model = as_avalanche(network, known)
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


def test_growth_at_a_plateau_is_refused_from_their_side():
    with pytest.raises(UserError, match="on_plateau"):
        Growth(GrowthConfig("on_plateau"))


# Metrics and logger


def test_measures_equal_those_of_avalanche():
    from avalanche.evaluation.metrics import (
        accuracy_metrics,
        bwt_metrics,
        forgetting_metrics,
        forward_transfer_metrics,
    )
    from avalanche.training import Naive

    known = tasks(a=toy_rows, b=toy_turned_rows, c=toy_rows)
    stream = benchmark(known)
    ours = StreamMetrics(known)
    theirs = [
        accuracy_metrics(stream=True),
        forgetting_metrics(stream=True),
        bwt_metrics(stream=True),
        forward_transfer_metrics(stream=True),
    ]
    model = as_avalanche(network_for(known), known)
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
    found = strategy.eval(stream.test_stream)

    def value(start):
        return next(v for k, v in found.items() if k.startswith(start))

    assert found["ACC/eval_phase"] == pytest.approx(value("Top1_Acc_Stream"), abs=1e-12)
    assert found["forgetting (Avalanche)/eval_phase"] == pytest.approx(
        value("StreamForgetting"), abs=1e-12
    )
    assert found["BWT/eval_phase"] == pytest.approx(value("StreamBWT"), abs=1e-12)
    assert found["FWT/eval_phase"] == pytest.approx(value("StreamForwardTransfer"), abs=1e-12)
    assert found["BWT/eval_phase"] != 0


def test_bits_are_measured_in_bits():
    from avalanche.training import Naive

    known = tasks(b=toy_text)
    stream, network = benchmark(known, chunk=7), network_for(known)
    strategy = strategy_of(
        Naive, as_avalanche(network, known), evaluator=silent(StreamMetrics(known))
    )
    strategy.train(stream.train_stream[0])
    found = strategy.eval(stream.test_stream)
    xs, ys = known["b"].sequences("test", 7)
    with torch.no_grad():
        nats = F.cross_entropy(network("b", xs.long())[0].flatten(0, 1), ys.flatten().long())
    assert found["ACC/eval_phase"] == pytest.approx(float(nats) / 0.6931471805599453, rel=1e-5)


def test_the_logger_prints_lines_where_there_is_no_terminal(capsys):
    from avalanche.training import Naive

    known = tasks(a=toy_rows)
    evaluator = EvaluationPlugin(StreamMetrics(known), loggers=[RichLogger(Console())])
    strategy = strategy_of(Naive, as_avalanche(network_for(known), known), evaluator=evaluator)
    strategy.train(benchmark(known).train_stream[0])
    strategy.eval(benchmark(known).test_stream)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "experience 1: a …"
    assert re.fullmatch(r"  step 12  ACC/eval_phase 0\.\d{4}", lines[1])


# Their strategies: every cell of the table in benchmarks/continual/README.md

TWICE = [  # RWalk looks at every tenth step
    {"tasks": ["a"], "steps": 11},
    {"tasks": ["b"], "steps": 11},
]
OWN = {"own": {"input": True, "output": True, "features": 4, "context": 4}}
SETTINGS = {
    "one shape": {"tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_turned"}}},
    "shapes that differ": {"tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_wide"}}},
    "text": {"tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_text"}}},
    "one experience of two shapes": {
        "tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_wide"}},
        "stream": [{"tasks": ["a"], "steps": 11}, {"tasks": ["a", "b"], "steps": 11}],
    },
    "grows, all learn": {
        "tasks": {name: {"name": "toy_rows"} for name in "abc"},
        "stream": [{"tasks": [name], "steps": 6} for name in "abc"],
        "growth": {"when": "per_task", "policy": "shared", "modules": OWN},
    },
    "grows, old frozen": {
        "tasks": {name: {"name": "toy_rows"} for name in "abc"},
        "stream": [{"tasks": [name], "steps": 6} for name in "abc"],
        "growth": {"when": "per_task", "policy": "frozen", "modules": OWN},
    },
}


def configured(name, setting="one shape", **knobs):
    sections = {"stream": TWICE} | SETTINGS[setting]
    return toy(
        **sections,
        model={"modules": 2, "features": 5},
        strategy={"memory": 30} | knobs,
        train={"strategy": f"avalanche:{name}", "optimizer": "adam"},
    )


def table():
    """Status by strategy and setting, as the README says it."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in TABLE.read_text().splitlines()
        if line.startswith("|")
    ]
    start = next(k for k, row in enumerate(rows) if row[0] == "`avalanche:…`")
    head = rows[start][1:]
    return {row[0].strip("`"): dict(zip(head, row[1:], strict=True)) for row in rows[start + 2 :]}


def test_the_table_has_all_strategies_and_settings():
    assert set(table()) == {*STRATEGIES, "si", "der"} and set(PLUGINS) == set(STRATEGIES)
    assert all(list(row) == list(SETTINGS) for row in table().values())
    assert {word for row in table().values() for word in row.values()} == {
        "works", "stops", "does nothing",
    }  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_works_trains_and_what_stops_is_refused_and_would_stop(
    name, setting, tmp_path, monkeypatch
):
    config = configured(name, setting)
    if table()[name][setting] == "works":
        found = train(config, tmp_path / "run").to_json()["continual"]
        assert found["strategy"] == f"avalanche:{name}"
        assert all(score is not None for score in found["scores"][-1])
        return
    assert table()[name][setting] == "stops"
    with pytest.raises(UserError, match=f"avalanche:{name}"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    if (name, setting) == ("lwf", "text"):  # would go on, and distil nothing
        return
    monkeypatch.setattr(runner, "check", lambda config: None)
    with pytest.raises(
        (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, UserError)
    ):
        train(config, tmp_path / "run")


KNOBS = {
    "ewc": {"strength": 1e3},
    "online_ewc": {"strength": 1e3},
    "mas": {"strength": 10},
    "rwalk": {"strength": 1},
    "lwf": {"strength": 10},
    "replay": {"memory": 100},
    "gdumb": {"memory": 100},
    "agem": {"memory": 100},
    "gem": {"memory": 100},
}
WITHOUT = {"strength": {"strength": 0.0}, "memory": {"memory": 10}}


@pytest.mark.parametrize("name", KNOBS)
def test_what_works_does_something(name, tmp_path):
    weak = WITHOUT[next(iter(KNOBS[name]))]
    ends = []
    for number, knobs in enumerate((KNOBS[name], weak, weak)):
        folder = tmp_path / str(number)
        train(configured(name, **knobs), folder)
        network, *_ = [thalnet_mtl.load_model(folder / "model")]
        ends.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(ends[1], ends[2])  # and the same again is the same
    assert not torch.equal(ends[0], ends[1])


@pytest.mark.parametrize("strength", [1.0, 1e6])
def test_their_synaptic_intelligence_does_nothing(strength):
    from avalanche.training import SynapticIntelligence

    known, ends = tasks(a=toy_rows, b=toy_turned_rows), []
    for factor in (0.0, strength):
        torch.manual_seed(0)
        model = as_avalanche(network_for(known), known)
        strategy = strategy_of(SynapticIntelligence, model, si_lambda=factor)
        for experience in benchmark(known).train_stream:
            strategy.train(experience)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        importances = strategy.plugins[0].ewc_data[1].values()
        assert all(bool((found.data == 0).all()) for found in importances)
    assert torch.equal(*ends)


def test_their_dark_experience_replay_asks_without_a_label():
    from avalanche.training.supervised import DER

    known = tasks(a=toy_rows, b=toy_turned_rows)
    strategy = strategy_of(DER, as_avalanche(network_for(known), known))
    with pytest.raises(TypeError, match="task_labels"):
        strategy.train(benchmark(known).train_stream[0])


def test_joint_training_carries_three_shapes():
    from avalanche.training import JointTraining

    known = tasks(a=toy_rows, b=toy_wide, c=toy_text)
    stream, network = benchmark(known, chunk=7), network_for(known)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    metrics = StreamMetrics(known)
    strategy = strategy_of(
        JointTraining,
        as_avalanche(network, known),
        optimizer=optimizer,
        train_epochs=5,
        evaluator=silent(metrics),
    )
    strategy.eval(stream.test_stream)
    before = dict(metrics.rows[0])
    strategy.train(stream.train_stream)
    strategy.eval(stream.test_stream)
    after = metrics.rows[-1]
    assert after["a"] > before["a"] and after["b"] > before["b"] and after["c"] < before["c"]


# From our side


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_their_naive_loop_computes_what_ours_does(optimizer, tmp_path):
    sections = SETTINGS["one shape"] | {"stream": TWICE}
    found = []
    for name in ("naive", "avalanche:naive"):
        options = {"strategy": name, "optimizer": optimizer, "batch": 300, "clip": 0.5, "warmup": 3}
        config = toy(**sections, model={"modules": 2, "features": 5}, train=options)
        train(config, tmp_path / name)
        network = thalnet_mtl.load_model(tmp_path / name / "model")
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    # A batch of all sequences is the same in any order.
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_net_grows_at_a_plateau_in_their_loop_as_in_ours(tmp_path):
    """Nothing gets better at a rate of zero: the third look of an experience is the second bad."""
    sections = {"tasks": {name: {"name": "toy_rows"} for name in "ab"}}
    sections["stream"] = [{"tasks": [name], "steps": 12} for name in "ab"]
    sections["growth"] = {"when": "on_plateau", "policy": "shared", "patience": 2, "modules": OWN}
    grown = []
    for name in ("naive", "avalanche:naive"):
        options = {"strategy": name, "optimizer": "sgd", "learning_rate": 0.0}
        config = toy(**sections, train=options, evaluate={"every": 3})
        train(config, tmp_path / name)
        history = read_json(tmp_path / name / "topology.json")["history"]
        grown.append([(x["step"], x["about"]) for x in history if x["verb"] == "attach"])
    assert grown[0] == grown[1] and {step for step, _ in grown[0]} == {9, 21}


def test_a_run_is_written_down_as_ours(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(configured("ewc", "grows, all learn")))
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "experience 2 of 3: b" in out and "avalanche:ewc" in out
    result = read_json(tmp_path / "run/result.json")
    stages = result["continual"]["stages"]
    assert len(stages) == 4 and stages[1]["total"] < stages[2]["total"] < stages[3]["total"]
    assert [stage["stored_bytes"] for stage in stages] == [None] * 4  # who knows
    assert (tmp_path / "run/accuracy_matrix.csv").read_text().count("\n") == 5
    topology = read_json(tmp_path / "run/topology.json")
    assert [change["verb"] for change in topology["history"]][:2] == ["attach", "add_task"]
    assert main(["evaluate", str(tmp_path / "run"), "--task", "b"]) == 0


def test_an_interrupted_run_starts_anew_and_ends_as_if_never_interrupted(tmp_path, monkeypatch):
    config = configured("replay")
    whole = train(config, tmp_path / "whole").to_json()

    def interrupt(*args, **options):
        raise Interrupted("now")

    with monkeypatch.context() as context:
        context.setattr(runner, "clip_grad_norm_", interrupt)
        broken = configured("replay")
        with pytest.raises(Interrupted):
            real = Trainer.after_step
            context.setattr(
                Trainer,
                "after_step",
                lambda self, losses: real(self, losses) if self.run.step < 8 else interrupt(),
            )
            train(broken, tmp_path / "run")
    assert not (tmp_path / "run/checkpoint/last.pt").exists()
    again = train(config, tmp_path / "run").to_json()
    assert again["continual"]["scores"] == whole["continual"]["scores"]
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    steps = [line for line in lines if '"step": 8,' in line]
    assert len(steps) == len({line.partition('"seconds"')[0] for line in steps})


@pytest.mark.parametrize(
    ("sections", "word"),
    [
        ({"train": {"combine": "uncertainty"}}, "train.combine"),
        ({"train": {"precision": "bf16"}}, "train.precision"),
        ({"train": {"draw": 1.0}}, "train.draw"),
        ({"tasks": {"b": {"reset": 0.5}}}, "tasks.….reset"),
    ],
)
def test_what_their_loop_does_not_do_is_refused(sections, word, tmp_path):
    config = configured("naive", "text")
    config = overlay(config, sections, "test")
    with pytest.raises(UserError, match=word):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_memory_is_shared_by_the_experiences():
    plugin, *_ = PLUGINS["gem"](StrategyConfig(memory=30), 10, 3)
    assert plugin.patterns_per_experience == 10


def test_only_the_bridge_imports_avalanche():
    package = Path(thalnet_mtl.__file__).parent
    found = {
        path.parent.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
        if name and name.partition(".")[0] == "avalanche"
    }
    assert found == {"avalanche"}
