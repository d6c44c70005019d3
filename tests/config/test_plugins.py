"""Python files of a user: imported, recorded with a checksum, and kept beside the run."""

import json
import sys
from pathlib import Path

import pytest
from toy_tasks import TOY

from thalnet_mtl import cli, load_run
from thalnet_mtl.config import plugins
from thalnet_mtl.config.load import load_config, load_run_config
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, unregister
from thalnet_mtl.training.trainer import train

STRATEGY = """
from beside import SCALE
from thalnet_mtl import Strategy, register


@register("strategy", "{name}")
class Mine(Strategy):
    \"\"\"A penalty on all weights.\"\"\"

    def __init__(self, context, strength: float = 1.0):
        super().__init__(context)
        self.strength = strength

    def penalty(self, batches):
        weights = self.context.network.parameters()
        return SCALE * self.strength * sum(weight.square().sum() for weight in weights)
"""
WORDS = [*TOY, "--train.steps=4"]
WORDS.remove("--train.steps=20")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the file ``mine.py``, whose entries are dropped afterwards."""
    monkeypatch.chdir(tmp_path)
    Path("beside.py").write_text("SCALE = 1e-3\n")
    Path("mine.py").write_text(STRATEGY.format(name="mine"))
    yield tmp_path
    for module in plugins._imported.values():
        unregister(module)
    plugins._imported.clear()


def call(capsys, *words) -> tuple[int, str]:
    """Status and errors of a command."""
    capsys.readouterr()
    status = cli.main(list(map(str, words)))
    return status, capsys.readouterr().err


def shown(capsys, *words) -> tuple[int, str]:
    """Status and output of a command."""
    capsys.readouterr()
    status = cli.main(list(map(str, words)))
    return status, capsys.readouterr().out


def test_a_python_file_beside_the_configurations_registers_its_entries(capsys, folder):
    words = [*WORDS, "mine.py", "--train.strategy=mine", "--strategy.strength=3", "--out=r"]
    assert call(capsys, "train", *words) == (0, "")
    config = load_run_config(Path("r"))
    [plugin] = config.plugins
    path, _, digest = plugin.name.partition("@sha256:")
    assert path == str(folder / "mine.py") and len(digest) == 16
    assert config.strategy.options == {"strength": 3.0}
    assert Path(f"r/plugins/mine-{digest}.py").read_text() == Path("mine.py").read_text()
    assert call(capsys, "train", "r/config.yaml", "--out=again") == (0, "")  # as a sweep does
    first, second = (json.loads(Path(f"{run}/result.json").read_text()) for run in ("r", "again"))
    assert first["tasks"] == second["tasks"]


def test_a_file_in_yaml_is_relative_to_it(folder, monkeypatch):
    Path("c.yaml").write_text("plugins: [mine.py]\ntrain: {strategy: mine}\n")
    Path("deep").mkdir()
    monkeypatch.chdir("deep")
    config = load_config("../c.yaml", strategy={"strength": 2})
    assert config.strategy.options == {"strength": 2.0}
    assert config.plugins[0].name.startswith(str(folder / "mine.py@sha256:"))
    assert load_config("../c.yaml", "../mine.py").plugins == config.plugins  # named twice


def test_a_changed_file_is_another_run_and_a_finished_run_has_its_copy(capsys, folder):
    words = [*WORDS, "mine.py", "--train.strategy=mine", "--out=r"]
    assert call(capsys, "train", *words)[0] == 0
    recorded = load_run_config(Path("r"))
    Path("mine.py").write_text(STRATEGY.format(name="mine") + "CHANGED = True\n")
    status, err = call(capsys, "train", *words)
    assert status == 2 and "r holds a run of another configuration: plugins" in err
    changed = sys.modules[lookup("strategy", "mine").__module__]
    assert changed.CHANGED  # the new version has replaced the old one
    with pytest.raises(UserError, match=r"plugin '.*mine.py' has changed: it is not the file that"):
        train(recorded, "other")
    assert load_run("r").config.plugins == recorded.plugins
    Path("mine.py").unlink()
    assert load_run("r").config.plugins == recorded.plugins


def test_runs_that_use_nothing_of_a_file_do_not_change_with_it(capsys, folder):
    Path("other.py").write_text(STRATEGY.format(name="other_one"))
    Path("side.py").write_text("import beside\n")  # it may do anything, and is kept
    words = [*WORDS, "mine.py", "other.py", "side.py"]
    status, out = shown(capsys, "train", *words, "--train.strategy=mine", "--out=mine")
    note = f"note: {folder / 'other.py'}: no run names what it registers: other_one"
    assert status == 0 and note in out and "mine.py:" not in out and "side.py:" not in out
    assert shown(capsys, "train", *words, "--out=naive")[0] == 0
    names = {run: [Path(plugin.name).name.partition("@")[0] for plugin in
                   load_run_config(Path(run)).plugins] for run in ("mine", "naive")}  # fmt: skip
    assert names == {"mine": ["mine.py", "side.py"], "naive": ["side.py"]}
    Path("mine.py").write_text(STRATEGY.format(name="mine") + "CHANGED = True\n")
    assert shown(capsys, "train", *words, "--out=naive")[0] == 0
    assert shown(capsys, "train", *words, "--train.strategy=mine", "--out=mine")[0] == 2


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("no.py", None, "no.py': it does not exist."),
        ("bad.py", "x = 1\n1 / 0\n", "bad.py', line 2: ZeroDivisionError: division by zero"),
        ("bad.py", "x = (\n", "bad.py', line 1: SyntaxError: '(' was never closed"),
        (
            "bad.py",
            "from thalnet_mtl import Strategy, register\n\n\n@register('strategy', 'naive')\n"
            "class Naive(Strategy):\n    pass\n",
            "line 4: strategy 'naive' is registered already",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(capsys, folder, file, text, message):
    if text:
        Path(file).write_text(text)
    status, err = call(capsys, "train", *WORDS, file, "--out=r")
    assert status == 2 and err.count("\n") == 1 and message in err and not Path("r").exists()


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("plugins: 3", "expected a list, got 3"),
        ("plugins: ['']", "every plugin needs the path of a Python file"),
        ("plugins: [mine.txt]", "expected a Python file, NAME.py"),
        ("plugins: [{nam: x}]", "unknown field 'nam'"),
    ],
)
def test_a_list_of_plugins_that_is_wrong_is_one_line(folder, yaml, message):
    Path("c.yaml").write_text(yaml)
    Path("mine.txt").write_text("")
    with pytest.raises(UserError, match="plugin") as error:
        load_config("c.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)
