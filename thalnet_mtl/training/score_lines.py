"""Lines of scores for people: a line for each task, or a summary where there are many."""

from collections.abc import Mapping, Sequence

from thalnet_mtl.metrics.metric import Metric, format_scores, list_names
from thalnet_mtl.training.context import RunContext

MANY = 12  # tasks: of more, the scores are summarized

Scores = Mapping[str, Mapping[str, float]]  # by task and metric


def summary_line(run: RunContext, scores: Scores) -> str:
    """Return the scores of many tasks as words.

    These are those of the tasks that are trained now, if they are few, and the mean and the worst
    of all tasks that have been trained so far, by metric.
    """
    last = run.last_experience
    now = [name for name in last.tasks if name in scores]
    begun = run.stream[: last.number]
    trained = dict.fromkeys(name for experience in begun for name in experience.tasks)
    parts = []
    if len(now) <= MANY:
        shown = [f"{name} {format_scores(run.tasks[name].metrics, scores[name])}" for name in now]
        parts.append(list_names(shown))
    by_metric: dict[Metric, list[str]] = {}
    for name in trained:
        if name in scores:
            by_metric.setdefault(run.tasks[name].metric, []).append(name)
    parts += [mean_and_worst(metric, names, scores) for metric, names in by_metric.items()]
    return "; ".join(parts)


def mean_and_worst(metric: Metric, names: Sequence[str], scores: Scores) -> str:
    """Return the mean score of some tasks in a metric, and the task with the worst, as words."""
    values = {name: scores[name][metric.name] for name in names}
    mean = sum(values.values()) / len(values)
    choose = min if metric.higher_is_better else max
    worst = choose(values, key=values.__getitem__)
    count = f"{len(values)} task{'s' * (len(values) > 1)}"
    return (
        f"mean {metric.name} of {count} so far {metric.format(mean)}, "
        f"worst {worst} {metric.format(values[worst])}"
    )
