import pytest

from thalnet_mtl.config.load import load_config
from thalnet_mtl.config.schema import Config

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize("name", ("digits", "continual/split_mnist", "search/switching_4",
                                  "joint/three_tasks", "joint/digits"))  # fmt: skip
def test_a_configuration_is_shown_as_the_call_that_makes_it(name):
    config = load_config(name, {"train.steps": 7})
    assert eval(repr(config)) == config
    assert "steps=7" in repr(config).replace("'steps': ", "steps=") and "dropout" not in repr(
        config
    )


def test_defaults_are_not_shown_but_unfold():
    assert repr(Config()) == "load_config()"
    html = load_config(task={"name": "digits_rows"})._repr_html_()
    shown, hidden = html.split("<details")
    assert "name: digits_rows" in shown and "dropout" not in shown and "dropout: 0.0" in hidden


def test_names_stay_text():
    config = Config(tasks={SCRIPT: Config().task})
    assert "<script" not in config._repr_html_() and "&lt;script&gt;" in config._repr_html_()
