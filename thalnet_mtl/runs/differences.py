"""Differences between the configuration of a run and that with which it is called again.

Three kinds of fields may differ. A run may become longer, where its learning rates do not depend
on its length. The other two kinds change no result, or change it by rounding alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import declaration_order, flatten, load_run_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.overridden import overridden_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.checksums import check_sums

LENGTH = ("train.steps", "train.epochs")
ROUNDING = ("train.device", "train.threads", "train.ops")
WITHOUT_EFFECT = ("evaluate.log_every", "evaluate.checkpoint_every")
MAY_DIFFER = (*LENGTH, *ROUNDING, *WITHOUT_EFFECT)

Differences = dict[str, tuple[Any, Any]]  # by field: the value of now, and the recorded one


def check_same(folder: Path, config: Config) -> None:
    """Raise ``UserError`` if a folder holds a run of another configuration, with differences."""
    if different := allowed_differences(folder, config):
        raise other_configuration(folder, different)


def allowed_differences(folder: Path, config: Config) -> Differences:
    """Return the fields that may differ from those of the run in a folder, and do.

    Raises:
        UserError: other fields differ; says which.
    """
    if not (folder / "config.yaml").exists():
        return {}
    check_sums(folder, ["config.yaml"])
    recorded_config = load_run_config(folder)
    # An option that a run of an earlier version does not have was at its default.
    recorded = flatten(resolve_options(recorded_config, complete=True))
    current = flatten(resolve_options(config, complete=True))
    different = {
        key: (current.get(key, "absent"), recorded.get(key, "absent"))
        for key in current | recorded
        if current.get(key) != recorded.get(key)
    }
    if different.keys() - set(MAY_DIFFER):
        raise other_configuration(folder, different)
    if declaration_order(recorded_config) != declaration_order(config):
        raise other_configuration(folder, {})
    return different


def lengths(different: Differences, config: Config) -> list[str]:
    """Return the fields that differ and change the number of steps."""
    overridden = {field for field, _ in overridden_options(config)}
    return [field for field in LENGTH if field in different and field not in overridden]


def shown(different: Differences) -> list[str]:
    """Return a text for each field that differs."""
    return [f"{field} {now} (there {there})" for field, (now, there) in different.items()]


def other_configuration(folder: Path, different: Differences) -> UserError:
    """Return the error for a folder with a run of another configuration; no field: the order."""
    fields = [field for field in different if field not in MAY_DIFFER] or list(different)
    shown = [f"{field} {different[field][0]}, there {different[field][1]}" for field in fields[:3]]
    return UserError(
        f"{folder} holds a run of another configuration: "
        f"{'; '.join(shown) or 'tasks or modules in another order'}. Give --out DIR, or delete "
        f"that folder."
    )


def without_differing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of a configuration by field, without those that may differ."""
    return {field: value for field, value in values.items() if field not in MAY_DIFFER}
