"""The five numbers of a run that matter most, as mean and interval over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.cells import Cell
from thalnet_mtl.report.quantities import find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.report.results import Head, ResultTable, Score
from thalnet_mtl.report.rows import Group
from thalnet_mtl.runs.summaries import RunSummary, summary_of

FEW = 3  # tasks of a joint run whose scores are all among the five numbers
NO_MEAN = "no mean over these tasks: see all measures below"
STREAM = {
    "ACC": "mean test score after the last experience",
    "forgetting": "best earlier score minus the last one",
    "AIA": "ACC so far, mean over the experiences",
    "FWT": "score before a task is trained minus the untrained one",
    "parameters": "of the network at the end",
}
SINGLE = {
    "test": "score of the best weights",
    "validation": "score of the best weights",
    "train": "score on the training split",
    "parameters": "of modules, encoders and heads",
    "seconds": "of training, without evaluation",
}


@dataclass(frozen=True)
class Headline:
    """A number with its interval and what it is.

    Args:
        name: of the number, with its direction where it is a score.
        value: mean, with its unit; '–' where there is none.
        interval: 95 % bootstrap interval of the mean over seeds; '' for one run or equal values.
        words: what it is, or why there is none.
    """

    name: str
    value: str
    interval: str
    words: str


def headline_table(groups: Sequence[Group]) -> ResultTable:
    """Return the numbers of several groups, a row for each one and a column for each number."""
    numbers = [(group, {n.name: n for n in headlines(group)}) for group in groups]
    names = {name: number.words for _, each in reversed(numbers) for name, number in each.items()}
    columns = [Head(name, [words]) for name, words in names.items()]
    return ResultTable(columns, [
        (
            Head(group.name, [f"{len(group.runs)} seeds"] if len(group.runs) > 1 else []),
            [[Score(each[n].value, [each[n].interval][: bool(each[n].interval)])] if n in each
             else [] for n in names],
        )
        for group, each in numbers if each
    ])  # fmt: skip


def headlines(group: Group) -> list[Headline]:
    """Return the five numbers of runs that differ in their seed only.

    Those of a stream are ACC, forgetting, AIA, FWT and size; those of a joint run the test scores
    of its tasks, or the mean of many, size and time; those of one task its scores, size and time.
    """
    runs = [summary_of(run) for run in group.runs if run.result]
    if not runs:
        return []
    config = group.runs[0].config
    if config.stream:
        return [_headline(name, words, runs) for name, words in STREAM.items()]
    tasks = list(config.trained_tasks)
    if len(tasks) == 1:
        return [_headline(name, words, runs) for name, words in SINGLE.items()]
    costs = {name: SINGLE[name] for name in ("parameters", "seconds")}
    scores = {f"{task}.test": "test score" for task in tasks[:FEW]}
    if len(tasks) > FEW:
        scores = {
            "test": f"mean over {len(tasks)} tasks",
            "validation": f"mean over {len(tasks)} tasks",
            "train": f"mean over {len(tasks)} tasks",
        }
    return [_headline(name, words, runs) for name, words in (scores | costs).items()]


def _headline(name: str, words: str, runs: Sequence[RunSummary]) -> Headline:
    quantity = find_quantity(name, runs, References())
    pairs = [quantity.value(run) for run in runs]
    values, metric = [value for value, _ in pairs if value is not None], pairs[0][1]
    title = _title(name, metric)
    if not values:
        return Headline(title, "–", "", NO_MEAN if name in STREAM else words)
    shown = metric.format(mean(values))
    if name == "parameters":
        shown = f"{mean(values):,.0f}"
    interval = ""
    if len(set(values)) > 1:
        low, high = Cell(values, metric).interval or (0.0, 0.0)
        interval = f"{metric.number(low)} to {metric.number(high)}"
    return Headline(title, shown, interval, words)


def _title(name: str, metric: Metric) -> str:
    if name.endswith(".test"):
        name = name.removesuffix(".test")
        return f"{name}, {metric.title}"
    titles = {"train": "training", "seconds": "training time"}
    if name in ("test", "validation", "train"):
        return f"{titles.get(name, name)} {metric.title}"
    return titles.get(name, name)
