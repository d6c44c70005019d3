"""The script of ``thalnet --print-completion``, asked in a real bash."""

import shutil
import subprocess

import pytest

from thalnet_mtl import cli
from thalnet_mtl.cli.completion import completion_script
from thalnet_mtl.cli.main import make_parser

ASK = """
ask() {
  COMP_WORDS=("$@") COMP_CWORD=$(( $# - 1 )) COMPREPLY=()
  _shtab_thalnet 2>/dev/null
  echo "${COMPREPLY[*]}"
}
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A file with the script for bash."""
    file = tmp_path_factory.mktemp("completion") / "thalnet.bash"
    file.write_text(completion_script(make_parser(), ["bash"]))
    return file


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("thalnet tr", "train"),
        ("thalnet config s", "show schema"),
        ("thalnet config help st", "stream strategy start"),
        ("thalnet train di", "digits"),
        ("thalnet train paper/text8", "paper/text8_gru paper/text8_thalnet"),
        ("thalnet train digits de", "debug"),
        ("thalnet train mi", "mine.yaml mine.py"),
        ("thalnet config check mi", "mine.yaml mine.py"),
        ("thalnet train digits --train.opt", "--train.optimizer"),
        ("thalnet train digits --train.optimizer a", "adam adamw"),
        ("thalnet sweep digits --train.schedule cos", "cosine"),
        ("thalnet train digits --train.strategy avalanche:g", "avalanche:gdumb avalanche:gem"),
        ("thalnet train digits --strategy.ch", "--strategy.choice"),
        ("thalnet train digits --strategy.choice ", "reservoir per_class"),
        ("thalnet config show digits --growth.pru", "--growth.prune"),
        ("thalnet config show digits --growth.prune ", "true false"),
        ("thalnet list opt", "optimizers"),
        ("thalnet export runs --to o", "onnx"),
        ("thalnet inspect ru", "runs"),
        ("thalnet --print", "--print-completion"),
    ],
)
def test_bash_completes(tmp_path, script, line, expected):
    for name in ("mine.yaml", "mine.py", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "runs").mkdir()
    words = " ".join(f"'{word}'" for word in line.split(" "))
    command = f"source {script}\n{ASK}\nask {words}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "" and done.stdout.split() == expected.split()


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_with_the_same_names(capsys, shell):
    assert cli.main(["--print-completion", shell]) == 0
    out = capsys.readouterr().out
    assert "paper/text8_thalnet" in out and "train.optimizer" in out


def test_a_shell_without_completion_or_no_shtab_is_one_line(capsys, monkeypatch):
    for words, message in [
        ([], "--print-completion needs a shell. Allowed: bash, zsh, tcsh."),
        (["bsh"], "unknown shell 'bsh'. Allowed: bash, zsh, tcsh. Did you mean 'bash'?"),
        (["bash", "digits"], "unknown argument 'digits' after --print-completion bash."),
    ]:
        assert cli.main(["--print-completion", *words]) == 2
        assert capsys.readouterr().err == f"thalnet: {message}\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["--print-completion", "bash"]) == 2
    message = "--print-completion needs shtab: pip install 'thalnet-mtl[completion]'."
    assert capsys.readouterr().err == f"thalnet: {message}\n"


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_names_with_a_colon_are_one_word_for_bash(script):
    command = f"COMP_WORDBREAKS=' :='; source {script}; echo \"[$COMP_WORDBREAKS]\""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "[ =]\n"
