"""Commands that train several seeds, and what they refuse."""

import pytest

from thalnet_mtl import cli


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--model.body", "gru"], "model.body gru"),
        (["--train.ops", "fused"], "train.ops fused"),
        (["joint/digits", "--train.combine", "upgrad"], "train.combine upgrad"),
        (["joint/digits", "--train.draw", "1"], "train.draw 1.0"),
        (["joint/digits", "--train.patience", "1"], "train.patience 1 of several tasks"),
        (["{folder}/changes.yaml"], "changes"),
        (["{folder}/stream.yaml"], "stream"),
        (["--growth.when", "on_plateau"], "growth.when on_plateau"),
        (["--train.strategy", "si"], "train.strategy si"),
        (["{folder}/runs.yaml"], "model.body lstm"),  # before the first of them is trained
    ],
)
def test_what_cannot_be_stacked_is_refused_in_one_line(tmp_path, capsys, flags, what):
    change = "{step: 1, verb: freeze, name: output}"
    (tmp_path / "changes.yaml").write_text(f"changes: [{change}]")
    (tmp_path / "stream.yaml").write_text("stream: [{tasks: [digits_rows]}]")
    (tmp_path / "runs.yaml").write_text("runs: {net: {}, lstm: {model: {body: lstm}}}")
    flags = [flag.format(folder=tmp_path) for flag in flags]
    config = [] if flags[0].startswith("joint") else ["digits"]
    out = tmp_path / "out"
    arguments = ["train", *config, *flags, "--seeds", "0", "1", "--stacked", "--out", str(out)]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"thalnet: --stacked does not support {what}; run without it."
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "1"], "give each seed once"),
        (["--stacked"], "--stacked needs --seeds"),
        (["--seeds", "1", "--train.seed", "2"], "give one of them"),
        (["--seeds", "-1"], "must be between 0"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(arguments, message, capsys):
    assert cli.main(["train", "digits", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
