"""The results of all runs as one table: a row for each configuration, a column for each task.

Where there are many tasks and few configurations, tasks are the rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thalnet_mtl.report.figures.style import axis_label
from thalnet_mtl.runs.records import TaskRecord

SIDE_BY_SIDE = 8  # columns of tasks; of more, tasks are rows if there are fewer configurations
WORDS = {"train": "training", "validation": "validation"}


@dataclass
class Head:
    """The head of a row or of a column.

    Args:
        name: of a task, a run or a configuration.
        about: what else is known of it, a line each.
        style: number of its color; None for a task.
        note: caveat.
    """

    name: str
    about: Sequence[str] = ()
    style: int | None = None
    note: str = ""


@dataclass
class Score:
    """A score in a cell, with smaller lines below it."""

    value: str
    about: list[str] = field(default_factory=list)


@dataclass
class ResultTable:
    """A table whose cells are lists of scores: empty ones, as not all runs have all tasks."""

    columns: list[Head]
    rows: list[tuple[Head, list[list[Score]]]]

    def turned(self) -> "ResultTable":
        """Return the table with rows as columns."""
        rows = [
            (column, [cells[place] for _, cells in self.rows])
            for place, column in enumerate(self.columns)
        ]
        return ResultTable([head for head, _ in self.rows], rows)

    def in_shape(self) -> "ResultTable":
        """Return the table, turned if that has fewer columns than there are too many of."""
        many = len(self.columns) > SIDE_BY_SIDE and len(self.rows) < len(self.columns)
        return self.turned() if many else self


def configurations(sections: Sequence[Mapping[str, Any]]) -> ResultTable:
    """Return a table with a row for each configuration: the mean of its seeds, or its only run."""
    return _table(sections, folded=True)


def every_run(sections: Sequence[Mapping[str, Any]]) -> ResultTable | None:
    """Return a table with a row for each run; None if no configuration has several seeds."""
    seeds = max(len(entry["runs"]) for section in sections for entry in section["groups"])
    return _table(sections, folded=False) if seeds > 1 else None


def _table(sections: Sequence[Mapping[str, Any]], folded: bool) -> ResultTable:
    columns, heads = list[Head](), dict[str, Head]()
    scores: dict[tuple[str, int], list[Score]] = {}
    for section in sections:
        # Several tasks of a run may have the same data: each of them has a column.
        counts = Counter(str(r.run.folder) for entry in section["groups"] for r in entry["runs"])
        each_task = max(counts.values()) > 1
        places: dict[str, int] = {}
        for entry in section["groups"]:
            records: Sequence[TaskRecord] = entry["runs"]
            title = records[0].title if each_task else section["title"]
            if title not in places:
                places[title] = len(columns)
                metric = section["metric"]
                columns.append(Head(title, [axis_label(metric)] if metric else []))
            if folded:
                rows = [(_key(records[0]), _head(entry), _mean(entry) if entry["mean"] else None)]
            else:
                rows = [
                    (str(r.run.folder), _run_head(entry, k), None) for k, r in enumerate(records)
                ]
            for k, (key, head, score) in enumerate(rows):
                if key not in heads or len(heads[key].name) < len(head.name):
                    heads[key] = head  # a label names what differs from others on the same data
                cell = scores.setdefault((key, places[title]), [])
                cell.append(score or _score(entry["rows"][k], entry["further"][k]))
                if records[k].config.only_scored:
                    cell[-1].about.append("only scored")
    body = [
        (head, [scores.get((key, place), []) for place in range(len(columns))])
        for key, head in heads.items()
    ]
    return ResultTable(columns, body).in_shape()


def _key(record: TaskRecord) -> str:
    return record.run.seedless_config


def _head(entry: Mapping[str, Any]) -> Head:
    """Return the head of a configuration: of its only run, or of several."""
    if not entry["mean"]:
        return _run_head(entry, 0, more=len(entry["runs"]) - 1)
    row = entry["rows"][0]
    sizes = list(dict.fromkeys(r["parameters"] for r in entry["rows"] if r["parameters"] != "–"))
    about = [f"mean of n = {entry['mean']['count']}, minimum to maximum"]
    about += _mode(entry["runs"][0])
    about.append(f"{row['body']}, {' to '.join(sizes[:: max(1, len(sizes) - 1)])} parameters")
    notes = list(dict.fromkeys(r["note"] for r in entry["rows"] if r["note"]))
    label = entry["group"].label.removesuffix(f": {entry['runs'][0].task}")
    return Head(label, about, entry["group"].style, "; ".join(notes))


def _run_head(entry: Mapping[str, Any], place: int, more: int = 0) -> Head:
    row = entry["rows"][place]
    size = "" if row["parameters"] == "–" else f"{row['parameters']} parameters, "
    steps = "" if row["steps"] == "–" else f"{row['steps']} steps, best {row['best_step']}; "
    about = [
        *_mode(entry["runs"][place]),
        f"{row['body']}, {size}seed {row['seed']}",
        f"{steps}{row['train_seconds']} s",
    ]
    about += [f"and {more} more seed{'s' * (more > 1)}, each below"] * (more > 0)
    return Head(row["run"], about, entry["group"].style, row["note"])


def _mode(record: TaskRecord) -> list[str]:
    return [record.run.mode] if record.run.mode != "single" else []


def _score(row: Mapping[str, str], further: Sequence[Mapping[str, str]]) -> Score:
    """Return the test score of a run, or its last one on validation, with its other scores."""
    about = [f"{words} {row[split]}" for split, words in WORDS.items() if row[split] != "–"]
    if row["own_best"]:
        about += [f"best alone {row['own_best']}", f"at step {row['own_step']}"]
    if row["task unknown"]:
        about.append(f"task unknown {row['task unknown']}")
    for other in further:
        known = [f"{WORDS.get(s, s)} {other[s]}" for s in ("test", *WORDS) if other[s] != "–"]
        about.append(f"{other['metric']}: {', '.join(known)}")
    return Score(row["test"], about)


def _mean(entry: Mapping[str, Any]) -> Score:
    """Return the mean of finished runs, from the smallest to the largest."""

    def span(split: str) -> str:
        _, low, high = entry["mean"][split]
        return f"{low.split()[0]} to {high.split()[0]}"

    about = [span("test")]
    about += [f"{words} {entry['mean'][s][0]} ({span(s)})" for s, words in WORDS.items()]
    return Score(entry["mean"]["test"][0], about)
