"""The README promises nothing that does not run."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from toy_tasks import toy

from thalnet_mtl import Network, TaskSpec, ThalNet, load_run, registry
from thalnet_mtl.cli.main import main
from thalnet_mtl.config.files import config_names
from thalnet_mtl.training.trainer import train

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_is_short_and_its_first_example_runs(capsys):
    assert len(README.splitlines()) < 150
    exec(EXAMPLES[0], {})
    assert "torch.Size([8, 100, 256])" in capsys.readouterr().out


def test_the_readme_shows_that_a_frozen_task_stays_and_that_a_new_one_was_helped(capsys):
    names: dict[str, Any] = {}
    exec(EXAMPLES[1], names)  # asserts that the logits of the first task are equal
    with_frozen = float(re.findall(r"[01]\.\d+", capsys.readouterr().out)[0])
    single = Network(ThalNet(modules=[names["new"]]))
    single.add_task("odd", TaskSpec(inputs=8, outputs=2))
    optimizer = torch.optim.AdamW(single.parameters(), lr=0.01)
    alone = float(names["train"](single, optimizer, "odd", names["ys"] % 2, 60))
    claim = r"(\d+) % against (\d+) % for the same module alone"
    claimed = map(float, re.findall(claim, README)[0])
    assert [100 * with_frozen, 100 * alone] == pytest.approx(list(claimed), abs=3)


def test_the_readme_trains_from_python_and_opens_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[2], {})
    plt.close("all")
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "runs/digits-200/result.json").read_text())
    assert result["steps"] == 200
    assert f"\n{result['tasks']['digits_rows']['test']['accuracy']}\n" in said
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    network = repr(load_run("runs/digits-200").network)
    assert "reads" in network and "digits_rows" in network


def test_the_readme_adds_a_reading_a_task_and_a_strategy_that_train(tmp_path, monkeypatch):
    for kind in registry._entries:
        monkeypatch.setitem(registry._entries, kind, dict(registry.entries(kind)))
    exec(EXAMPLES[3], {"__name__": "my_package.my_module"})
    model = {"reading": "uniform", "modules": 1, "features": 16}
    options = {"steps": 300, "batch": 10, "learning_rate": 0.01, "strategy": "l2"}
    config = toy(task={"name": "coin"}, model=model, train=options)
    assert train(config, tmp_path).tasks["coin"].test > 0.9


def test_the_examples_on_own_data_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._entries, "tracker", dict(registry.entries("tracker")))
    page = (Path(__file__).parents[1] / "configs" / "README.md").read_text()
    yaml_text, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    program, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert max(len(yaml_text.splitlines()), len(program.splitlines())) < 15
    months = [
        f"{1949 + k // 12}-{k % 12 + 1:02d},{100 + k + 20 * (k % 12 == 6)}" for k in range(144)
    ]
    Path("airline.csv").write_text("\n".join(["month,passengers", *months]) + "\n")
    Path("airline.yaml").write_text(yaml_text)
    callback = next(p for p in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Until" in p)
    Path("until.py").write_text(callback.partition("\ntrain(")[0])
    for command in re.findall(r"`thalnet ((?:data check|train|export) [^`]+)`", page):
        assert main(shlex.split(command.replace("RUN", "runs/airline"))) == 0, command
    assert Path("runs/airline/result.json").exists() and any(Path("runs/airline/export").iterdir())
    capsys.readouterr()
    exec(program, {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0.75


def test_the_examples_of_a_stream_and_of_own_parts_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for kind in registry._entries:
        monkeypatch.setitem(registry._entries, kind, dict(registry.entries(kind)))
    page = (Path(__file__).parents[1] / "configs" / "README.md").read_text()
    _, options, stream = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    _, program, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("stream.yaml").write_text(stream)
    assert main(["train", "stream.yaml"]) == 0
    Path("options.yaml").write_text(options)
    assert main(["train", "options.yaml", "--train.steps", "2"]) == 0
    assert "digits_parity_new: ff_gru" in str(load_run("runs/stream").network)
    exec(program, {"__name__": "my_package.parts"})
    scores = json.loads(Path("runs/own/result.json").read_text())["tasks"]["digits_rows"]
    assert scores["test"]["within_one"] > scores["test"]["accuracy"] > 0.3
    assert load_run("runs/own").network.body.entry.__name__ == "MyGRU"


def test_the_example_of_a_callback_ends_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._entries, "tracker", dict(registry.entries("tracker")))
    page = (Path(__file__).parents[1] / "configs" / "README.md").read_text()
    program = next(p for p in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Until" in p)
    exec(program, {"__name__": "my_package.until"})
    assert "stopped by a callback: accuracy 0." in capsys.readouterr().out
    [line] = re.findall(r"`(trackers: .*wandb.*)`\n", page)
    Path("all.yaml").write_text(line)
    assert main(["config", "check", "digits", "all.yaml"]) == 0


def test_the_example_of_a_strategy_in_a_loop_runs(capsys):
    page = (Path(__file__).parents[1] / "configs" / "README.md").read_text()
    *_, program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(program, {})
    assert int(capsys.readouterr().out.split()[0]) == 100 * (6 * 2 * 4 + 8 + 8)  # xs, ys, keys


def test_every_command_of_the_readme_names_what_exists():
    for name in re.findall(r"thalnet train ([\w/ ]+?)(?: +--|  |\n| *#)", README):
        for config in name.split():
            assert config in config_names()
    for kind in ("task", "module", "reading", "strategy", "growth"):
        for name, entry in registry.entries(kind).items():
            if not entry.__module__.startswith("thalnet_mtl."):
                continue  # registered by another test
            name = re.sub(r"(split_\w+)_[1-4]$", r"\1_0", name)  # of a family one
            name = re.sub(r"^avalanche:.*", "avalanche:ewc", name)
            assert f"`{name}`" in README
