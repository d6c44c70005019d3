import pytest

from thalnet_mtl import registry
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries, lookup, register


def test_built_ins_are_found_by_kind():
    assert list(entries("reading"))[:2] == ["linear", "weight_norm"]
    assert set(entries("module")) >= {"ff", "gru", "ff_gru", "gru_ff", "ff_gru_ff"}
    assert set(entries("body")) >= {"thalnet", "gru", "lstm", "mlp"}
    assert set(entries("task")) >= {
        *("permuted_mnist", "mnist_rows", "cifar10_rows", "digits_rows", "text8", "enwik8"),
    }


def test_an_unknown_name_gets_the_closest_match():
    with pytest.raises(UserError, match=r"unknown reading 'wait_norm'.*Did you mean 'weight_norm'"):
        lookup("reading", "wait_norm")


def test_a_package_of_a_user_is_imported_before_the_first_look_up(monkeypatch):
    class Plugin:
        def load(self):
            monkeypatch.setitem(registry._entries["reading"], "theirs", object)

    registry._load_plugins.cache_clear()
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [Plugin()] if group == "thalnet_mtl" else []
    )
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

    registry._load_plugins.cache_clear()
    monkeypatch.setattr(registry, "entry_points", lambda group: [Plugin()])
    with pytest.raises(UserError, match=r"plug-in 'mine' \(my_package.my_module\) cannot be"):
        lookup("reading", "linear")
