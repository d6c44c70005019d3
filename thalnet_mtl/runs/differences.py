"""Differences between the configuration of a run and that with which it is called again.

Three kinds of fields may differ. A run may become longer, where its learning rates do not depend
on its length. The other two kinds change no result, or change it by rounding alone. To a stream
further experiences may be appended, with their tasks.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import declaration_order, flatten, load_run_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.config.overridden import overridden_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.checksums import check_sums

LENGTH = ("train.steps", "train.epochs")
ROUNDING = ("train.device", "train.threads", "train.ops")
WITHOUT_EFFECT = ("evaluate.log_every", "evaluate.checkpoint_every", "trackers")
MAY_DIFFER = (*LENGTH, *ROUNDING, *WITHOUT_EFFECT)
STREAM = "stream"  # stands for the number of experiences, where some are appended

Differences = dict[str, tuple[Any, Any]]  # by field: the value of now, and the recorded one


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
    tasks, modules = declaration_order(config)
    if recorded_config.stream and config.stream:
        _check_same_start(folder, config, recorded_config)
        new = [name for name in tasks if name not in recorded_config.tasks]
        tasks = [name for name in tasks if name not in new]
        current = without_appended(current, new, len(recorded_config.stream))
        recorded |= {STREAM: len(recorded_config.stream)}
    different = {
        key: (current.get(key, "absent"), recorded.get(key, "absent"))
        for key in current | recorded
        if current.get(key) != recorded.get(key)
    }
    if different.keys() - {*MAY_DIFFER, STREAM}:
        raise other_configuration(folder, different)
    if declaration_order(recorded_config) != [tasks, modules]:
        raise other_configuration(folder, {})
    return different


def _check_same_start(folder: Path, config: Config, recorded: Config) -> None:
    """Raise ``UserError`` unless a stream begins with the experiences of the run in a folder."""
    for number, there in enumerate(recorded.stream, 1):
        now = config.stream[number - 1] if number <= len(config.stream) else None
        if now == there:
            continue
        differs = f"has tasks {', '.join(there.tasks)} there, and does not exist here"
        if now:
            fields = vars(there).items()
            name = next(name for name, value in fields if value != getattr(now, name))
            values = [as_plain(getattr(experience, name)) for experience in (now, there)]
            differs = f"has {name} {values[0]}, there {values[1]}"
        raise UserError(
            f"{folder} holds a run of another stream: experience {number} {differs}. Experiences "
            f"may be appended, not changed; give --out DIR for another run."
        )
    old = list(recorded.tasks)
    if list(config.tasks)[: len(old)] != old and set(old) <= set(config.tasks):
        raise UserError(
            f"{folder} holds a run whose tasks are {', '.join(old)}, in this order; the tasks of "
            f"appended experiences must come after them."
        )


def stream_length(values: Mapping[str, Any]) -> int:
    """Return the number of experiences in the values of a configuration by field."""
    return len({field.split(".")[1] for field in values if field.startswith("stream.")})


def without_appended(
    values: Mapping[str, Any], new: Collection[str], length: int
) -> dict[str, Any]:
    """Return values by field without new tasks and later experiences, but with their number.

    Args:
        values: of the configuration.
        new: tasks that are left out.
        length: number of experiences that are kept.
    """
    total = stream_length(values)
    left_out = tuple(
        [f"stream.{k}." for k in range(length, total)] + [f"tasks.{name}." for name in new]
    )
    kept = {field: value for field, value in values.items() if not field.startswith(left_out)}
    return kept | {STREAM: total}


def lengths(different: Differences, config: Config) -> list[str]:
    """Return the fields that differ and change the number of steps."""
    overridden = {field for field, _ in overridden_options(config)}
    fields = (*LENGTH, STREAM)
    return [field for field in fields if field in different and field not in overridden]


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
