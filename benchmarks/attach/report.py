"""Tables of the attach benchmark, made from the records of its runs."""

from collections.abc import Callable, Sequence
from statistics import mean

from benchmarks.attach.experiments import ARMS, RESULTS, TASKS, orders
from benchmarks.markdown import commands, header, row
from benchmarks.records import load_records, load_runs
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.cells import Column, differences, tested
from thalnet_mtl.report.folding import Row
from thalnet_mtl.report.make_table import column
from thalnet_mtl.report.quantities import Quantity, find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.runs.summaries import RunSummary

STEPS = Metric("steps", False, 0.0, decimals=0)
SHARE = Metric("% of S", True, 1.0, "%", decimals=1)
Value = Callable[[RunSummary, str], float | None]  # of a run and a later task


def report() -> str:
    """Return all tables in Markdown: steps by arm and pair of tasks, then the comparisons."""
    runs = load_runs(RESULTS)
    references = References([run for run in runs if run.name.startswith("single_")])
    arms = fold_arms(runs)
    if not arms[0].runs:
        return "No seed is complete yet."
    needed = {task: find_quantity(f"{task}.steps_to_90", runs, references) for task in TASKS}

    def steps(run: RunSummary, task: str) -> float | None:
        return needed[task].value(run)[0]

    def share(run: RunSummary, task: str) -> float | None:
        assert run.result is not None
        single = references.single_scores(run, "validation")
        return run.result.tasks[task].validation / single[task]

    def cells(first: str, later: Sequence[str]) -> list[str]:
        columns = (pair_column(arms, first, later, *m) for m in ((steps, STEPS), (share, SHARE)))
        return [cell.format() for column in columns for cell in column.cells]

    lines = header("first → later task", *(f"steps: {title}" for title in ARMS.values()),
                   *(f"% of S at the end: {arm}" for arm in ARMS))  # fmt: skip
    for first, *later in orders():
        lines += [row(f"{first} → {task}", *cells(first, [task])) for task in later]
    lines += [row("**mean over all pairs**", *cells("", TASKS)), ""]
    lines += comparison_table(arms, pair_column(arms, "", TASKS, steps, STEPS))
    return "\n".join([*lines, "", commands(load_records(RESULTS).values())])


def fold_arms(runs: Sequence[RunSummary]) -> list[Row]:
    """Return a row for each arm, with a run for each seed and first task, of complete seeds."""
    done = {(run.seed, run.name): run for run in runs if run.result}
    names = [f"{arm}_{task}" for arm in (*ARMS, "single") for task in TASKS]
    seeds = [n for n in sorted({n for n, _ in done}) if all((n, name) in done for name in names)]
    keys = [(seed, task) for seed in seeds for task in TASKS]
    return [
        Row((title,), {key: done[key[0], f"{arm}_{key[1]}"] for key in keys})
        for arm, title in ARMS.items()
    ]


def pair_column(
    arms: Sequence[Row], first: str, later: Sequence[str], value: Value, metric: Metric
) -> Column:
    """Return the mean of a value over later tasks, of runs with some first task; '' for any."""

    def of_run(run: RunSummary) -> tuple[float | None, Metric]:
        if not run.name.endswith(first):
            return None, metric
        tasks = [task for task in later if not run.name.endswith(task)]
        known = [x for task in tasks if (x := value(run, task)) is not None]
        return mean(known), metric

    return column(Quantity(metric.name, metric.name, of_run), arms)


def comparison_table(arms: Sequence[Row], steps: Column) -> list[str]:
    """Return the comparisons of the trained center with the other arms; one is tested."""
    trained, untrained, cut = arms
    (first,) = tested(differences([(trained, untrained)], [steps]))
    (second,) = differences([(trained, cut)], [steps])
    lines = header("trained center compared with", f"steps, {first.pairs} seeds", "verdict")
    words = f"{first.result.word}: {first.result.line}", "not tested"
    for c, word in zip((first, second), words, strict=True):
        lines.append(row(c.baseline.label, c.difference.format(0), word))
    return lines
