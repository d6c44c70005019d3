"""Tables of the search for the best networks, made from the records of its runs."""

from benchmarks.best.experiments import BODIES, RESULTS, SEARCHES, SEEDS, TRIAL_SEED, ranked, trials
from benchmarks.markdown import commands, header, lines_of, row, verdict
from benchmarks.records import load_records, load_runs
from benchmarks.tuning import metric_of
from thalnet_mtl.report.cells import Comparison, compare
from thalnet_mtl.report.make_table import make_table
from thalnet_mtl.report.table import Table

SHOWN = 5  # trials of each body, the best on validation
SPLITS = ("validation", "test")


def report() -> str:
    """Return the tables of all tasks."""
    parts = [f"### {SEARCHES[task].title}\n\n{tables(task)}" for task in SEARCHES]
    return "\n\n".join(parts)


def tables(task: str) -> str:
    """Return the best trials of every body, the results with new seeds, and their comparison."""
    if not complete_bodies(task):
        return "Not run yet."
    lines = header("body", "trials", *(f"{split}, {unit(task)}" for split in SPLITS), "setting")
    for body in complete_bodies(task):
        records, settings = load_records(RESULTS / "search"), SEARCHES[task].settings(task, body)
        for place, k in enumerate(ranked(task, body)[:SHOWN]):
            result = records[f"{task}_{body}-trial{k:02}-seed{TRIAL_SEED}"]["result"]
            values = (result["tasks"][task][split][metric_of(task).name] for split in SPLITS)
            setting = ", ".join(f"{key.partition('.')[2] or key} {value}"
                                for key, value in settings[k].items())  # fmt: skip
            names = ["", ""] if place else [BODIES[body], str(len(settings))]
            lines.append(row(*names, *(metric_of(task).format(v) for v in values), setting))
    for part, title in (
        ("finalists", "Best trials, further seeds"),
        ("confirm", "Selected settings, new seeds"),
    ):
        if table := load_table(task, part):
            lines += ["", f"{title}:", "", *lines_of(table.main_grid())]
    if comparison := compared(task):
        difference = comparison.difference.format(2 if unit(task) == "%" else 3)
        lines += ["", f"ThalNet − GRU on the test set: {difference} {unit(task)}; ThalNet is "
                  f"{verdict(comparison)}"]  # fmt: skip
    records = load_records(RESULTS / "confirm", f"{task}_*").values()
    return "\n".join([*lines, "", commands(records)] if records else lines)


def unit(task: str) -> str:
    """Return the unit of the scores of a task."""
    return "bits" if metric_of(task).name == "bits_per_character" else "%"


def complete_bodies(task: str) -> list[str]:
    """Return the bodies of which every trial has a record."""
    done = load_records(RESULTS / "search")
    return [body for body in SEARCHES[task].bodies if trials(task, body).keys() <= done.keys()]


def load_table(task: str, part: str) -> Table | None:
    """Return the runs of a part as a table, a row for each trial; None without runs."""
    runs = [run for run in load_runs(RESULTS / part) if run.name.startswith(f"{task}_")]
    decimals = dict.fromkeys(SPLITS, 2 if unit(task) == "%" else 3)
    columns = ["parameters", *SPLITS]
    return make_table(runs, rows=["run"], columns=columns, decimals=decimals) if runs else None


def compared(task: str) -> Comparison | None:
    """Return the comparison of ThalNet with GRU on new seeds, if both have enough of them."""
    if not (table := load_table(task, "confirm")):
        return None
    rows = {each.label.partition("-")[0]: each for each in table.rows}
    pair = rows.get(f"{task}_thalnet"), rows.get(f"{task}_gru")
    if not (pair[0] and pair[1]):
        return None
    columns = [column for column in table.columns if column.name == "test"]
    (comparison,) = compare([(pair[0], pair[1])], columns)
    return comparison if comparison.pairs >= SEEDS else None
