"""Configuration fields that a special way of training supports: those that it declares.

Stacked runs, CUDA graphs and Avalanche's loop each declare the fields that they support. A new
field is then refused by all three, until somebody has made it work there and adds it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from thalnet_mtl.config.load import flatten, flatten_section
from thalnet_mtl.config.options import without_options
from thalnet_mtl.config.schema import Config, ExperienceConfig, ModuleConfig, NamedTaskConfig

# By field the supported values; None: all. A ``*`` stands for the name of an entry.
Supported = Mapping[str, Collection[Any] | None]


def fields(section: str, names: str) -> dict[str, None]:
    """Return the fields of a section by their names, with all values supported."""
    return {f"{section}.{name}": None for name in names.split()}


MODULE = "input output tasks reads features context hidden module reading frozen"

# Fields that only choose data, network, schedule or evaluation, so that every loop supports them.
BASIC: Supported = {
    **fields("task", "name metrics"),
    **fields("tasks.*", "name head metrics"),
    **fields("modules.*", MODULE),
    **fields("model", "modules module reading features context hidden layers"),
    **fields("model", "sub_steps extra_steps budget"),
    **fields("start", "run weights frozen"),
    **fields("train", "epochs epoch_of steps batch chunk seed device threads"),
    **fields("train", "learning_rate weight_decay schedule warmup clip"),
    **fields("evaluate", "every batch batches log_every checkpoint_every"),
    "trackers": None,
}
STREAM: Supported = fields("stream.*", "tasks steps expect shares blur")
CHANGES: Supported = {
    **fields("changes.*", "step verb name source read_by open"),
    **fields("changes.*.module", MODULE),
}
# Without effect as long as ``growth.when`` is 'never'.
GROWTH_OPTIONS: Supported = {
    **fields("growth", "policy"),
    **fields("growth.modules.*", MODULE),
}


def unsupported(config: Config, supported: Supported, refused: Collection[str] = ()) -> str:
    """Return a field that is neither at its default nor supported, with its value.

    It is the first one; a section of entries of which none is supported comes last, and is
    returned by its name, as ``changes``. Returns '' if everything is supported. Options of tasks,
    bodies, growth and strategies are always supported, since what reads them is, but for the
    options of a body that are ``refused``.
    """
    for name in refused:
        if value := config.model.options.get(name):
            return f"model.{name} {value}"
    defaults = defaults_by_field()
    sections = []
    for path, value in flatten(without_options(config)).items():
        field = pattern(path)
        if field in supported:
            values = supported[field]
            if values is None or value in values:
                continue
        if field not in defaults or value != defaults[field]:
            section = path.partition(".")[0]
            if any(name.startswith(f"{section}.") for name in supported):
                return f"{path} {value}"
            sections.append(section)
    return sections[0] if sections else ""


def random_options(config: Config) -> list[str]:
    """Return the options by which training draws random masks."""
    names = [f"model.{name}" for name in ("dropout", "zoneout") if config.model.options.get(name)]
    return ["train.dropout"] * bool(config.train.dropout) + names


def defaults_by_field() -> dict[str, Any]:
    """Return the default of every field, also of those of tasks, modules and experiences."""
    defaults = flatten(Config())
    for section, entry in (("tasks.*", NamedTaskConfig()), ("modules.*", ModuleConfig())):
        for prefix in (section, f"growth.{section}"):
            defaults |= flatten_section(entry, prefix)
    return defaults | flatten_section(ExperienceConfig(), "stream.*")


def pattern(path: str) -> str:
    """Return the path of a field with ``*`` in place of the name or number of an entry."""
    parts = path.split(".")
    place = 2 if parts[:2] == ["growth", "modules"] else 1
    if parts[0] in ("tasks", "modules", "changes", "stream") or place == 2:
        parts[place : place + 1] = ["*"] if len(parts) > place else []
    return ".".join(parts)
