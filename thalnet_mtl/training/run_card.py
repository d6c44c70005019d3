"""The model card of a run: what it is, its scores, and how to load and to repeat it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

import thalnet_mtl
from thalnet_mtl.config.plugins import MARK
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.significance import bootstrap_interval
from thalnet_mtl.metrics.summary import MEASURES, NORMALIZED, shared_metric
from thalnet_mtl.models.model_card import loading
from thalnet_mtl.published import ZOO
from thalnet_mtl.report.cells import Cell
from thalnet_mtl.runs.results import RunResult, TaskResult
from thalnet_mtl.runs.summaries import RunSummary
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.trained_run import TrainedRun

KINDS = {
    "class": ("other", "classification of sequences"),
    "labels": ("other", "labels of sequences"),
    "numbers": ("time-series-forecasting", "numbers of sequences"),
}
PAPER = "https://arxiv.org/abs/1706.05744"
MOST_LINES = 60  # of the network


def run_card(
    run: TrainedRun, result: RunResult, seeds: Sequence[RunSummary], repository: str, license: str
) -> str:
    """Return the model card of a finished run, in the format of the Hugging Face Hub.

    Args:
        run: whose network it is about.
        result: of this run.
        seeds: runs of the same configuration, this one first; scores are means over them.
        repository: OWNER/NAME, or 'zoo:NAME' for a net of the zoo.
        license: an identifier of the hub, of the weights.
    """
    results = [result, *(run.result for run in seeds[1:] if run.result)]
    title = repository.removeprefix(ZOO).rpartition("/")[2]
    data = ModelCardData(
        library_name="thalnet_mtl",
        license=license,
        tags=_tags(run),
        model_name=title,
        eval_results=list(_evaluations(run, results)),
    )
    parts = [
        f"# {title}",
        _summary(run, result),
        f"## Scores\n\n{_scores(run, results)}",
        f"## Use\n\n{loading(repository, json.dumps(next(iter(run.network.adapters))))}",
        "\n".join(f"- {line}" for line in _inputs(run)),
        f"## Train again\n\n{_repeat(run, repository)}",
        "## Known limits\n\n" + "\n".join(f"- {line}" for line in _limits(run, result, license)),
        f"## Network\n\n```text\n{_network(run)}\n```",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _tags(run: TrainedRun) -> list[str]:
    """Return words by which the hub is searched."""
    config = run.config
    kinds = {"continual-learning"} if config.stream else set[str]()
    kinds |= {"multi-task-learning"} if len(config.named_tasks) > 1 else set()
    return list(dict.fromkeys(["thalnet", "recurrent", config.model.body, *sorted(kinds)]))


def _evaluations(run: TrainedRun, results: Sequence[RunResult]) -> Iterator[EvalResult]:
    """Yield the test scores for the metadata of the card, as means over seeds."""
    for name, task in results[0].tasks.items():
        kind, title = KINDS[run.tasks[name].target.name]
        if run.tasks[name].spec.tokens and run.tasks[name].spec.every_step:
            kind, title = "text-generation", "prediction of the next token"
        for metric in task.metrics:
            values = _values(results, name, "test", metric)
            yield EvalResult(
                task_type=kind,
                task_name=title,
                dataset_type=task.source or task.kind,
                dataset_name=task.label if task.label == name else f"{name}: {task.label}",
                dataset_split="test",
                metric_type=metric.name,
                metric_name=f"{metric.name}, {_over(results)}",
                metric_value=sum(values) / len(values),
                metric_args=_spread(results, values),
            )


def _spread(results: Sequence[RunResult], values: Sequence[float]) -> dict[str, list[float]]:
    """Return seeds and the interval of a mean, for the metadata of the card."""
    seeds: dict[str, list[float]] = {"seeds": [result.seed for result in results]}
    interval = list(bootstrap_interval(values)) if len(values) > 1 else []
    return seeds | ({"interval_95": interval} if interval else {})


def _values(results: Sequence[RunResult], task: str, split: str, metric: Metric) -> list[float]:
    return [result.tasks[task].scores[split].values[metric.name] for result in results]


def _over(results: Sequence[RunResult]) -> str:
    return f"mean over {len(results)} seeds" if len(results) > 1 else f"seed {results[0].seed}"


def _summary(run: TrainedRun, result: RunResult) -> str:
    """Return two sentences on the network and its training."""
    config, tasks = run.config, list(result.tasks)
    listed = ", ".join(tasks[:5]) + (f" and {len(tasks) - 5} others" if len(tasks) > 5 else "")
    how = " one after another" if config.stream else " jointly" if len(tasks) > 1 else ""
    body = f"network with the body `{config.model.body}`"
    if config.model.body == "thalnet":
        body = f"[ThalNet]({PAPER}) (recurrent modules around a routing center)"
    choice = "the last" if config.stream else "the best on validation"
    return (
        f"A {body} of {result.parameters.total:,} parameters, trained on {listed}{how} for "
        f"{result.steps:,} steps with `thalnet_mtl` {thalnet_mtl.__version__}. The weights are "
        f"those of step {result.best_step:,}, {choice}, of seed {result.seed}."
    )


def _scores(run: TrainedRun, results: Sequence[RunResult]) -> str:
    """Return a table of the scores, what they are means of, and measures of a stream."""
    several = len(results) > 1
    rows = ["| task | data | metric | validation | test | guessing | test targets |"]
    if several:
        rows = ["| task | data | metric | validation | test | test, this network | guessing | "
                "test targets |"]  # fmt: skip
    rows.append("|---" * (rows[0].count("|") - 1) + "|")
    for name, task in results[0].tasks.items():
        for place, metric in enumerate(task.metrics):
            cells = [_escaped(name), _escaped(task.label), metric.title]
            cells += [_cell(results, name, split, metric) for split in ("validation", "test")]
            if several:
                cells.append(metric.format(task.scores["test"].values[metric.name]))
            cells.append(_guess(task, metric) if place == 0 or "test" in task.guess else "–")
            cells.append(f"{task.scores['test'].count:,}")
            rows.append(f"| {' | '.join(cells)} |")
    seeds = ", ".join(str(seed) for seed in sorted(result.seed for result in results))
    note = (
        f"Means over {len(results)} seeds ({seeds}) with 95 % bootstrap intervals of the mean."
        if several
        else f"One seed ({seeds}): how much the scores vary from seed to seed is not known."
    )
    lines = ["\n".join(rows), note]
    if measures := list(_measures(results)):
        lines.append(f"Measures of the stream of tasks: {'; '.join(measures)}.")
    return "\n\n".join(lines)


def _cell(results: Sequence[RunResult], task: str, split: str, metric: Metric) -> str:
    """Return mean and interval over seeds, or the score of one seed."""
    values = _values(results, task, split, metric)
    if len(values) == 1:
        return metric.format(values[0])
    return f"{Cell(values, metric).format()} {metric.unit}".rstrip()


def _guess(task: TaskResult, metric: Metric) -> str:
    guess = task.guess.get("test", {}).get(metric.name)
    return metric.format(task.guess_score("test") if guess is None else guess)


def _measures(results: Sequence[RunResult]) -> Iterator[str]:
    """Yield measures of a stream of tasks, as means over seeds."""
    metric = shared_metric({name: task.metrics[0] for name, task in results[0].tasks.items()})
    summaries = [result.continual for result in results if result.continual]
    for key, (title, _) in MEASURES.items() if summaries else ():
        means = [summary.measures[key].mean for summary in summaries]
        values = [mean for mean in means if mean is not None]
        if len(values) == len(results):
            yield f"{title} {Cell(values, metric or NORMALIZED).format()}"


def _inputs(run: TrainedRun) -> Iterator[str]:
    """Yield what a caller has to know of inputs and outputs of each task; of many, of some."""
    for name, task in list(run.tasks.items())[:5]:
        spec = task.spec
        axes = "(batch, time)" if spec.tokens else f"(batch, time, {_width(task)})"
        kind = f"tokens below {spec.input_width()}" if spec.tokens else "rows"
        every = "(batch, time, " if spec.every_step else "(batch, "
        answers = {
            "class": "classes, as logits",
            "labels": "labels, as logits",
            "numbers": "numbers",
        }
        names = list(getattr(task, "class_names", ()))
        listed = f": {', '.join(map(_escaped, names[:10]))}" if names else ""
        answer = f"{every}{spec.outputs}) {answers[task.target.name]}{listed}"
        yield (
            f"`{name}` (head `{task.head_name}`): `xs` are {kind} {axes}"
            f"{_scaling(run, name, task)}; `outputs` are {answer}."
        )


def _width(task: Task) -> str:
    widths = {name: task.spec.input_width(name) for name in task.spec.input_names}
    return str(widths or task.spec.input_width())


def _scaling(run: TrainedRun, name: str, task: Task) -> str:
    """Return how raw inputs and outputs have to be scaled by the caller."""
    words, scale = [], getattr(task, "scale", 1)
    if scale != 1:
        words.append(f"divided by {scale:g}")
    if getattr(task, "order", None) is not None:
        words.append("in the order of the task")
    recorded = run.record.environment.get("scalings", {}).get(name) or (None, None)
    for which, scaling in zip(("inputs", "outputs"), recorded, strict=True):
        if scaling:
            words.append(f"{which} standardized by `scalings` in `environment.json`")
    return f", {', '.join(words)}" if words else ""


def _repeat(run: TrainedRun, repository: str) -> str:
    """Return the command that trains the same network, and with what it was trained."""
    about = run.record.environment
    packages = {name: v for name, v in (about.get("packages") or {}).items() if v}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    data = [
        f"- data set `{source}`: {', '.join(f'{file} `{sum_}`' for file, sum_ in files.items())}"
        for source, files in (about.get("data") or {}).items()
    ]
    plugins = []
    for plugin in run.config.plugins:
        path, _, digest = plugin.name.partition(MARK)
        plugins.append(f"- needs the file `{Path(path).name}` of its author (sha256 `{digest}`…)")
    facts = [f"- Python {about.get('python', '?')}, {versions}" if versions else ""]
    facts += [f"- commit `{commit}`"] if (commit := about.get("commit")) else []
    facts += [f"- device {about['device']}"] if about.get("device") else []
    lines = "\n".join(line for line in [*facts, *data, *plugins] if line)
    if repository.startswith(ZOO):
        name = repository.removeprefix(ZOO)
        return (
            f"`benchmarks/zoo/zoo.yaml` of the project holds every setting; in a checkout:\n\n"
            f"```bash\npython -m benchmarks.zoo {name}\n```\n\n{lines}"
        )
    return (
        f"`config.yaml` of this repository holds every setting, with the seed:\n\n```bash\n"
        f"hf download {repository} config.yaml --local-dir again\n"
        f"thalnet train again/config.yaml --out runs/again\n```\n\n{lines}"
    )


def _limits(run: TrainedRun, result: RunResult, license: str) -> Iterator[str]:
    """Yield what the scores do not say."""
    yield "It was scored on the test splits above and on nothing else; data of another origin may "\
          "give other scores."  # fmt: skip
    if not run.config.stream:
        yield "Its weights were chosen by validation scores, which are therefore too good."
    if batches := result.evaluation_batches:
        yield f"Only the first {batches:,} batches of each split were scored."
    if len(run.tasks) > 1:
        yield "The caller says which task a sequence belongs to; the network does not guess it."
    if license == "unknown":
        yield "Its author has not stated a license."
    for name, task in run.tasks.items():
        for notice in (run.record.environment.get("notices") or {}).get(task.name, ()):
            yield f"`{name}`: {_escaped(notice)}"


def _network(run: TrainedRun) -> str:
    lines = repr(run.network).splitlines()
    omitted = [f"… and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *omitted])


def _escaped(text: str) -> str:
    """Return a text for a cell of a table in Markdown: one line without marks."""
    marks = {mark: f"\\{mark}" for mark in "|<>`*[]\\"}
    return "".join(marks.get(letter, letter) for letter in " ".join(text.split()))
