"""Tables in Markdown."""

from benchmarks.markdown import commands


def test_commands_that_differ_only_by_seed_are_listed_once():
    words = ["thalnet train a --train.seed 0", "thalnet train a --train.seed 1 --x 2"]
    words += ["thalnet train a --train.seed 12", *words]
    assert commands({"command": command} for command in words).splitlines()[3:-3] == [
        "thalnet train a --train.seed SEED",
        "thalnet train a --train.seed 1 --x 2",
    ]
