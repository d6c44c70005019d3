"""Nets of the zoo are read by name wherever a run or a network is."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.zoo import __main__ as zoo
from thalnet_mtl import Network, load_config, load_model, load_run, load_runs, train
from thalnet_mtl.cli.main import main
from thalnet_mtl.errors import UserError
from thalnet_mtl.published import FOLDER, is_published, local_folder, zoo_names
from thalnet_mtl.training.evaluate import evaluate

NAMES = zoo_names()
BUNDLED = ("digits", "switching_dynamics")  # their data come with the package or scikit-learn


def test_the_zoo_holds_a_dozen_small_nets():
    assert len(NAMES) >= 12
    for name in NAMES:
        files = list((FOLDER / name).iterdir())
        assert sum(path.stat().st_size for path in files) < 300_000, name


@pytest.mark.parametrize("name", NAMES)
def test_a_net_of_the_zoo_loads_with_its_card_configuration_and_scores(name):
    run = load_run(f"zoo:{name}")
    network = load_model(f"zoo:{name}")
    assert set(network.adapters) == set(run.network.adapters)
    parameters = sum(p.numel() for p in network.parameters())
    assert run.result.parameters.total == parameters
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert f'from_pretrained("zoo:{name}")' in card
    for task in run.result.tasks.values():
        assert task.metrics[0].format(task.test) in card


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(BUNDLED)])
def test_the_recorded_scores_of_a_net_are_those_of_its_weights(name):
    run = load_run(f"zoo:{name}")
    settings = run.config.evaluate
    for task_name, task in run.tasks.items():
        data = task.load(torch.device("cpu")), "test", settings.batch, run.config.train.chunk, 0
        scores = evaluate(run.network, *data)
        for metric, value in run.result.tasks[task_name].scores["test"].values.items():
            assert scores[metric] == pytest.approx(value, rel=1e-5, abs=1e-5), (task_name, metric)


def test_files_of_the_zoo_name_no_folder_of_the_machine_that_trained_them():
    texts = [path for path in FOLDER.rglob("*") if path.suffix in (".json", ".yaml", ".md")]
    assert len(texts) > len(NAMES)
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "runs/zoo")), path


@pytest.mark.parametrize("read", [load_model, load_run, Network.from_pretrained, load_runs])
def test_an_unknown_name_has_one_line_with_the_closest(read):
    with pytest.raises(UserError, match=r"unknown net of the zoo 'digit'.* mean 'digits'\?$"):
        read("zoo:digit")


def test_the_zoo_is_made_by_name_and_an_unknown_one_trains_nothing(capsys, monkeypatch):
    monkeypatch.setattr(zoo, "train", None)
    assert zoo.main(["digits", "digit"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks.zoo: unknown net 'digit'") and "Did you mean" in error
    assert error.count("\n") == 1


def test_a_folder_is_not_published_and_stays_as_it_is():
    assert local_folder("runs/zoo:digits") == Path("runs/zoo:digits")
    assert not is_published("runs/hub:a")
    assert is_published(Path("zoo:digits"))


def test_all_readers_give_the_same_network():
    first, *others = (
        load_model("zoo:digits"),
        Network.from_pretrained("zoo:digits"),
        load_run("zoo:digits").network,
        Network.load(local_folder("zoo:digits")),
    )
    for network in others:
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, first.state_dict()[name])


def test_commands_read_nets_of_the_zoo_and_write_where_they_are_called(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.rglob("*"))
    result = json.loads((FOLDER / "digits" / "result.json").read_text(encoding="utf-8"))
    score = f"{100 * result['tasks']['digits_rows']['test']['accuracy']:.2f} %"
    for command, expected in {
        "evaluate zoo:digits": score,
        "evaluate zoo:digits --lesions --batches 1": "without side1",
        "inspect zoo:digits_joint": "parity_in",
        "compare zoo:digits zoo:digits_gru": "digits_gru",
        "report zoo:digits": "report.html",
        "export zoo:digits --to torch": "step.pt2",
        "list zoo": f"digits_rows accuracy {score}",
        "list zoo gru vowels": "japanese_vowels_gru",
    }.items():
        assert main(command.split()) == 0, command
        assert expected in capsys.readouterr().out, command
    assert (tmp_path / "report.html").exists()
    assert sorted(FOLDER.rglob("*")) == before
    assert main(["evaluate", "zoo:digist"]) == 2
    assert capsys.readouterr().err.endswith(" Did you mean 'digits'?\n")


def test_a_run_starts_from_a_net_of_the_zoo(tmp_path):
    values = {"steps": 2, "optimizer": "adam"}
    config = load_config(task={"name": "digits_rows"}, train=values, trackers=[])
    train(config, tmp_path / "run", start="zoo:digits")
    lineage = json.loads((tmp_path / "run" / "environment.json").read_text())["lineage"]
    assert [entry["run"] for entry in lineage] == ["zoo:digits"]
    assert load_run(tmp_path / "run").result.tasks["digits_rows"].test > 0.9
    weights = {"run": "zoo:digits", "weights": "last"}
    config = load_config(task={"name": "digits_rows"}, train=values, start=weights)
    with pytest.raises(UserError, match=r"start.weights last: zoo:digits has only one network"):
        train(config, tmp_path / "last")
