"""Built-in entries, plug-ins of users, and the one plug-in of this package: Avalanche."""

import subprocess
import sys

import pytest

from thalnet_mtl import registry, strategies
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries, lookup, register


@pytest.fixture(autouse=True)
def plugins_are_found_again():
    yield
    registry._load_plugins.cache_clear()


def install(monkeypatch, *plugins):
    """Let the environment have these entry points only."""
    registry._load_plugins.cache_clear()
    monkeypatch.setattr(
        registry, "entry_points", lambda group: plugins if group == "thalnet_mtl" else []
    )


def test_built_ins_are_found_by_kind():
    assert list(entries("reading"))[:2] == ["linear", "weight_norm"]
    assert set(entries("module")) >= {"ff", "gru", "ff_gru", "gru_ff", "ff_gru_ff"}
    assert set(entries("body")) >= {"thalnet", "gru", "lstm", "mlp"}
    assert set(entries("task")) >= {
        *("permuted_mnist", "mnist_rows", "cifar10_rows", "digits_rows", "text8", "enwik8"),
    }
    assert list(entries("strategy"))[:4] == ["naive", "replay", "ewc", "online_ewc"]
    assert list(entries("weighting"))[:2] == ["fixed", "uncertainty"]


def test_every_entry_says_in_one_line_what_it_is():
    for kind in ("reading", "module", "body", "task", "strategy", "weighting"):
        for name, entry in entries(kind).items():
            if entry.__module__.startswith("thalnet_mtl"):
                assert (entry.__doc__ or "").partition("\n")[0].endswith("."), (kind, name)


def test_an_unknown_name_gets_the_closest_match():
    with pytest.raises(UserError, match=r"unknown reading 'wait_norm'.*Did you mean 'weight_norm'"):
        lookup("reading", "wait_norm")


def test_a_name_like_no_other_may_stand_in_a_file_that_was_not_named():
    with pytest.raises(UserError, match=r"unknown reading 'theirs'.* CONFIG mine\.py\.$"):
        lookup("reading", "theirs")


def test_a_package_of_a_user_is_imported_before_the_first_look_up(monkeypatch):
    class Plugin:
        def load(self):
            monkeypatch.setitem(registry._entries["reading"], "theirs", object)

    install(monkeypatch, Plugin())
    assert lookup("reading", "theirs") is object


def test_a_name_is_not_taken_twice():
    with pytest.raises(UserError, match="reading 'linear' is registered already, by thalnet_mtl"):

        @register("reading", "linear")
        class Other: ...

    with pytest.raises(UserError, match=r"unknown kind of entry 'readings'.*'reading'"):
        register("readings", "x")


def test_a_broken_package_of_a_user_is_named(monkeypatch):
    class Plugin:
        name, value = "mine", "my_package.my_module"

        def load(self):
            raise ImportError("no module named 'numpi'")

    install(monkeypatch, Plugin())
    with pytest.raises(UserError, match=r"plug-in 'mine' \(my_package.my_module\) cannot be"):
        lookup("reading", "linear")


def test_the_plug_in_of_this_package_is_found_by_its_entry_point():
    code = (
        "from thalnet_mtl import registry\n"
        "names = registry.entries('strategy')\n"
        "assert 'avalanche:ewc' in names and registry._own_plugins_installed()\n"
        "import sys; assert 'avalanche' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_an_installation_built_ins_work_and_an_unknown_name_says_what_is_missing(
    monkeypatch,
):
    install(monkeypatch)
    built_in = {n: e for n, e in entries("strategy").items() if not n.startswith("avalanche:")}
    monkeypatch.setitem(registry._entries, "strategy", built_in)
    assert lookup("strategy", "ewc").__name__ == "EWC"
    with pytest.raises(UserError, match=r"unknown strategy 'avalanche:ewc'.*install it with pip"):
        lookup("strategy", "avalanche:ewc")


def test_an_unknown_name_of_an_installed_package_is_not_about_the_installation():
    with pytest.raises(UserError) as caught:
        lookup("strategy", "ewcc")
    assert "pip" not in str(caught.value)


def test_a_new_file_of_a_package_is_found_by_itself(tmp_path, monkeypatch):
    (tmp_path / "extra_strategy.py").write_text(
        "from thalnet_mtl.registry import register\n"
        "from thalnet_mtl.strategies.base import Strategy\n\n\n"
        "@register('strategy', 'extra')\n"
        "class Extra(Strategy):\n"
        "    pass\n"
    )
    monkeypatch.setitem(registry._entries, "strategy", dict(entries("strategy")))
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    built_in = [name for name in entries("strategy") if not name.startswith("avalanche:")]
    assert built_in[0] == "naive" and "extra" in built_in
