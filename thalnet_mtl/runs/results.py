"""The result of a finished run, as Python objects and as ``result.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import read_fields
from thalnet_mtl.json_fields import from_fields, require, typed
from thalnet_mtl.metrics.metric import METRICS, Metric, guess_among_equal_classes, list_names
from thalnet_mtl.metrics.summary import ContinualSummary
from thalnet_mtl.runs.checksums import RESULT, check_sums
from thalnet_mtl.runs.decisions import DecisionCount
from thalnet_mtl.runs.shown import ShownResult, ShownTaskResult

SPLITS = ("train", "validation", "test")
SCORED = (*SPLITS, "untrained")  # the last: the test split, before training


@dataclass(frozen=True)
class SplitScores:
    """Scores of one task on one split of its data."""

    values: Mapping[str, float]  # by metric, the main one first
    loss: float  # mean over the targets
    count: int  # targets

    @property
    def value(self) -> float:
        """Score in the main metric of the task."""
        return next(iter(self.values.values()))


@dataclass(frozen=True)
class UnknownTaskScores:
    """Scores of one task on its test split, where sequences choose their path by their inputs.

    A path is the head of a task with its modules, and has the name of the head.
    """

    path: str  # of the task
    values: Mapping[str, float]  # by metric, the main one first
    chosen: Mapping[str, float]  # share of the sequences by the path that they chose
    own_batches: float  # share of the batches whose sequences together chose the path of the task

    @property
    def value(self) -> float:
        """Score in the main metric of the task."""
        return next(iter(self.values.values()))

    @property
    def own(self) -> float:
        """Share of the sequences that chose the path of the task."""
        return self.chosen[self.path]

    @property
    def confused(self) -> dict[str, float]:
        """Shares of other paths, where they are a tenth or more."""
        return {p: share for p, share in self.chosen.items() if p != self.path and share >= 0.1}


@dataclass(frozen=True)
class BestScore:
    """The best validation score of one task, and the step after which it was reached."""

    step: int
    value: float


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a network."""

    total: int
    trainable: int
    frozen: int


