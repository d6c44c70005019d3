"""Runs whose steps Avalanche takes, and each cell of the table in benchmarks/continual."""

import ast
from pathlib import Path

import pytest
import torch
from toy_tasks import knobs_of, toy

import thalnet_mtl
from thalnet_mtl import UserError
from thalnet_mtl.avalanche import runner
from thalnet_mtl.avalanche.names import STRATEGIES
from thalnet_mtl.avalanche.strategies import PLUGINS
from thalnet_mtl.cli.main import main
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.errors import Interrupted
from thalnet_mtl.files import read_json
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.trainer import train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]

TABLE = Path(__file__).parents[2] / "benchmarks/continual/README.md"


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
    "growing, all modules train": {
        "tasks": {name: {"name": "toy_rows"} for name in "abc"},
        "stream": [{"tasks": [name], "steps": 6} for name in "abc"],
        "growth": {"when": "per_task", "policy": "shared", "modules": OWN},
    },
    "growing, old modules frozen": {
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
        strategy=knobs_of(f"avalanche:{name}", memory=30) | knobs,
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
        stream = train(config, tmp_path / "run").to_json()["continual"]
        assert stream["strategy"] == f"avalanche:{name}"
        assert all(score is not None for score in stream["scores"][-1])
        return
    assert table()[name][setting] == "stops"
    with pytest.raises(UserError, match=f"avalanche:{name}"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    if (name, setting) == ("lwf", "text"):  # would go on, and distil nothing
        return
    monkeypatch.setattr(runner, "check", lambda *arguments: None)
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


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_their_naive_loop_computes_what_ours_does(optimizer, tmp_path):
    sections = SETTINGS["one shape"] | {"stream": TWICE}
    weights = []
    for name in ("naive", "avalanche:naive"):
        options = {"strategy": name, "optimizer": optimizer, "batch": 300, "clip": 0.5, "warmup": 3}
        config = toy(**sections, model={"modules": 2, "features": 5}, train=options)
        train(config, tmp_path / name)
        network = thalnet_mtl.load_model(tmp_path / name / "model")
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    # A batch of all sequences is the same in any order.
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


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


def test_a_stream_gets_no_experiences_and_stops_no_earlier(tmp_path):
    sections, short = SETTINGS["one shape"], [experience | {"steps": 2} for experience in TWICE]
    options = {"strategy": "avalanche:naive"}
    with pytest.raises(UserError, match=r"train\.patience 2"):
        config = toy(**sections, stream=short, train=options | {"patience": 2})
        train(config, tmp_path / "early")
    train(toy(**sections, stream=short, train=options), tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(UserError, match=r"cannot go on: train\.strategy avalanche:naive cannot be"):
        train(toy(**sections, stream=[*short, short[0]], train=options), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_a_run_is_written_down_as_ours(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(configured("ewc", "growing, all modules train")))
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
        raise Interrupted(8, 60, saved=False)

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
        ({"tasks": {"b": {"reset": 0.5}}}, "tasks.b.reset 0.5"),
        ({"growth": {"when": "search", "modules": OWN}}, "growth.when search"),
    ],
)
def test_what_their_loop_does_not_do_is_refused(sections, word, tmp_path):
    config = configured("naive", "text")
    config = overlay(config, sections, "test")
    with pytest.raises(UserError, match=word):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_the_bridge_imports_avalanche():
    package = Path(thalnet_mtl.__file__).parent
    packages = {
        path.parent.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
        if name and name.partition(".")[0] == "avalanche"
    }
    assert packages == {"avalanche"}
