"""Output of a tuning: an announcement of its trials, and the table of its choice."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType

from thalnet_mtl.report.layout import Note, TextTable
from thalnet_mtl.sweep.arms import Arm, describe_fields
from thalnet_mtl.sweep.trials import ArmRecord, Settings, describe_values


def announcement(arms: Sequence[Arm], settings: Settings) -> list[str]:
    """Return lines on the trials, on what they leave out, and on what they see of a stream."""
    count, seeds = len(arms), ", ".join(map(str, settings.seeds))
    of_arms = f"{count} arms × " if count > 1 else ""
    lines = [
        f"{of_arms}{settings.trials} trial{'s' * (settings.trials > 1)}, {settings.sampler}, "
        f"chosen on validation; seed{'s' * (len(settings.seeds) > 1)} {seeds} of every trial"
    ]
    seen = {(settings.tuned_on[arm.name], arm.experiences) for arm in arms}
    for tuned_on, length in sorted(seen):
        lines += _on_stream(tuned_on, length) if tuned_on else []
    return [*lines, *(f"note: {line}" for line in describe_fields(arms))]


def _on_stream(tuned_on: int, length: int) -> list[str]:
    """Return lines on how many experiences of a stream the trials see."""
    if tuned_on == length:
        return [
            f"WARNING: trials train on ALL {length} experiences, so the choice has seen every "
            f"task. --tune-on {length // 2} would leave later tasks out."
        ]
    experiences = f"experiences 1 to {tuned_on}" if tuned_on > 1 else "experience 1"
    lines = [
        f"note: trials train and validate on {experiences} of {length}; the data of later ones "
        f"have no part in the choice (--tune-on)"
    ]
    if tuned_on == 1:
        lines.append(
            "note: nothing is forgotten within one experience, so options of a strategy cannot be "
            "chosen by it"
        )
    return lines


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
