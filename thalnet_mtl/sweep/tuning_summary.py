"""What a search for settings prints: what it is about to do, and its choice."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType

from thalnet_mtl.config.schema import Config
from thalnet_mtl.report.layout import Note, TextTable
from thalnet_mtl.sweep.arms import Arm, describe_left_out
from thalnet_mtl.sweep.trials import ArmRecord, Settings, describe_values


def announcement(arms: Sequence[Arm], settings: Settings, bases: Mapping[str, Config]) -> list[str]:
    """Return lines on the trials, on what they leave out, and on what they see of a stream."""
    count, seeds = len(arms), ", ".join(map(str, settings.seeds))
    of_arms = f"{count} arms × " if count > 1 else ""
    lines = [
        f"{of_arms}{settings.trials} trials, {settings.sampler}, chosen on validation; "
        f"seed{'s' * (len(settings.seeds) > 1)} {seeds} of every trial"
    ]
    for run, tuned_on in settings.tuned_on.items():
        length, name = len(bases[run].stream), f"{run}: " * bool(run)
        if not tuned_on:
            continue
        if tuned_on == length:
            lines.append(
                f"WARNING: {name}trials train on ALL {length} experiences, so the choice has seen "
                f"every task. --tune-on {max(1, length // 2)} would leave later tasks out."
            )
            continue
        seen = f"experiences 1 to {tuned_on}" if tuned_on > 1 else "experience 1"
        lines.append(
            f"note: {name}trials train and validate on {seen} of {length}; the data of later ones "
            f"have no part in the choice (--tune-on)"
        )
        if tuned_on == 1:
            lines.append(
                f"note: {name}no task is forgotten within one experience, so options of a strategy "
                f"cannot be chosen by it"
            )
    return [*lines, *(f"note: {line}" for line in describe_left_out(arms))]


def choice_table(records: Mapping[str, ArmRecord], settings: Settings) -> RenderableType:
    """Return the table of winners: a row for each arm."""
    rows = []
    several = len(records) > 1
    for name, record in records.items():
        failed = record.failed(settings.trials)
        best = record.best(settings.trials)
        row = {"arm": name} if several else {}
        row["trials"] = f"{settings.trials}" + f", {failed} failed" * bool(failed)
        row |= {"winner": "–", "validation": "–", "values": "no trial has a score"}
        if best and record.metric and best.score is not None:
            row["winner"] = f"trial {best.number}"
            row["validation"] = record.metric.format(best.score)
            row["values"] = describe_values(best.values) or "none sampled"
        rows.append(row)
    metrics = dict.fromkeys(
        f"{record.metric.name.replace('_', ' ')} ({record.metric.direction})"
        for record in records.values()
        if record.metric
    )
    note = f"Chosen by the validation score: {', '.join(metrics)}. Test scores have no part in it."
    return Group(TextTable(rows, list(rows[0])), "", *([Note(note)] if metrics else []))
