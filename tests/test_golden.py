"""Some of the golden runs, those that take seconds and need no download."""

import json

import golden
import pytest


@pytest.mark.parametrize("name", ["digits", "digits_gru", "stacked", "toy_text"])
def test_training_gives_what_was_recorded(name):
    recorded = json.loads((golden.FOLDER / f"{name}.json").read_text())
    assert golden.compare(recorded, golden.run(name)).startswith("equal")
