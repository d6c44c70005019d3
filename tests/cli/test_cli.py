import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, is_dataclass
from itertools import compress
from pathlib import Path
from typing import get_args

import pytest
import torch
from toy_tasks import TOY, toy

import thalnet_mtl
from thalnet_mtl import cli
from thalnet_mtl.cli.kinds import KINDS
from thalnet_mtl.config import docstring
from thalnet_mtl.config.declarations import option_parameters
from thalnet_mtl.config.files import config_names
from thalnet_mtl.config.schema import (
    ChangeConfig,
    Config,
    ExperienceConfig,
    PluginConfig,
    TrackerConfig,
)
from thalnet_mtl.data import datasets as data
from thalnet_mtl.registry import entries
from thalnet_mtl.training.trainer import train


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in, where people would type the commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here):
    train(toy(), here / "run")
    return here / "run"


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(arguments)
    output = capsys.readouterr()
    return status, output.out, output.err


def test_help_answers_at_once_and_without_torch():
    code = (
        "import sys\nfrom thalnet_mtl.cli.main import make_parser\nmake_parser()\n"
        "print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "'thalnet_mtl.cli'" in done.stdout
    assert not any(f"'{name}'" in done.stdout for name in ("torch", "avalanche", "rich"))
    command = [sys.executable, "-m", "thalnet_mtl.cli", "--help"]
    seconds = []  # of the processor, which another process does not lengthen
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3
    assert done.returncode == 0 and "train" in done.stdout


def test_thalnet_alone_prints_its_help_as_pip_does(capsys):
    status, out, err = call(capsys)
    assert status == 0 and err == "" and out.startswith("usage: thalnet ")
    for words in (["--help"], ["-h"], ["help"]):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 0 and capsys.readouterr().out == out


def test_help_on_a_command_comes_by_either_word_order(capsys):
    texts = []
    for words in (["train", "--help"], ["help", "train"]):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "learning_rate, weight_decay" in texts[0]


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_is_that_of_the_package(capsys, flag):
    assert call(capsys, flag) == (0, f"thalnet {thalnet_mtl.__version__}\n", "")


@pytest.mark.parametrize("section", fields(Config), ids=lambda section: section.name)
def test_help_of_a_section_says_what_every_field_may_be(capsys, section):
    status, out, err = call(capsys, "config", "help", section.name)
    assert (status, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    assert text.startswith(f"{section.name}: {section.metadata['help']} in YAML: {section.name}: ")
    kind = next(k for k in [section.type, *get_args(section.type)] if is_dataclass(k))
    flag = f"--{section.name}."
    if kind in (ChangeConfig, ExperienceConfig, PluginConfig):
        flag = "none"
    elif kind is TrackerConfig:  # names, of which several may be given
        flag = "--trackers NAME,NAME"
    assert f"as flag: {flag}" in text
    for leaf in fields(kind):
        limits = leaf.metadata
        if leaf.name == "options":
            continue
        about = text[text.index(f" {leaf.name} {limits['help']}") :][:700]
        if limits.get("names"):
            names = list(entries(limits["names"]))
            assert f"one of {', '.join(names)}; see 'thalnet list " in about or len(names) > 24
        if limits.get("choices"):
            assert all(f" {choice} {line}" in about for choice, line in limits["choices"].items())
        if leaf.type is bool:
            assert "true or false" in about
        elif leaf.type in (int, float) and limits["high"] < math.inf:
            assert f"{limits['low']:,} to {limits['high']:,})" in about
        elif leaf.type in (int, float):
            assert f"at least {limits['low']:,})" in about


@pytest.mark.parametrize(
    ("section", "kinds"),
    [
        ("model", ["body"]),
        ("task", ["task", "loss", "metric"]),
        ("growth", ["growth"]),
        ("strategy", ["strategy"]),
        ("stream", ["stream"]),
    ],
)
def test_help_of_a_section_explains_the_options_of_every_name(capsys, section, kinds):
    text = " ".join(call(capsys, "config", "help", section)[1].split())
    for kind in kinds:
        for name, entry in entries(kind).items():
            options = option_parameters(kind, entry)
            if not options or not entry.__module__.startswith("thalnet_mtl."):
                continue
            about = text[text.index(f" {name}: ") :]
            for option, parameter in options.items():
                text_of_option = docstring.arguments(entry.__doc__)[option]
                start = about.index(f" {option} {text_of_option} (")
                facts = about[start + len(option) + len(text_of_option) :][:200]
                required = parameter.default is parameter.empty
                assert ("required)" if required else "default: ") in facts, (name, option)


def test_help_of_train_names_every_section_and_field(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for section in fields(Config):
        kind = next(k for k in [section.type, *get_args(section.type)] if is_dataclass(k))
        names = [leaf.name for leaf in fields(kind) if leaf.name != "options"]
        line = ", ".join(names) or "its options"
        assert f" {section.name} {section.metadata['help']} {line}" in text
    assert "'thalnet config help SECTION' explains" in text


@pytest.mark.parametrize(
    "verb",
    ["", "train", "sweep", "evaluate", "compare", "table", "report", "inspect", "data", "list",
     "export", "push", "config", "config show", "config check", "config copy", "config schema",
     "config help"],
)  # fmt: skip
def test_help_fits_a_terminal_of_80_columns(capsys, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        cli.main([*verb.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and max(map(len, lines)) <= 80


def test_train_ends_with_the_results_and_the_path_of_the_report(capsys, here):
    status, out, err = call(capsys, "train", *TOY, "--out", "mine")
    assert status == 0 and err == ""
    result = json.loads((here / "mine" / "result.json").read_text())
    assert f"{100 * result['tasks']['toy_rows']['test']['accuracy']:.2f} %" in out
    assert out.splitlines()[-1] == "report: mine/report.html"
    assert (here / "mine" / "report.html").stat().st_size > 10_000
    assert "step 20/20" in out and "\x1b" not in out


def test_a_config_of_several_runs_trains_them_all_and_compares(capsys, here):
    (here / "two.yaml").write_text("runs: {net: {}, gru: {model: {body: gru}}}")
    status, out, _ = call(capsys, "train", *TOY, "two.yaml", "--out", "both")
    assert status == 0
    assert {p.name for p in (here / "both").iterdir()} == {"net", "gru", "report.html"}
    first = [line.split()[0] for line in out.splitlines() if line]
    assert first.index("run") < first.index("net") < len(first) - 1 == first.index("report:")


def test_the_same_command_finds_its_run_and_another_does_not(capsys, here):
    assert call(capsys, "train", *TOY)[0] == 0
    [folder] = (here / "runs").iterdir()
    before = (folder / "metrics.jsonl").read_bytes()
    assert call(capsys, "train", *TOY)[0] == 0
    assert (folder / "metrics.jsonl").read_bytes() == before
    for same in ("--train.seed=0", "--train.learning_rate=1e-3", "--model.body=thalnet"):
        assert call(capsys, "train", *TOY, same)[0] == 0
    assert call(capsys, "train", TOY[0], *reversed(TOY[1:]))[0] == 0
    assert list((here / "runs").iterdir()) == [folder]
    assert call(capsys, "train", *TOY, "--train.seed=1")[0] == 0
    assert len(list((here / "runs").iterdir())) == 2


def test_the_configuration_of_a_run_trains_the_same_run_again(capsys, run):
    status, _, _ = call(capsys, "train", str(run / "config.yaml"), "--out", "again")
    assert status == 0
    model = "model/model.safetensors"
    assert Path("again", model).read_bytes() == (run / model).read_bytes()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trian digits", "unknown command 'trian'. Allowed: train, sweep, evaluate"),
        ("train digts", "unknown config 'digts'. Allowed: continual/all_orders, "),
        ("train nowhere.yaml", "no config file 'nowhere.yaml'"),
        ("train", "the following arguments are required: CONFIG"),
        ("train digits --sede 3", "unknown argument '--sede'. Did you mean '--train.seed'?"),
        ("train digits --sed 3", "Did you mean '--train.seed'? See thalnet train --help."),
        ("sweep digits --job 3", "'--job'. Did you mean '--jobs'? See thalnet sweep --help."),
        ("compare run --basline run", "Did you mean '--baseline'? See thalnet compare --help."),
        ("compare run --sede 3", "unknown argument '--sede'. See thalnet compare --help."),
        ("train digits --train.seed", "--train.seed needs a value"),
        ("train digits --train.optimizer=adan", "unknown optimizer 'adan'"),
        ("train digits --evaluate.log_every=10000000", "between 1 and 1000000"),
        ("train digits --task.name=digit_rows", "unknown task 'digit_rows'. Allowed:"),
        ("train digits --model.reading=softmax", "Did you mean 'fast_softmax'?"),
        ("evaluate nowhere", "no run directory 'nowhere': it does not exist"),
        ("evaluate run --split tset", "unknown --split 'tset'. Allowed: train, validation, test"),
        (
            "evaluate run --train.seed=3",
            "--train.seed is a flag of 'thalnet train', 'sweep', 'data check' and 'config show'",
        ),
        ("evaluate run --batches -5", "--batches must be at least 0, got -5"),
        ("data ls mnits", "unknown data set 'mnits'. Allowed: all, mnist"),
        ("data fetch all mnits", "unknown data set 'mnits'. Allowed: all, mnist"),
        ("compare nowhere", "no run directory 'nowhere'"),
        ("report run --out run/config.yaml/x", "cannot write run/config.yaml/x"),
        ("data fetch mnits", "unknown data set 'mnits'. Allowed: all, mnist"),
        ("data fetch", "name at least one data set. Allowed: all, mnist"),
        ("list configs nowhere", "unknown config 'nowhere'. Allowed: continual/all_orders"),
        ("list tasks csw", "unknown task 'csw'. Allowed:"),
        ("data check", "data check needs a configuration"),
        ("data check nothing.yaml", "no config file 'nothing.yaml'"),
        ("data ls --train.seed=3", "--train.seed is a flag of 'data check', not of 'data'"),
        ("list reading", "unknown kind 'reading'. Allowed: configs"),
        ("export run --to onxn", "unknown --to 'onxn'. Allowed: safetensors, torch, onnx"),
        ("export nowhere --to torch", "no run directory 'nowhere': it does not exist"),
        ("help trian", "unknown command 'trian'. Allowed: train, sweep, evaluate"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, run, command, message):
    before = sorted(run.parent.rglob("*"))
    status, out, err = call(capsys, *command.split())
    assert status == 2 and out == ""
    assert err.startswith("thalnet: ") and err.count("\n") == 1
    assert message in err
    assert sorted(run.parent.rglob("*")) == before


def test_ctrl_c_saves_and_says_how_to_resume(here):
    command = [sys.executable, "-m", "thalnet_mtl.cli", "train", "digits", "--train.steps=4000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "steps/s" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    words = err.split("resume with: ")
    assert "saved" in words[0] and words[1] == "thalnet train digits --train.steps=4000\n"
    [folder] = (here / "runs").iterdir()
    assert (folder / "checkpoint" / "last.pt").exists() and not (folder / "result.json").exists()


def test_ctrl_c_before_anything_is_saved_says_so(capsys, here, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    for name in ("training.flags.check_effect", "training.trainer.set_up"):
        with monkeypatch.context() as patch:
            patch.setattr(f"thalnet_mtl.{name}", interrupt)
            status, _, err = call(capsys, "train", *TOY)
        assert status == 1 and "nothing was saved yet" in err and "kept" not in err
    with monkeypatch.context() as patch:
        patch.setattr("thalnet_mtl.cli.train.write_report", interrupt)
        assert "everything saved so far is kept" in call(capsys, "train", *TOY)[2]


@pytest.mark.parametrize("command", ["evaluate", "inspect", "compare", "export --to torch"])
def test_a_run_that_does_not_exist_is_said_with_the_closest(capsys, run, command):
    shutil.copytree(run, "runs/digits")
    for typed, meant in (("rnu", "run"), ("digist", "runs/digits"), ("runs/digit", "runs/digits")):
        verb, *options = command.split()
        status, _, err = call(capsys, verb, typed, *options)
        line = f"no run directory '{typed}': it does not exist. Did you mean '{meant}'?"
        assert (status, err) == (2, f"thalnet: {line}\n")


def test_divergence_is_one_line_and_status_1(capsys, here):
    status, _, err = call(
        capsys, "train", *TOY, "--train.learning_rate=1e30", "--train.optimizer=adam"
    )
    assert status == 1 and err.count("\n") == 1 and "training has diverged" in err


def test_evaluate_repeats_the_score_of_the_run(capsys, run):
    result = json.loads((run / "result.json").read_text())
    accuracy = 100 * result["tasks"]["toy_rows"]["test"]["accuracy"]
    status, out, _ = call(capsys, "evaluate", str(run))
    assert status == 0
    assert out.startswith(f"scoring the weights of step {result['best_step']} …\n")
    assert f"test accuracy {accuracy:.2f} %, loss " in out and ", 100 targets\n" in out
    _, out, _ = call(capsys, "evaluate", str(run), "--split", "validation", "--batches", "2")
    assert "\nvalidation accuracy" in out and "48 targets in 2 batches" in out
    lines = call(capsys, "evaluate", str(run), "--lesions")[1].splitlines()
    assert [line.split(":")[0] for line in lines[2:]] == [
        *(f"  without {name}" for name in ("input", "side1", "output")),
        "recorded for reports",
    ]


def test_compare_puts_runs_side_by_side(capsys, run):
    train(toy(model={"body": "gru"}), run.parent / "other")
    status, out, _ = call(capsys, "compare", str(run), "other")
    lines = out.splitlines()
    assert status == 0 and lines[0].split() == [
        "run",
        "task",
        "parameters",
        "train",
        "validation",
        "test",
    ]
    assert [line.split()[0] for line in lines[1:3]] == ["run", "other"]
    assert lines[3:] == ["", "accuracy (%): higher is better"]
    assert "better" not in out.replace("higher is better", "")
    assert call(capsys, "compare", str(run.parent))[1].splitlines()[0] == lines[0]


def test_report_writes_where_it_is_told(capsys, run):
    status, out, _ = call(capsys, "report", str(run), "--out", "page.html")
    assert status == 0 and out == "report: page.html\n"
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")


def test_list_names_everything_that_a_configuration_may_use(capsys):
    for kind, some in [
        ("configs", "paper/text8_thalnet"),
        ("tasks", "permuted_mnist"),
        ("bodies", "lstm"),
        ("modules", "ff_gru_ff"),
        ("readings", "fast_gaussian"),
        ("strategies", "avalanche:ewc"),
        ("weightings", "nash_mtl"),
        ("optimizers", "adamw"),
        ("schedules", "cosine"),
        ("backends", "fused"),
        ("growth", "on_plateau"),
        ("losses", "huber"),
        ("metrics", "auroc"),
    ]:
        status, out, _ = call(capsys, "list", kind)
        assert status == 0 and some in out and kind in call(capsys, "list")[1]


def test_a_list_says_something_of_every_name_in_one_line_or_in_80_columns(capsys, monkeypatch):
    for kind, registered in KINDS.items():
        names = list(entries(registered.registry) if registered.registry else registered.values)
        lines = call(capsys, "list", kind)[1].splitlines()
        assert [line.split()[0] for line in lines] == names
        ours = [entries(registered.registry)[n].__module__.startswith("thalnet_mtl") for n in names
                ] if registered.registry else [True] * len(names)  # fmt: skip
        with monkeypatch.context() as narrow:
            narrow.setenv("COLUMNS", "80")
            out = call(capsys, "list", kind)[1]
        assert max(map(len, out.splitlines())) <= 80
        texts = [line.partition(" ")[2].strip() for line in compress(lines, ours)]
        assert all(len(text) > 15 for text in texts) and len({*texts}) == len(texts)
        indent = max(map(len, names)) + 2
        starts = [line[:indent].strip() for line in out.splitlines()]
        assert [start for start in starts if start] == names  # further lines are indented


def test_a_list_gives_source_targets_and_options(capsys):
    for kind, name, fact in [
        ("strategies", "gem", 'source: Lopez-Paz, Ranzato, "Gradient Episodic Memory'),
        ("weightings", "upgrad", 'source: Quinton, Rey, "Jacobian Descent'),
        ("losses", "huber", "targets: numbers; options: delta=1.0"),
        ("tasks", "npz", "options: path, target=class, "),
    ]:
        lines = call(capsys, "list", kind)[1].splitlines()
        assert fact in next(line for line in lines if line.startswith(f"{name} "))


def test_a_list_can_be_filtered_by_words(capsys):
    lines = call(capsys, "list", "strategies", "STORED", "episodic")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["replay"]
    lines = call(capsys, "list", "configs", "split_mnist")[1].splitlines()
    assert {line.split()[0] for line in lines} == {
        name for name in config_names() if "split_mnist" in name
    }


def test_a_name_is_explained_with_its_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call(capsys, "list", "strategies", "ewc")
    assert status == 0 and out.startswith("Elastic weight consolidation: a penalty")
    assert "  strength  factor of the penalty (at least 0; default: 1.0)" in out
    assert "Args:" not in out and "context" not in out and max(map(len, out.splitlines())) <= 80


def test_data_ls_tells_what_is_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("THALNET_DATA", str(tmp_path))
    status, out, _ = call(capsys, "data", "ls")
    assert status == 0 and out.count("absent") == len(data.SOURCES)
    assert out.splitlines()[-1] == str(tmp_path)


def test_data_that_cannot_be_had_is_one_line_and_status_2(capsys, monkeypatch, here):
    monkeypatch.setenv("THALNET_DATA", str(here / "data"))
    source = data.SOURCES["mnist"]

    def broken(folder, report):
        raise OSError("no network reaches it")

    mirrors = dict.fromkeys(source.mirrors, broken)
    monkeypatch.setitem(
        data.SOURCES, "mnist", type(source)(source.versions, source.license, mirrors)
    )
    status, _, err = call(capsys, "train", "quickstart", "--out", "run")
    assert status == 2 and err.count("\n") == 1
    assert "cannot get mnist" in err and "thalnet data fetch mnist" in err
    assert not os.path.exists("run/thalnet")


def test_a_reader_that_leaves_does_not_end_the_training(here):
    command = f"{sys.executable} -m thalnet_mtl.cli train digits debug --train.steps=60 --out run"
    subprocess.run(f"{command} | head -n 1", shell=True, check=True, stdout=subprocess.DEVNULL)
    assert (here / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_too_little_memory_is_one_line_and_status_1(capsys, monkeypatch, here, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("thalnet_mtl.training.trainer.set_up", fail)
    status, _, err = call(capsys, "train", *TOY)
    assert status == 1 and err.startswith("thalnet: not enough memory; ") and err.count("\n") == 1


def test_another_error_of_torch_is_not_taken_for_too_little_memory(monkeypatch, here):
    def fail(*arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("thalnet_mtl.training.trainer.set_up", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        cli.main(["train", *TOY])


def test_a_tilde_is_the_home(capsys, monkeypatch, here):
    monkeypatch.setenv("HOME", str(here / "home"))
    assert call(capsys, "train", *TOY, "--out=~/run")[0] == 0
    assert (here / "home" / "run" / "result.json").exists() and not Path("~").exists()
    assert call(capsys, "compare", "~/run")[0] == 0


def test_a_file_of_python_alone_is_no_configuration(capsys, here):
    Path("mine.py").write_text("")
    status, _, err = call(capsys, "train", "mine.py")
    assert status == 2 and not Path("runs").exists()
    assert err.strip() == (
        "thalnet: mine.py holds no configuration. Name one before it, as in 'digits mine.py', or "
        "a task with --task.name."
    )


def test_training_and_inspect_say_which_modules_are_batched_and_why(capsys, here):
    toy = [option.replace("modules=3", "modules=6") for option in TOY]
    status, out, err = call(capsys, "train", *toy, "--model.module=block_gru", "--out", "run")
    together = "side1, side2, side3, side4, output: batched: 5 modules in one call"
    alone = "input: one by one: no module is equal, and one call pays off from 5 on"
    assert status == 0, err
    assert together in out + err and alone in out + err
    status, out, _ = call(capsys, "inspect", "run", "--backends")
    assert status == 0 and together in out and alone in out
    assert ": cpp: module 'input' has a custom design, BlockGRU" in out
    assert ": batched (used): can compute it" in out
