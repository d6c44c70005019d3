"""Flags of the command line that change nothing: refused, or left out of the name of a run."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from thalnet_mtl.config.load import flatten, load_configs
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.overridden import overridden_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.differences import LENGTH, MAY_DIFFER
from thalnet_mtl.training.checks import fixed_length, ineffective_options


def check_effect(configs: Iterable[Config], flags: Collection[str], name: str = "--{}") -> None:
    """Raise if a flag has no effect on any of some runs, whatever its value.

    In a file, which several experiments may share, such an option is only noted: see
    ``without_effect``.

    Args:
        configs: of the runs.
        flags: by ``section.field``.
        name: how the command line writes a flag.
    """
    reasons = [reasons_without_effect(config, flags) for config in configs] if flags else []
    for flag in flags:
        found = [_reason(flag, options) for options in reasons]
        if all(found):
            raise UserError(f"{name.format(flag)} has no effect: {found[0]}. Leave it out.")


def reason_without_effect(config: Config, option: str) -> str:
    """Return why ``section.field`` has no effect on a run, '' if it has one."""
    return _reason(option, reasons_without_effect(config, [option]))


def changed_values(
    names: Sequence[str], flags: Mapping[str, str], swept: Collection[str] = ()
) -> dict[str, str]:
    """Return the flags that change what the files say, sorted, with their values as in YAML.

    So ``--train.seed 0`` where the seed is 0 names no other run, and ``1e-3`` and ``0.001`` name
    the same. Fields that may differ when a run goes on are left out: more steps only where a run
    can become longer.
    """
    kept = dict(sorted(flags.items()))
    wanted = _complete(names, kept, swept)
    for flag in flags:
        fewer = {key: text for key, text in kept.items() if key != flag}
        try:
            if _complete(names, fewer, swept) == wanted:
                kept = fewer
        except UserError:  # as it names what others are options of
            continue
    values = flatten(next(iter(wanted.values())))
    same_run = set(MAY_DIFFER)
    if any(fixed_length(config) for config in wanted.values()):
        same_run -= set(LENGTH)
    named = {flag: text for flag, text in kept.items() if flag not in same_run}
    return {flag: _as_text(values.get(flag, text)) for flag, text in named.items()}


def _complete(
    names: Sequence[str], flags: Mapping[str, str], swept: Collection[str]
) -> dict[str, Config]:
    """Return the configurations with the defaults of all options."""
    configs = load_configs(names, flags, swept)
    return {
        run: resolve_options(config, complete=True, strategy="train.strategy" not in swept)
        for run, config in configs.items()
    }


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def reasons_without_effect(config: Config, flags: Collection[str]) -> dict[str, str]:
    """Return why options have no effect on a run, by ``section.field``; all that flags set."""
    reasons = dict(overridden_options(config)) | dict(ineffective_options(config))
    if "train.chunk" in flags:
        from thalnet_mtl.training.setup import make_tasks  # imports torch, for this flag only

        if not any(task.carries_state for task in make_tasks(config).values()):
            reasons["train.chunk"] = "no task is a text"
    return reasons


def _reason(flag: str, reasons: Mapping[str, str]) -> str:
    """Return why a flag has no effect, '' if it has one."""
    matches = (o for o in reasons if flag == o or flag.startswith(f"{o}."))
    return next((reasons[option] for option in matches), "")
