"""``thalnet config``: show, check and copy configurations."""

import json
import re
import shlex
from pathlib import Path

import pytest
from toy_tasks import TOY
from wrong_configs import FILES, STRUCTURES, VALUES

from thalnet_mtl import cli
from thalnet_mtl.config import plugins
from thalnet_mtl.config.files import config_names, config_path, configs_folder
from thalnet_mtl.config.load import complete, load_configs
from thalnet_mtl.registry import unregister

# What the data, the steps that the data give, or the machine must tell.
NEEDS_DATA = (
    "is larger than the 300 sequences", "only a GPU has it", "has only 16 sequences",
    "must be smaller", "only 9 steps", "'nobody'", "only a text carries a state", "patience and",
)  # fmt: skip
WRONG = [
    mistake
    for mistake in (*FILES, *VALUES, *STRUCTURES)
    if mistake.command.startswith("train ")
    and not any(fragment in mistake.fragment for fragment in NEEDS_DATA)
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(words)
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_check_finds_what_train_refuses(capsys, number):
    mistake = WRONG[number]
    for path, content in mistake.files.items():
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    words = shlex.split(mistake.command.replace(" --out new", ""))[1:]
    status, out, err = call(capsys, "config", "check", *words)
    assert status == 2 and "valid" not in out
    fragment = mistake.fragment.removeprefix("a.yaml").lstrip(": ")
    assert fragment in err, err
    if mistake in STRUCTURES:
        assert re.search(r"^thalnet: a\.yaml", err)


LONG = """# Every kind of mistake
task: {name: csv, path: a.csv, inputs: [x], output: [y], window: x}
trian:
  batch: 3
  seed: 4
train:
  batch: many
  optimizer: adan
  strategy: ewc
  clip: -1
strategy:
  strength: -3
  memory: 4
model: {body: gru, reading: softmax}
modules:
  a: {input: yes}
changes:
  - step: 3
    verb: atach
  - {step: 3, verb: freeze, name: a}
stream: [{tasks: [a], stepps: 3}, 3]
growth: {when: pertask}
runs:
  one: {train: {seed: x}}
  two: {train: 3}
"""


def test_check_names_every_mistake_once_with_its_line(capsys, here):
    Path("a.yaml").write_text(LONG)
    status, out, err = call(capsys, "config", "check", "a.yaml", "--train.seed=-1")
    lines = err.splitlines()
    assert status == 2 and out == ""
    expected = [
        (2, "task: unknown field 'output'. Allowed: name, batch, "),
        (2, "task: task 'csv' needs 'outputs'"),
        (3, "unknown field 'trian'. Allowed: model, "),
        (7, "train: batch: expected a whole number, got 'many'."),
        (8, "train.optimizer: unknown optimizer 'adan'"),
        (10, "train: clip: must be at least 0.0, got -1.0."),
        (12, "strategy.strength: must be at least 0.0, got -3.0."),
        (13, "strategy: unknown field 'memory'. Allowed: strength."),
        (14, "model.reading: unknown reading 'softmax'"),
        (16, "modules: a: input: expected true or false, got 'yes'."),
        (19, "changes: verb: unknown value 'atach'"),
        (21, "stream: unknown field 'stepps'"),
        (21, "stream: expected a section of fields, got 3."),
        (22, "growth.when: unknown growth 'pertask'"),
        (24, "run 'one': train: seed: expected a whole number, got 'x'."),
        (25, "run 'two': train: expected a section of fields, got 3."),
    ]
    starts = [f"thalnet: a.yaml, line {line}: {text}" for line, text in expected]
    assert len(lines) == len(starts) + 1
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=False))
    assert lines[-1] == "thalnet: --train.seed: must be between 0 and 2147483648, got -1."


def test_check_finds_a_wrong_option_of_a_task_after_those_that_do_not_exist(capsys):
    Path("a.yaml").write_text("task: {name: npz, path: a.npz, scales: 2,\n  split_seed: x}")
    err = call(capsys, "config", "check", "a.yaml")[2].splitlines()
    assert len(err) == 2 and "a.yaml, line 1: task: unknown field 'scales'" in err[0]
    assert "a.yaml, line 2: task.split_seed: expected a whole number, got 'x'" in err[1]


def test_check_says_what_does_nothing_where_it_stands(capsys):
    Path("a.yaml").write_text(
        "task: {name: toy_rows}\nmodel: {body: gru, reading: random}\n"
        "train:\n  epochs: 3\n  steps: 20\n  chunk: 3\n  draw: 1\n"
    )
    status, out, err = call(capsys, "config", "check", "a.yaml")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "note: a.yaml, line 2: model.reading has no effect: model.body is gru",
        "note: a.yaml, line 4: train.epochs has no effect: train.steps is 20",
        "note: a.yaml, line 6: train.chunk has no effect: no task is a text",
        "note: a.yaml, line 7: train.draw has no effect: only one task is trained",
        "a.yaml: valid",
    ]
    Path("b.yaml").write_text("runs: {net: {}, gru: {model: {body: gru}}}\nmodel: {layers: 2}")
    out = call(capsys, "config", "check", "b.yaml")[1]
    assert out == "b.yaml: valid; 2 runs: net, gru\n"  # layers do something in one of them


@pytest.mark.parametrize("name", config_names())
def test_every_named_configuration_is_valid_and_shown_as_one_that_is_the_same(capsys, name):
    names = ["continual/three_tasks"] * (name == "continual/all_orders") + [name]
    configs = {run: complete(config) for run, config in load_configs(names).items()}
    for words in ([], ["--set"]):
        status, out, err = call(capsys, "config", "show", *names, *words)
        assert (status, err) == (0, "")
        Path("shown.yaml").write_text(out)
        shown = {run: complete(config) for run, config in load_configs(["shown.yaml"]).items()}
        assert shown == configs
    assert call(capsys, "config", "check", *names)[::2] == (0, "")


