"""A configuration as YAML, with the file and line, or the flag, that each value is from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thalnet_mtl.config.files import KeyPath, leaves
from thalnet_mtl.config.load import complete, lay_over, layers
from thalnet_mtl.config.named_stream import write_out_stream
from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.config.plugins import import_plugins
from thalnet_mtl.config.schema import Config, NamedStream
from thalnet_mtl.config.yaml_text import write_inline
from thalnet_mtl.errors import one_line

ENTRIES = [("tasks",), ("modules",), ("growth", "modules")]  # paths of mappings of entries by name
WIDEST = 60  # columns of the values before comments


@dataclass(frozen=True)
class TracedConfig:
    """The configuration of a run, and where each value is from that is no default."""

    config: Config
    origins: Mapping[KeyPath, str]

    def complete(self) -> "TracedConfig":
        """Write out the stream, and add the defaults of all options."""
        written = write_out_stream(import_plugins(self.config))
        origins = dict(self.origins)
        if isinstance(self.config.stream, NamedStream):
            origins[("stream",)] = f"stream {self.config.stream.name}"
            for path, _ in leaves(as_plain(written)):
                if path[0] == "tasks" and path[-1:] == ("name",):
                    origins.setdefault(path, f"stream {self.config.stream.name}")
        return TracedConfig(complete(self.config), origins)

    def tree(self, only_set: bool = False) -> dict[str, Any]:
        """Return everything, or only what files and flags set, as sections."""
        everything: dict[str, Any] = as_plain(self.config)
        return self._only_set(everything, ()) if only_set else everything

    def _only_set(self, tree: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        chosen = {}
        for key, value in tree.items():
            inner = (*path, key)
            if isinstance(value, dict) and value:
                entries = self._only_set(value, inner)
                if entries or path in ENTRIES:
                    chosen[key] = entries
            elif inner in self.origins:
                chosen[key] = value
        return chosen


def trace(names: Iterable[str], flags: Mapping[str, str]) -> dict[str, TracedConfig]:
    """Load the configuration of each run as ``load_configs`` does, and say where values are from.

    Raises:
        UserError: a name or a value is not allowed.
    """
    configs, origins = {"": Config()}, dict[str, dict[KeyPath, str]]({"": {}})
    for layer in layers(names, flags):
        configs = lay_over(configs, layer)
        for run, config in configs.items():
            earlier = origins.get(run, origins.get("", {}))
            origins[run] = places = {}
            for path, _ in leaves(as_plain(config)):
                same = (path, (*path, "name"), path[:-1] if path[-1] == "name" else path)
                origins_before = (earlier[name] for name in same if name in earlier)
                if origin := layer.find(path, run) or next(origins_before, ""):
                    places[path] = origin
    return {run: TracedConfig(config, origins[run]) for run, config in configs.items()}


def annotated_yaml(runs: Mapping[str, TracedConfig], only_set: bool = False) -> str:
    """Return the configuration of each run as YAML; comments say where values are from.

    It can be loaded again, to the same configuration.

    Args:
        runs: by name; '' is the name of a single run.
        only_set: whether defaults are left out.
    """
    pairs: list[tuple[str, str]] = []
    for run, traced in runs.items():
        tree = traced.tree(only_set)
        if not run:
            pairs += _lines(tree, traced.origins)
            continue
        pairs += [] if pairs else [("runs:", "")]
        pairs += [(f"  {write_inline(run)}:{'' if tree else ' {}'}", "")]
        pairs += [(f"    {text}", origin) for text, origin in _lines(tree, traced.origins)]
    widths = [len(text) for text, origin in pairs if origin]
    width = min(WIDEST, max(widths, default=0))
    return "\n".join(
        f"{text:<{width}}  # {one_line(origin)}" if origin else text for text, origin in pairs
    )


def _lines(
    tree: Mapping[str, Any], origins: Mapping[KeyPath, str], path: KeyPath = ()
) -> Iterator[tuple[str, str]]:
    """Yield lines of YAML, each with where its value is from, or ''."""
    indent = "  " * len(path)
    for key, value in tree.items():
        inner, label = (*path, key), f"{indent}{write_inline(key)}:"
        origin = origins.get(inner, "")
        if isinstance(value, dict) and value:
            yield label, ""
            yield from _lines(value, origins, inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield label, origin
            yield from ((f"{indent}- {write_inline(entry)}", "") for entry in value)
        else:
            yield f"{label} {write_inline(value)}", origin
