"""What a command does before PyTorch is there, and that it does not import it without need."""

import json
import os
import subprocess
import sys

import pytest

DIGITS = ["digits", "--train.steps=2", "--evaluate.batches=1", "--train.ops=reference"]
WATCH = """
import sys
from thalnet_mtl.cli.main import main

class Output:
    lines = []
    def write(self, text):
        self.lines.append(("torch" in sys.modules, text))
    def flush(self):
        pass
    def isatty(self):
        return False

def run(*words):
    Output.lines, sys.stdout, sys.stderr = [], Output(), Output()
    status = main(words)
    text = "".join(text for _, text in Output.lines)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    first = next((torch for torch, text in Output.lines), None)
    print(json.dumps([status, text, first, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Return a function that runs commands in a new process each, with a cache of their own."""
    folder = tmp_path_factory.mktemp("startup")
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}

    def calls(*commands):
        code = "import json\n" + WATCH + "".join(f"run(*{words!r})\n" for words in commands)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return calls


def heavy(modules):
    """Return the modules among some that take long to import."""
    names = ("torch", "avalanche", "matplotlib", "jinja2", "pandas", "sklearn", "scipy", "ray")
    return {name for name in names if name in modules}


def test_a_finished_run_is_shown_and_a_mistake_refused_without_torch(calls):
    [[status, text, torch, _]] = calls(["train", *DIGITS])
    assert status == 0 and text.startswith("importing what this version offers …\n")
    assert not torch
    wrong = {
        "--train.strategy=ewc": "has no effect: it acts after an experience",
        "--train.optimizer=adan": "Did you mean 'adam'?",
        "--task.permutation=3": "It is an option of permuted_mnist",
        "--strategy.memory=9": "It is an option of replay",
    }
    commands = [
        ["train", *DIGITS],
        ["train", "digits", "--train.steps", "2", *DIGITS[2:], "--train.clip=1.0"],
        ["compare", "runs"],
        ["list", "configs"],
        ["list", "strategies"],
        *(["train", *DIGITS, flag] for flag in wrong),
    ]
    *results, (status, text, torch, _) = calls(*commands, ["train", *DIGITS, "--train.seed=1"])
    folder = "runs/digits-evaluate.batches=1-train.seed=1-train.steps=2"
    assert text.startswith(f"{folder}: thalnet on digits_rows, seed 1\n")
    assert status == 0 and not torch
    for status, text, _, modules in results[:5]:
        assert status == 0 and not heavy(modules), text
    first, second, *_ = results[0][1].splitlines()
    assert first == "runs/digits-evaluate.batches=1-train.steps=2 has finished: nothing is trained"
    assert second.startswith("run ") and "report: runs/digits" in results[0][1]
    for (status, text, _, modules), message in zip(results[5:], wrong.values(), strict=True):
        assert status == 2 and message in text and text.count("\n") == 1
        assert not heavy(modules)


def test_a_configuration_is_explained_without_torch(calls):
    calls(["list", "tasks"])  # writes the cache, unless a test before has
    commands = [
        ["list", "tasks", "csv"],
        ["list", "weightings", "gradient"],
        ["config", "help", "strategy"],
        ["config", "help", "train"],
        ["config", "show", "continual/split_mnist"],
        ["config", "schema"],
        ["--print-completion", "bash"],
        ["config", "check", "digits", "--train.optimizer=adan"],
    ]
    results = calls(*commands)
    assert [status for status, *_ in results] == [0, 0, 0, 0, 0, 0, 0, 2]
    assert not any(heavy(modules) for *_, modules in results)