@dataclass(frozen=True, repr=False)
class TaskResult(ShownTaskResult):
    """Results of a run on one of its tasks; ``test`` and the like are in its main metric.

    Attributes:
        label: the kind of task and the version of its data.
        kind: the registered name of the task.
        source: the name of the data set; '' for data that is not stored.
        classes: width of the head; None in files of versions that did not record it.
        metrics: the main one first.
        scores: by split: 'train', 'validation' and 'test', and 'untrained', that of the untrained
            network on 'test'. Each has ``values`` by metric, ``loss`` and ``count``, the number of
            targets.
        best_validation: ``step`` and ``value`` of the best score of this task alone; the kept
            weights are best for all tasks together.
        guess: what guessing scores, by split and metric; empty in files of versions that did not
            record it.
        unknown_task: scores without the name of the task, with ``tasks.NAME.unknown``.
    """

    label: str
    kind: str
    source: str
    classes: int | None
    metrics: Sequence[Metric]
    scores: Mapping[str, SplitScores]
    best_validation: BestScore
    guess: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    unknown_task: UnknownTaskScores | None = None

    @property
    def metric(self) -> str:
        """Name of the main metric."""
        return self.metrics[0].name

    def guess_score(self, split: str) -> float:
        """Return what guessing scores on 'validation' or 'test', in the main metric.

        For runs that did not record it, it is that of guessing among equally frequent classes, or
        the untrained score if the number of classes is unknown as well.
        """
        if split in self.guess:
            return self.guess[split][self.metric]
        if self.classes is None:
            return self.untrained
        return guess_among_equal_classes(self.metric, self.classes)

    @property
    def train(self) -> float:
        """Metric on the training split (as many batches as the test split has)."""
        return self.scores["train"].value

    @property
    def validation(self) -> float:
        """Metric on the validation split."""
        return self.scores["validation"].value

    @property
    def test(self) -> float:
        """Metric on the test split."""
        return self.scores["test"].value

    @property
    def untrained(self) -> float:
        """Metric of the untrained network on the test split."""
        return self.scores["untrained"].value

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the task in ``result.json``."""
        classes = {} if self.classes is None else {"classes": self.classes}
        entry = {"label": self.label, "kind": self.kind, "source": self.source, **classes}
        entry |= {"metric": self.metric, "metrics": [metric.to_json() for metric in self.metrics]}
        for split, scores in self.scores.items():
            entry[split] = {"loss": scores.loss, **scores.values, "count": scores.count}
        guess = {split: dict(values) for split, values in self.guess.items()}
        if self.unknown_task:
            entry["unknown_task"] = asdict(self.unknown_task)
        return entry | {"own_best": asdict(self.best_validation), "guess": guess}

    @classmethod
    def from_json(cls, content: Any, where: str) -> "TaskResult":
        """Read the entry of a task in ``result.json``; ``where`` names it in errors."""
        require(content, ("label", "kind", "source", "metric", *SCORED, "own_best"), where)
        metrics = read_metrics(content, where)
        names = [metric.name for metric in metrics]
        scores = {}
        for split in SCORED:
            values, place = content[split], f"{where}: {split}"
            require(values, (*names, "loss", "count"), place)
            by_metric = {name: values[name] for name in names}
            scores[split] = from_fields(SplitScores, values | {"values": by_metric}, place)
        parts = {"metrics": metrics, "scores": scores, "best_validation": content["own_best"]}
        parts |= {"classes": content.get("classes")}
        result = from_fields(cls, content | parts, where)
        for split, values in result.guess.items():
            require(values, names[:1], f"{where}: guess: {split}")
        if result.unknown_task:
            unknown_task, place = result.unknown_task, f"{where}: unknown_task"
            require(unknown_task.values, names, f"{place}: values")
            require(unknown_task.chosen, (unknown_task.path,), f"{place}: chosen")
        return result


@dataclass(frozen=True, repr=False)
class RunResult(ShownResult):
    """The result of a finished run: ``result.tasks["digits_rows"].test`` is its test score.

    Attributes:
        body: 'thalnet', 'gru', …
        tasks: results by the name of the task in the run.
        best_step: of the weights that were kept and scored.
        steps: after which training ended.
        parameters: the numbers ``total``, ``trainable`` and ``frozen``.
        seed: of the run.
        seconds: of the whole run.
        train_seconds: of training steps.
        evaluation_batches: at most so many batches of each split were scored; 0: all.
        continual: of a run over several experiences.
        decisions: of a search, where the stream has an answer key.
    """

    body: str
    tasks: Mapping[str, TaskResult]
    best_step: int
    steps: int
    parameters: ParameterCounts
    seed: int
    seconds: float
    train_seconds: float
    evaluation_batches: int
    continual: ContinualSummary | None = None
    decisions: DecisionCount | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``result.json``."""
        content = {
            "body": self.body,
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "best_step": self.best_step,
            "steps": self.steps,
            "parameters": asdict(self.parameters),
            "seed": self.seed,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "evaluation_batches": self.evaluation_batches,
        }
        content |= {"continual": self.continual.to_json()} if self.continual else {}
        return content | ({"decisions": asdict(self.decisions)} if self.decisions else {})

    def lines(self) -> list[str]:
        """Return in words what the tests of a stream, of unknown tasks and of decisions say."""
        metrics = {name: task.metrics[0] for name, task in self.tasks.items()}
        lines = [self.continual.line(metrics)] if self.continual else []
        lines += self._unknown_task_lines()
        return [*lines, self.decisions.line()] if self.decisions else lines

    def _unknown_task_lines(self) -> list[str]:
        """Return in words how well inputs choose their path; nothing if that was not scored."""
        by_metric: dict[Metric, list[tuple[TaskResult, UnknownTaskScores]]] = {}
        instead = []
        for name, task in self.tasks.items():
            if not task.unknown_task:
                continue
            by_metric.setdefault(task.metrics[0], []).append((task, task.unknown_task))
            for path, share in task.unknown_task.confused.items():
                instead.append(f"{name} as {path} {_percent(share)}")
        lines = []
        for metric, scored in by_metric.items():
            parts = [(s.value, task.test, s.own, s.own_batches) for task, s in scored]
            value, known, own, batches = (
                sum(part) / len(parts) for part in zip(*parts, strict=True)
            )
            lines.append(
                f"task unknown: mean {metric.name} {metric.format(value)} (known: "
                f"{metric.format(known)}); {_percent(own)} of sequences and {_percent(batches)} of "
                f"batches choose their own path"
            )
        if instead:
            lines.append(f"paths confused by their inputs: {list_names(instead)}")
        return lines

    @classmethod
    def from_json(cls, content: Any, where: str) -> "RunResult":
        """Read the content of ``result.json``; ``where`` names the file in errors.

        Raises:
            UserError: a key is missing, a value has another type, or two do not belong together.
        """
        result = from_fields(cls, content, where)
        summary = result.continual
        names = {task for stage in summary.trained for task in stage} if summary else set()
        rows = summary.scores if summary else ()
        if not names <= result.tasks.keys() or any(len(row) != len(result.tasks) for row in rows):
            raise UserError(f"{where}: continual is damaged: its tasks are not those of the run.")
        return result

    @classmethod
    def load(cls, folder: Path | str) -> "RunResult":
        """Read the result of a finished run from its directory.

        Raises:
            UserError: the run has not finished, or the file is damaged.
        """
        check_sums(Path(folder), [RESULT])
        path = Path(folder) / RESULT
        return cls.from_json(read_fields(path), str(path))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def read_metrics(content: Mapping[str, Any], where: str) -> tuple[Metric, ...]:
    """Return the metrics of the entry of a task, the main one first.

    Versions that did not record them had two, which are known by name.
    """
    if "metrics" in content:
        metrics = typed(content["metrics"], tuple[Metric, ...], f"{where}: metrics")
        if not metrics or metrics[0].name != content["metric"]:
            raise UserError(f"{where} is damaged: '{content['metric']}' is not its first metric.")
        return metrics
    if typed(content["metric"], str, f"{where}: metric") not in METRICS:
        raise UserError(f"{where}: {unknown('metric', content['metric'], METRICS)}")
    return (METRICS[content["metric"]],)


def read_logged_metrics(path: Path) -> dict[str, list[Metric]]:
    """Read ``metrics.json``, which a run writes when it starts: the metrics of each task.

    Runs of versions that did not write it have none.
    """
    content = read_fields(path) if path.exists() else {}
    logged: dict[str, list[Metric]] = typed(content, dict[str, list[Metric]], str(path))
    return logged
