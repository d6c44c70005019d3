"""``thalnet push`` shares a run, and other commands read it from the hub."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from hub_server import hub_on_loopback
from huggingface_hub import ModelCard
from toy_tasks import STREAM, toy

from thalnet_mtl import Network, cli, load_run
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.significance import bootstrap_interval
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.trainer import train

SHORT = {"steps": 6}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of three seeds, and one of another configuration."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        train(toy(model={"body": "gru"}, train=SHORT | {"seed": seed}), folder / f"seed{seed}")
    train(toy(model={"body": "gru", "layers": 1}, train=SHORT), folder / "shallow")
    (folder / "seed0" / "report.html").write_text("<p>a report")
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def server(tmp_path):
    with hub_on_loopback(tmp_path / "cache") as server:
        yield server


def call(capsys, command: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(command.split())
    output = capsys.readouterr()
    return status, output.out, output.err


def test_a_run_is_pushed_with_all_that_it_left_but_its_checkpoints(capsys, server, runs):
    status, out, err = call(capsys, "push runs/seed0 anna/toy --license mit")
    assert (status, err) == (0, "") and out.startswith(f"pushed 10 files: {server.url}/anna/toy/")
    files = server.repositories["anna/toy"].files
    assert {"README.md", "config.json", "model.safetensors", "report.html"} < set(files)
    assert not any(name.endswith((".pt", ".py")) for name in files)
    for name in ("config.yaml", "result.json", "metrics.jsonl", "report.html"):
        assert files[name] == (runs / "seed0" / name).read_bytes()
    run = load_run(runs / "seed0")
    batch = next(run.task().load("cpu").iterate("test", 24, 0))
    expected = run.network("toy_rows", batch.xs)[0]
    for pulled in (Network.from_pretrained("anna/toy"), load_run("hub:anna/toy").network):
        assert torch.equal(pulled("toy_rows", batch.xs)[0], expected)


def test_the_card_has_scores_over_the_seeds_beside_it(capsys, server, runs):
    status, out, _ = call(capsys, "push runs/seed1 anna/toy --dry-run")
    assert status == 0 and not server.requests
    sizes = dict(reversed(line.split()) for line in out.partition("\n\n")[0].splitlines())
    assert sizes["config.yaml"] == f"{(runs / 'seed1/config.yaml').stat().st_size:,}"
    text = out[out.index("---") :]
    assert sizes["README.md"] == f"{len(text.encode()):,}"
    values = [RunResult.load(runs / f"seed{k}").tasks["toy_rows"].test for k in (1, 0, 2)]
    [result] = ModelCard(text).data.eval_results
    assert result.metric_value == pytest.approx(np.mean(values)) and result.dataset_split == "test"
    assert result.metric_args["interval_95"] == list(bootstrap_interval(values))
    low, high = (100 * value for value in bootstrap_interval(values))
    assert f"| {100 * np.mean(values):.2f} [{low:.2f}, {high:.2f}] % |" in text
    assert "Means over 3 seeds (0, 1, 2) with 95 % bootstrap intervals" in text
    assert 'network("toy_rows", xs)' in text and "(batch, time, 3), divided by 255" in text
    assert "hf download anna/toy config.yaml" in text and "not stated a license" in text


def test_the_card_of_one_seed_says_that_it_is_one(capsys, runs):
    status, out, _ = call(capsys, "push runs/shallow anna/toy --dry-run --license mit")
    card = ModelCard(out[out.index("---") :])
    assert status == 0 and card.data.license == "mit" and "not stated" not in out
    assert "One seed (0): how much the scores vary from seed to seed is not known." in card.text
    [result] = card.data.eval_results
    test = RunResult.load(runs / "shallow").tasks["toy_rows"].test
    assert result.metric_value == test and result.metric_args == {"seeds": [0]}


def test_given_runs_have_to_be_the_same_with_other_seeds(capsys, runs):
    status, out, _ = call(capsys, "push runs/seed0 runs/seed2 anna/toy --dry-run")
    assert status == 0 and "Means over 2 seeds (0, 2)" in out
    _, _, err = call(capsys, "push runs/seed0 runs/shallow anna/toy --dry-run")
    assert "runs/shallow is not runs/seed0 with another seed: model.layers 1 (there 4)." in err
    _, _, err = call(capsys, "push runs/seed0 runs/seed0 anna/toy --dry-run")
    assert "runs/seed0: seed 0 is given twice." in err


def test_a_run_beside_it_that_is_damaged_is_left_out_with_a_note(capsys, runs):
    (runs / "seed2" / "result.json").write_text("{}")
    status, out, _ = call(capsys, "push runs/seed0 anna/toy --dry-run")
    assert status == 0 and "Means over 2 seeds (0, 1)" in out
    note = out.splitlines()[0]
    assert note.startswith("note: left out: ") and "seed2/result.json has changed since" in note


MISTAKES = {
    "unfinished": ("push runs/seed0 anna/toy", "has not finished"),
    "changed": ("push runs/seed1 anna/toy", "config.json has changed since the run finished"),
    "no run": ("push runs/seed9 anna/toy", "no run directory 'runs/seed9'"),
    "name": ("push runs/seed2 anna", "'anna' is no name of a repository: expected OWNER/NAME"),
    "no name": ("push runs/seed2", "the following arguments are required: OWNER/NAME"),
    "private": ("push runs/seed2 anna/there --private", "is public already"),
    "another": ("push runs/seed2 anna/there", "arguments.layers is 1 there and 4 here"),
    "license": ("push runs/seed2 anna/toy --license GPL", "refused the model card"),
    "rights": ("push runs/seed2 other/toy", "does not let your token write to other/toy"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_pushed(capsys, server, runs, mistake):
    (runs / "seed0" / "result.json").unlink()
    (runs / "seed1" / "model" / "config.json").write_text("{}")
    load_run(runs / "shallow").network.push_to_hub("anna/there")
    before = {name: r.files for name, r in server.repositories.items()}
    command, message = MISTAKES[mistake]
    status, out, err = call(capsys, command)
    assert (status, err.count("\n")) == (2, 1) and message in err and "pushed" not in out
    after = {name: r.files for name, r in server.repositories.items()}
    assert {name: files for name, files in after.items() if "README.md" in files} == before


def test_a_failed_upload_is_one_line_and_status_1(capsys, server, runs):
    server.fail = lambda request: 503 if request.startswith("PUT /lfs/") else None
    before = sorted(path for path in runs.parent.rglob("*") if "cache" not in path.parts)
    status, out, err = call(capsys, "push runs/seed0 anna/toy")
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert err.endswith("answered with an error 503 for anna/toy (the disk of the hub is full).\n")
    assert set(server.repositories["anna/toy"].files) == {".gitattributes"}
    assert sorted(path for path in runs.parent.rglob("*") if "cache" not in path.parts) == before
    server.fail = lambda request: None
    assert call(capsys, "push runs/seed0 anna/toy")[0] == 0


def test_commands_read_a_run_from_the_hub_and_write_where_they_are_called(capsys, server, runs):
    call(capsys, "push runs/seed0 anna/toy --revision v1")
    scores = call(capsys, "evaluate runs/seed0")[1].splitlines()[1]
    assert scores in call(capsys, "evaluate hub:anna/toy@v1")[1]
    for command in ("inspect", "compare", "report"):
        status, out, err = call(capsys, f"{command} hub:anna/toy@v1")
        if command == "inspect":  # a GRU has no modules
            assert status == 2 and err.count("\n") == 1
        else:
            assert status == 0 and out
    assert (runs.parent / "report.html").exists()
    status, out, _ = call(capsys, "export hub:anna/toy@v1 --to safetensors")
    assert status == 0 and out.startswith("export/model\n")
    run = load_run("hub:anna/toy@v1")
    exported = Network.load(runs.parent / "export" / "model")
    for name, weight in run.network.state_dict().items():
        assert torch.equal(weight, exported.state_dict()[name])
    status, _, err = call(capsys, "export hub:anna/toy@v1 --to safetensors")
    assert status == 2 and "export/model exists already" in err
    status, _, err = call(capsys, "evaluate hub:anna/none")
    assert status == 2 and err.startswith("thalnet: there is no repository anna/none on")


def test_a_network_without_its_run_says_so(capsys, server, runs):
    load_run(runs / "seed0").network.push_to_hub("anna/toy")
    status, _, err = call(capsys, "evaluate hub:anna/toy")
    assert status == 2 and "hub:anna/toy is a network without its run: load it by Network." in err


def test_files_of_an_earlier_push_do_not_stay_beside_new_weights(capsys, server, runs):
    call(capsys, "push runs/seed0 anna/toy")
    load_run(runs / "seed1").network.push_to_hub("anna/toy")
    names = set(server.repositories["anna/toy"].files)
    assert names == {".gitattributes", "README.md", "config.json", "model.safetensors"}


def test_plug_ins_that_a_pulled_configuration_names_are_never_imported(
    server, runs, tmp_path, monkeypatch
):
    """Not even a file that is on this machine."""
    cli.main(["push", "runs/seed0", "anna/toy"])
    (tmp_path / "mine.py").write_text("raise SystemExit('a file was run')")
    repository = server.repositories["anna/toy"]
    config = yaml.safe_load(repository.files["config.yaml"])
    config |= {"plugins": [str(tmp_path / "mine.py")]}
    repository.commit("main", repository.files | {"config.yaml": yaml.dump(config).encode()})
    assert load_run("hub:anna/toy").config.plugins == ()
    config["task"]["name"] = "of_mine"
    repository.commit("main", repository.files | {"config.yaml": yaml.dump(config).encode()})
    with pytest.raises(UserError, match=r"\(trained with mine.py of its author\).*'of_mine'"):
        load_run("hub:anna/toy")


def test_the_card_of_a_grown_stream_has_its_measures_and_every_task(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(toy(**STREAM, evaluate={"every": 10}), tmp_path / "stream")
    status, out, _ = call(capsys, "push stream anna/stream --dry-run")
    card = ModelCard(out[out.index("---\n") :])
    assert status == 0 and len(card.data.eval_results) == 3
    summary = RunResult.load(tmp_path / "stream").continual
    assert summary is not None and "Measures of the stream of tasks: ACC " in card.text
    assert {"continual-learning", "multi-task-learning"} < set(card.data.tags)
    kinds = {result.dataset_type: result.task_type for result in card.data.eval_results}
    assert kinds["toy_text"] == "text-generation" and kinds["toy_rows"] == "other"
    assert json.loads(json.dumps(card.data.to_dict()))["library_name"] == "thalnet_mtl"