def test_show_says_where_every_value_is_from(capsys):
    Path("a.yaml").write_text(
        "task: {name: toy_rows, loss: huber}\nstrategy: {memory: 3}\n"
        "train:\n  strategy: replay\n  batch: 7\n"
        "runs:\n  one:\n    train: {batch: 8}\n  two: {}\n"
    )
    Path("b.yaml").write_text("train: {strategy: ewc, clip: 1, seed: 4}\nmodules: {m: {}}")
    flags = ["--train.seed=5", "--task.loss.delta=2"]
    out = call(capsys, "config", "show", "--set", "a.yaml", "b.yaml", *flags)[1]
    assert out.splitlines() == [
        "runs:",
        "  one:",
        "    task:",
        "      name: toy_rows  # a.yaml, line 1",
        "      loss:",
        "        name: huber   # a.yaml, line 1",
        "        delta: 2      # --task.loss.delta",
        "    modules:",
        "      m: {}",
        "    train:",
        "      batch: 8        # a.yaml, line 8",
        "      clip: 1.0       # b.yaml, line 1",
        "      strategy: ewc   # b.yaml, line 1",
        "      seed: 5         # --train.seed",
        "  two:",
        "    task:",
        "      name: toy_rows  # a.yaml, line 1",
        "      loss:",
        "        name: huber   # a.yaml, line 1",
        "        delta: 2      # --task.loss.delta",
        "    modules:",
        "      m: {}",
        "    train:",
        "      batch: 7        # a.yaml, line 5",
        "      clip: 1.0       # b.yaml, line 1",
        "      strategy: ewc   # b.yaml, line 1",
        "      seed: 5         # --train.seed",
    ]
    whole = call(capsys, "config", "show", "a.yaml", "b.yaml", *flags)[1].splitlines()
    assert "      strength: 1.0" in whole  # a default has no comment
    assert "      memory: 3" not in " ".join(whole)


def test_show_writes_out_a_stream_that_has_a_name(capsys):
    out = call(capsys, "config", "show", "continual/split_mnist", "--stream.n_experiences=2")[1]
    lines = out.splitlines()
    assert sum(line.endswith("# stream split_mnist") for line in lines) == 3
    assert out.count("- {tasks: [split_mnist_") == 2


def test_a_copy_keeps_the_comments_and_replaces_no_file(capsys, here):
    status, out, err = call(capsys, "config", "copy", "joint/digits", "mine.yaml")
    first, _, rest = Path("mine.yaml").read_text().partition("\n")
    assert first == "# yaml-language-server: $schema=thalnet.schema.json"
    assert rest == config_path("joint/digits").read_text()
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "train it with: thalnet train mine.yaml",
        "for editors:   thalnet config schema > thalnet.schema.json",
    ]
    assert load_configs(["mine.yaml"]) == load_configs(["joint/digits"])
    Path("mine.yaml").write_text("mine")
    status, out, err = call(capsys, "config", "copy", "digits", "mine.yaml")
    assert (status, out) == (2, "")
    assert err == "thalnet: mine.yaml exists; choose another name, or remove it first.\n"
    assert Path("mine.yaml").read_text() == "mine"
    assert call(capsys, "config", "copy", "digits", "mine.txt")[0] == 2
    assert call(capsys, "config", "copy", "digitz", "new.yaml")[0] == 2
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_schema_list_and_help_hold_plugins(capsys, here):
    Path("mine.py").write_text(
        "from thalnet_mtl import register\n\n\n@register('strategy', 'mine')\n"
        'def mine(context, *, power: float = 2.0):\n    """Nothing."""\n'
    )
    status, out, err = call(capsys, "config", "schema", "mine.py")
    assert (status, err) == (0, "") and out.endswith("}\n")
    strategy = json.loads(out)["properties"]["train"]["allOf"][0]["$ref"].rpartition("/")[2]
    names = json.loads(out)["definitions"][strategy]["properties"]["strategy"]["enum"]
    assert "mine" in names and "avalanche:gem" in names
    assert call(capsys, "config", "schema", "none.py")[0] == 2
    assert re.search(
        r"\bmine +Nothing; options: power=2.0", call(capsys, "list", "strategies", "mine.py")[1]
    )
    assert "power" in call(capsys, "list", "strategies", "mine", "mine.py")[1]
    assert re.search(
        r"mine: Nothing\.\n +power", call(capsys, "config", "help", "strategy", "mine.py")[1]
    )
    assert call(capsys, "list", "strategies", "none.py")[0] == 2
    unregister(plugins._imported.pop(here / "mine.py"))


def test_flags_are_for_what_reads_a_configuration(capsys):
    assert call(capsys, "config", "check", *TOY)[0] == 0
    assert call(capsys, "config", "help", "train", "--train.seed=3")[0] == 2


def test_the_commands_of_the_guide_do_what_it_says(capsys):
    guide = configs_folder() / "README.md"
    block = guide.read_text().partition("```bash\nthalnet config copy")[2].partition("```")[0]
    for line in f"thalnet config copy{block}".splitlines():
        words = shlex.split(line.partition("#")[0].partition(" > ")[0])[1:]
        status, out, err = call(capsys, *words)
        assert (status, err) == (0, ""), line
        if words[1] == "check":
            assert out.endswith("mine.yaml: valid\n")
    assert re.search(r"\n  steps: 500 +# --train.steps\n", out)
