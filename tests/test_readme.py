"""The README promises nothing that does not run."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from toy_tasks import toy

from thalnet_mtl import Network, TaskSpec, ThalNet, load_run, registry
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
