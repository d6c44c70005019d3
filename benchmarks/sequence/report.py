"""Tables of the sequence benchmark, made from the records of its runs."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

from benchmarks.markdown import commands, header, lines_of, row, select, verdict
from benchmarks.records import load_records, load_runs
from benchmarks.sequence.experiments import METHODS, RESULTS, TASKS
from thalnet_mtl.report.cells import compare
from thalnet_mtl.report.make_table import make_table
from thalnet_mtl.report.quantities import Quantity, find_quantity
from thalnet_mtl.report.relative import References, Value
from thalnet_mtl.report.table import Table
from thalnet_mtl.runs.summaries import RunSummary

COMPARED = [("ewc", "never"), ("replay", "never"), ("frozen", "never"), ("shared", "never")]
COMPARED += [("frozen", "ewc"), ("frozen", "replay")]
ADDED = [("through", "frozen"), ("through", "ewc")]  # after the results of all others were known
GROUPS = {
    "images, points": ("permuted_mnist", "cifar10_rows"),
    "text, bits": ("text8",),
}
SCORES = [f"{task}.test" for task in TASKS]
FOLDED = ("stream", "tasks", "modules", "model.features")  # what the order of the tasks sets


def report() -> str:
    """Return all tables in Markdown: results of each method, then the comparisons."""
    runs = load_runs(RESULTS)
    singles = [run for task in TASKS for run in single_task_runs(runs, task)]
    table = make_methods_table([run for run in runs if run.name in METHODS], singles)
    parts = [method_lines(table, singles), verdict_table(table, COMPARED)]
    parts += [verdict_table(table, ADDED), [commands(load_records(RESULTS, "*-seed*").values())]]
    return "\n\n".join("\n".join(part) for part in parts)


def make_methods_table(runs: Sequence[RunSummary], singles: Sequence[RunSummary]) -> Table:
    """Return final scores, Δm, forgetting and transfer of every method."""
    references = References(singles)
    measures = [
        group_mean(measure, group, runs, references)
        for measure in ("forgetting", "transfer")
        for group in GROUPS
    ]
    columns = ["parameters", *SCORES, "gain", *measures]
    return make_table(
        runs, references, rows=["run"], columns=columns, over=FOLDED,
        titles={name: title for name, (title, _) in METHODS.items()},
        decimals={"": 2, "gain": 1, "parameters": 0},
    )  # fmt: skip


def group_mean(
    measure: str, group: str, runs: Sequence[RunSummary], references: References
) -> Quantity:
    """Return the mean of a measure over images or texts, apart from the last or first task.

    The last task cannot be forgotten, and no earlier task can help the first one.
    """
    each = {task: find_quantity(f"{task}.{measure}", runs, references) for task in GROUPS[group]}

    def value(run: RunSummary) -> Value:
        assert run.result is not None and run.result.continual is not None
        first = run.result.continual.trained[0] if measure == "transfer" else ()
        known = [quantity.value(run) for task, quantity in each.items() if task not in first]
        values = [value for value, _ in known if value is not None]
        metric = run.result.tasks[GROUPS[group][0]].metrics[0]
        return (mean(values) if values else None), replace(metric, unit="")

    return Quantity(f"{measure}, {group}", f"{measure}, {group}", value)


def method_lines(table: Table, singles: Sequence[RunSummary]) -> list[str]:
    """Return the lines of the table of methods, with the single-task networks below."""
    grid = table.main_grid()
    for line, each in zip(grid[1:], table.rows, strict=True):
        sizes = [run.result.parameters.total for run in each.runs.values() if run.result]
        line[2] = " to ".join(dict.fromkeys(f"{n:,}" for n in (min(sizes), max(sizes))))
        line[6] = f"**{line[6]}**"
    titles = {"run": "ThalNet", "parameters": "parameters", "seeds": "seeds"}
    titles |= dict(
        zip((column.title for column in table.columns[1:4]), TASKS.values(), strict=True)
    )
    titles |= {"Δm, %": "Δm, %"}
    titles |= {column.title: column.title for column in table.columns[5:]}
    alone = make_table(singles, rows=["model.body"], columns=SCORES, decimals={"": 2},
                       over=["task", "train.learning_rate"])  # fmt: skip
    _, count, *scores = alone.main_grid()[1]
    last = f"| three single-task networks | 3 times | {count} | {' | '.join(scores)} | 0 |||||"
    return [*lines_of(select(grid, titles)), last]


def single_task_runs(runs: Sequence[RunSummary], task: str) -> list[RunSummary]:
    """Return the single-task runs at the one of two rates that validates better over all seeds."""
    by_name: dict[str, list[RunSummary]] = {}
    for run in runs:
        if run.name.startswith(f"single_{task}_at_") and run.result:
            by_name.setdefault(run.name, []).append(run)

    def score(name: str) -> float:
        results = [run.result.tasks[task] for run in by_name[name] if run.result]
        sign = 1 if results[0].metrics[0].higher_is_better else -1
        return sign * mean(result.validation for result in results)

    return by_name[max(by_name, key=score)] if by_name else []


def verdict_table(table: Table, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the comparisons of Δm in the same order of tasks with the same seed."""
    gain = next(column for column in table.columns if column.name == "gain")
    rows = {each.label: each for each in table.rows}
    lines = header("Δm of", "minus Δm of", "difference, points", "verdict")
    for c in compare([(rows[ours], rows[theirs]) for ours, theirs in pairs], [gain]):
        names = table.row_title(c.row), table.row_title(c.baseline)
        lines.append(row(*names, c.difference.format(1), verdict(c)))
    return lines
