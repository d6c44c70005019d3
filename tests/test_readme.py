"""The README promises nothing that does not run."""

import re
from pathlib import Path

import pytest
from toy_tasks import toy

from thalnet_mtl import registry
from thalnet_mtl.config.load import config_names
from thalnet_mtl.training.trainer import train

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_is_short_and_its_first_example_runs(capsys):
    assert len(README.splitlines()) < 150
    exec(EXAMPLES[0], {})
    assert "torch.Size([8, 100, 256])" in capsys.readouterr().out


def test_the_readme_shows_that_a_frozen_task_stays_and_that_a_new_one_was_helped(capsys):
    exec(EXAMPLES[1], {})  # asserts that the logits of the first task are equal
    found = [100 * float(x) for x in re.findall(r"[01]\.\d+", capsys.readouterr().out)]
    said = map(float, re.findall(r"(\d+) % against (\d+) % alone", README)[0])
    assert found == pytest.approx(list(said), abs=3)


def test_the_readme_adds_a_reading_and_a_task_that_train(tmp_path, monkeypatch):
    for kind in registry._entries:
        monkeypatch.setitem(registry._entries, kind, dict(registry.entries(kind)))
    exec(EXAMPLES[2], {"__name__": "my_package.my_module"})
    model = {"reading": "uniform", "modules": 1, "features": 16}
    options = {"steps": 300, "batch": 10, "learning_rate": 0.01}
    config = toy(task={"name": "coin"}, model=model, train=options)
    assert train(config, tmp_path)["tasks"]["coin"]["test"]["accuracy"] > 0.9


def test_every_command_of_the_readme_names_what_exists():
    for name in re.findall(r"thalnet train ([\w/ ]+?)(?: +--|  |\n| *#)", README):
        for config in name.split():
            assert config in config_names()
    for kind in ("task", "module", "reading", "strategy"):
        for name in registry.entries(kind):
            name = re.sub(r"(split_\w+)_[1-4]$", r"\1_0", name)  # of a family one
            name = re.sub(r"^avalanche:.*", "avalanche:ewc", name)
            assert f"`{name}`" in README or name.startswith(("toy_", "uniform", "coin"))
