"""A run that starts from another one: what it takes, what it begins anew, what it leaves out."""

import json
import shutil
from dataclasses import replace

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at
from toy_tasks import GROWTH, JOINT, STREAM, toy

from thalnet_mtl import Network, cli
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.run_files import read_environment
from thalnet_mtl.training.fingerprint import weights_checksum
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.stacked import train_stacked
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train

SHORT = {"steps": 12, "optimizer": "adam"}
XS = torch.rand(7, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of one task, one of two tasks whose network has changed, a GRU, a saved network."""
    folder = tmp_path_factory.mktemp("runs")
    train(toy(train={"steps": 40, "optimizer": "adam"}), folder / "one")
    train(toy(**JOINT, changes=GROWTH[:3], train={"steps": 24}), folder / "two")
    train(toy(model={"body": "gru", "features": 5}, train={"steps": 10}), folder / "gru")
    load_run(folder / "one").network.save(folder / "saved")
    return folder


def started(folder, *, model=(), train=(), start=(), **sections):
    options = {"run": str(folder), **dict(start)}
    return toy(start=options, model=dict(model), train=SHORT | dict(train), **sections)


def at_start(config):
    return set_up(config, fetch=print)


def lineage(folder):
    return read_environment(folder / "environment.json")["lineage"]


@pytest.mark.parametrize("form", ["one", "one/model", "saved"])
def test_a_run_starts_from_the_best_weights_whatever_folder_holds_them(runs, form):
    network, source = at_start(started(runs / form)).network, load_run(runs / "one").network
    assert torch.equal(network.eval()("toy_rows", XS)[0], source("toy_rows", XS)[0])
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_last_weights_come_with_the_state_of_their_optimizer(runs):
    options = {"weights": "last", "optimizer": True}
    state = at_start(started(runs / "one", start=options)).state
    saved = torch.load(runs / "one" / "checkpoint" / "last.pt", weights_only=True)
    moments = saved["optimizer"]["state"]
    assert len(moments) == len(list(state.network.parameters()))
    for name, parameter in state.network.named_parameters():
        assert torch.equal(parameter, saved["network"][name])
        for key, value in moments[name].items():
            assert torch.equal(state.optimizer.state[parameter][key].cpu(), value)
    assert state.optimizer.param_groups[0]["lr"] == 0.01
    assert at_start(started(runs / "one")).state.optimizer.state == {}


def test_moments_are_those_of_the_parameters_that_are_taken(runs):
    tasks = {"toy_rows": {"name": "toy_kinds", "answer": "labels"}, "toy_wide": {}}
    options = {"weights": "last", "optimizer": True}
    state = at_start(started(runs / "one", start=options, tasks=tasks)).state
    without = [n for n, p in state.network.named_parameters() if p not in state.optimizer.state]
    assert {name.split(".")[1] for name in without} == {"toy_rows", "toy_wide"}
    assert [n for n in without if "toy_rows" in n] == [
        "adapters.toy_rows.head.weight",
        "adapters.toy_rows.head.bias",
    ]


def test_the_topology_is_that_of_the_source_and_its_modules_serve_a_new_task(runs, tmp_path):
    source = load_run(runs / "two").network
    train(started(runs / "two", task={"name": "toy_wide"}), tmp_path)
    network = load_run(tmp_path).network
    graph, before = network.body.graph, source.body.graph
    assert list(graph) == ["rows", "text", "trunk", "late", "twin"] == list(before)
    assert [m.reads for m in graph.values()] == [m.reads for m in before.values()]
    assert [m.opened for m in graph.values()] == [m.opened for m in before.values()]
    assert list(network.adapters) == ["toy_wide"]
    assert set(network.active_modules("toy_wide")) == set(graph)
    (entry,) = lineage(tmp_path)
    assert entry["taken"] == ["modules rows, text, trunk, late, twin"]
    assert entry["new"] == ["encoders and head of toy_wide"]
    assert entry["left_out"][0] == "encoders and head of toy_rows, toy_text"


def test_modules_of_a_task_that_is_left_out_are_no_part_of_one_that_is_taken(runs):
    source = load_run(runs / "two").network
    run = at_start(started(runs / "two", task={"name": "toy_rows"}))
    assert torch.equal(run.network.eval()("toy_rows", XS)[0], source("toy_rows", XS)[0])
    assert run.network.active_modules("toy_rows") == source.active_modules("toy_rows")
    assert "modules text, which no task runs" in run.start.inheritance.left_out


def test_a_new_task_gets_the_modules_of_those_left_out_and_none_of_a_task_that_stays(runs):
    source = load_run(runs / "two").network
    network = at_start(started(runs / "two", tasks={"toy_rows": {}, "toy_wide": {}})).network
    assert torch.equal(network.eval()("toy_rows", XS)[0], source("toy_rows", XS)[0])
    assert network.active_modules("toy_rows") == source.active_modules("toy_rows")
    active = network.active_modules("toy_wide")
    assert "rows" not in active and {"text", "trunk"} <= set(active)
    assert network.body.graph["trunk"].tasks == ()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("body", ["one", "gru"])
def test_taken_modules_are_trained_or_frozen(runs, tmp_path, body, frozen):
    model = {"body": "gru"} if body == "gru" else {}
    start = {"frozen": frozen}
    train(started(runs / body, model=model, start=start, task={"name": "toy_wide"}), tmp_path)
    before, after = (load_run(folder).network for folder in (runs / body, tmp_path))
    same = [torch.equal(p, after.get_parameter(n)) for n, p in before.named_parameters()
            if n.startswith("body.")]  # fmt: skip
    assert all(same) if frozen else not any(same)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["body"] == ("gru" if body == "gru" else "thalnet")
    assert (result["parameters"]["frozen"] > 0) == frozen


def test_a_module_that_was_frozen_is_trained_again(runs, tmp_path):
    train(started(runs / "one", start={"frozen": True}), tmp_path)
    network = at_start(started(tmp_path)).network
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_another_number_of_outputs_begins_a_new_head_behind_the_taken_encoders(runs):
    tasks = {"toy_rows": {"name": "toy_kinds", "answer": "labels"}}
    run = at_start(started(runs / "one", tasks=tasks))
    assert run.network("toy_rows", XS)[0].shape == (7, 2)
    assert run.start.inheritance.new == ["head of toy_rows (2 outputs, there 3)"]
    assert run.start.inheritance.taken[1] == "encoders of toy_rows"
    assert weights_checksum(run.network.body) == weights_checksum(
        load_run(runs / "one").network.body
    )


def test_a_stream_grows_from_the_network_of_another_run(runs, tmp_path):
    growth = {"when": "per_task", "modules": {"own": {"input": True, "output": True}}}
    config = started(runs / "one", growth=growth, tasks=STREAM["tasks"], stream=[
        {"tasks": [task], "steps": 6} for task in ("toy_rows", "toy_wide", "toy_text")
    ])  # fmt: skip
    train(config, tmp_path / "whole")
    assert list(load_run(tmp_path / "whole").network.adapters) == list(STREAM["tasks"])
    for step in (3, 14):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_run_resumes_to_the_same_bits_when_what_it_started_from_is_gone(runs, tmp_path):
    source = shutil.copytree(runs / "two", tmp_path / "source")
    config = started(source, start={"weights": "last"}, tasks={"toy_rows": {}, "toy_wide": {}})
    train(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(8, patch)
        train(config, tmp_path / "cut")
    shutil.rmtree(source)
    train(config, tmp_path / "cut")
    longer = replace(config, train=replace(config.train, steps=20))
    for name in ("whole", "cut"):
        train(longer, tmp_path / name)
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []
    assert [entry["step"] for entry in lineage(tmp_path / "cut")] == [24, 12]


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_there_again(runs, tmp_path):
    config = started(runs / "one")
    train(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(0, patch)
        train(config, tmp_path / "cut")
    (tmp_path / "cut" / "checkpoint" / "last.pt").unlink()
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_seeds_that_start_from_a_run_can_be_trained_together(runs, tmp_path):
    config = started(runs / "one", start={"weights": "last", "optimizer": True})
    train(config, tmp_path / "alone")
    train_stacked(
        {tmp_path / f"seed{n}": replace(config, train=replace(config.train, seed=n))
         for n in (0, 1)}, Console(),
    )  # fmt: skip
    alone, together = (load_run(tmp_path / name).network for name in ("alone", "seed0"))
    for name, parameter in alone.named_parameters():
        assert torch.allclose(parameter, together.get_parameter(name), atol=1e-5)


def test_the_lineage_is_recorded_and_inspect_shows_it(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(dump_config(toy(train=SHORT)))
    command = ["train", "toy.yaml", "--from", str(runs / "one"), "--out", "run"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert f"starting from {runs / 'one'} (best weights, of step 40)" in out
    assert "  taken: modules input, side1, output; encoders and head of toy_rows\n" in out
    assert "  left out: state of the optimizer\n" in out
    assert cli.main([*command, "--train.steps", "15"]) == 0
    first, second = lineage(tmp_path / "run")
    network = load_run(runs / "one").network
    assert first["run"] == str(runs / "one") and first["step"] == 40
    assert first["weights"] == weights_checksum(network)
    assert second["run"] == str(tmp_path / "run") and second["step"] == 12
    assert all(entry["command"] and entry["date"].startswith("2") for entry in (first, second))
    capsys.readouterr()
    assert cli.main(["inspect", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"started from {runs / 'one'}, step 40 (weights ") for line in lines)
    assert any(line.startswith("went on at step 12 with train.steps 12 → 15, ") for line in lines)


def test_python_names_the_run_to_start_from_by_an_argument(runs, tmp_path):
    train(toy(train=SHORT), tmp_path, start=runs / "one")
    assert load_run(tmp_path).config.start.run == str(runs / "one")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "onne"], "no run directory 'onne': it does not exist. Did you mean 'one'?"),
        (["--from", "."], "start.run: . is no run and no saved network"),
        (["--from"], "--start.run needs a value"),
        (["--from", "one", "--start.run=one"], "--start.run is given twice"),
        (["--from", "saved", "--start.weights=last"], "saved has only one network"),
        (["--from", "one", "--start.optimizer=true"], "give start.weights last as well"),
        (["--from", "one", "--start.optimizer=true", "--start.weights=last",
          "--train.optimizer=sgd"], "train.optimizer is sgd, and one was trained with adam"),
        (["--from", "one", "--model.body=gru"], "is 'thalnet', not model.body 'gru'"),
        (["--from", "one", "--model.features=7"], "the network is that of start.run. Leave it out"),
        (["--start.frozen=true"], "--start.frozen has no effect: start.run names no network"),
        (["--from", "one", "--task.name=toy_text"], ""),
        (["--from", "one", "--tasks.toy_rows.name=toy_wide"], "has inputs 4, in one 3, so its"),
        (["--from", "damaged"], "best.pt has changed since the run finished"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_one_line_and_leaves_nothing(
    runs, tmp_path, monkeypatch, capsys, words, message
):
    for name in ("one", "saved"):
        shutil.copytree(runs / name, tmp_path / name)
    shutil.copytree(runs / "one", tmp_path / "damaged")
    best = tmp_path / "damaged" / "checkpoint" / "best.pt"
    best.write_bytes(best.read_bytes()[:-9])
    monkeypatch.chdir(tmp_path)
    sections = {"model": {"features": 0, "modules": 4}, "train": SHORT}
    if any(word.startswith("--tasks") for word in words):
        sections["tasks"] = {"toy_rows": {}}
    (tmp_path / "toy.yaml").write_text(dump_config(toy(**sections)))
    status = cli.main(["train", "toy.yaml", "--out", "run", *words])
    err = capsys.readouterr().err
    assert status == (2 if message else 0), err
    assert message in err and err.count("\n") == (1 if message else 0)
    assert (tmp_path / "run").exists() == (not message)


def test_a_saved_network_of_another_type_of_numbers_can_be_taken(runs, tmp_path):
    network = Network.load(runs / "saved").double()
    network.save(tmp_path / "double")
    assert next(at_start(started(tmp_path / "double")).network.parameters()).dtype == torch.float32


def test_a_source_whose_moments_are_damaged_is_named(runs, tmp_path):
    source = shutil.copytree(runs / "one", tmp_path / "source")
    path = source / "checkpoint" / "last.pt"
    content = torch.load(path, weights_only=True)
    name = next(iter(content["optimizer"]["state"]))
    content["optimizer"]["state"][name]["exp_avg"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(UserError, match=rf"{name}: exp_avg is damaged: its shape"):
        at_start(started(source, start={"weights": "last", "optimizer": True}))
