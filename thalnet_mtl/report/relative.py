"""Quantities of a run relative to other runs with the same seed: transfer, skill, gain and more."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from thalnet_mtl.config.schema import NamedTaskConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics import continual
from thalnet_mtl.metrics.continual import AccuracyMatrix, Measure, Undefined, measure
from thalnet_mtl.metrics.learning_curves import steps_to_reach
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.multitask import relative_gain, skill
from thalnet_mtl.metrics.summary import trained_matrix
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.summaries import RunSummary

Value = tuple[float | None, Metric]  # in the unit of the metric; None where it is not defined
TITLES = {
    "transfer": "transfer",
    "skill": "skill",
    "gain": "Δm",
    "steps_to_90": "steps to 90 % of S",
    "intransigence": "intransigence",
}
GAIN = Metric("gain", True, 1.0, "%")
SKILL = Metric("skill", True, 1.0, "%")
STEPS = Metric("steps", False, 0.0, decimals=0)


@dataclass(frozen=True)
class References:
    """Runs that others are compared with: single-task runs, and joint runs, by seed."""

    single: Sequence[RunSummary] = ()
    joint: Sequence[RunSummary] = ()
    missing: dict[str, set[int]] = field(default_factory=dict)  # seeds without such a run

    @cached_property
    def _by_data(self) -> dict[tuple[int, str], list[RunSummary]]:
        """Single-task runs by their seed and the data of their task."""
        runs: dict[tuple[int, str], list[RunSummary]] = {}
        for run in self.single:
            if len(run.tasks) == 1:
                (task,) = run.tasks.values()
                runs.setdefault((run.seed, _data(task)), []).append(run)
        return runs

    def single_scores(self, run: RunSummary, split: str) -> dict[str, float]:
        """Return S, the score of the single-task run with the same data and seed, by task."""
        scores = {}
        for task, config in run.tasks.items():
            matches = self._by_data.get((run.seed, _data(config)), [])
            if result := self._only(matches, f"single-task run on {task}", run.seed):
                scores[task] = next(iter(result.tasks.values())).scores[split].value
        return scores

    def joint_scores(self, run: RunSummary) -> dict[str, float]:
        """Return J, the test score of the joint run with the same seed, by task."""
        matches = [
            other
            for other in self.joint
            if other.seed == run.seed and run.tasks.keys() <= other.tasks.keys()
        ]
        result = self._only(matches, "joint run", run.seed)
        return {task: scores.test for task, scores in result.tasks.items()} if result else {}

    def _only(self, matches: Sequence[RunSummary], title: str, seed: int) -> RunResult | None:
        """Return the result of the only run; None, and say so, if there is none."""
        finished = [run for run in matches if run.result]
        if len(finished) > 1:
            names = f"{finished[0].path} and {finished[1].path}"
            raise UserError(f"there is more than one {title} with seed {seed}: {names}. Name one.")
        if not finished:
            self.missing.setdefault(title, set()).add(seed)
            return None
        return finished[0].result


def _data(config: NamedTaskConfig) -> str:
    """Return what tells the data of a task from those of others."""
    return json.dumps([config.name, config.options], sort_keys=True)


def relative(run: RunSummary, name: str, references: References, task: str = "") -> Value:
    """Return a quantity relative to other runs, of one task or as the mean over all."""
    assert run.result is not None
    tasks = {n: r for n, r in run.result.tasks.items() if not run.tasks[n].only_scored}
    metrics = {name: result.metrics[0] for name, result in tasks.items()}
    kind = next(iter(metrics.values()))
    if name in ("transfer", "intransigence"):
        compared = _learned(run, name, metrics, references)
        unit = replace(kind, name=name, higher_is_better=name == "transfer")
    elif name == "steps_to_90":
        compared, unit = _steps_to_90(run, metrics, references), STEPS
    else:
        singles = references.single_scores(run, "test")
        unit = SKILL if name == "skill" else GAIN

        def value(name: str) -> float:
            baseline, result = continual.score_of(singles, name, "single-task"), tasks[name]
            if unit is SKILL:
                return skill(result.test, baseline, result.guess_score("test"))
            return relative_gain(result.test, baseline, metrics[name])

        compared = measure(tasks, value)
    return (compared.values.get(task) if task else compared.mean), unit


def _learned(
    run: RunSummary, name: str, metrics: Mapping[str, Metric], references: References
) -> Measure:
    """Return how well tasks were learned relative to single-task runs, or to a joint run."""
    assert run.result is not None
    summary = run.result.continual
    if summary is None:
        return measure([], lambda task: 0.0)
    matrix: AccuracyMatrix = trained_matrix(metrics, summary.trained, summary.scores)
    if name == "transfer":
        return continual.transfer(matrix, references.single_scores(run, "test"))
    return continual.intransigence(matrix, references.joint_scores(run))


def _steps_to_90(run: RunSummary, metrics: Mapping[str, Metric], references: References) -> Measure:
    """Return the steps from the start of a task to 90 % of S on validation.

    A task that does not get there counts with all steps of its experience.
    """
    assert run.result is not None
    singles = references.single_scores(run, "validation")
    summary, steps = run.result.continual, run.result.steps
    trained, ends = (summary.trained, summary.ends) if summary else ([list(metrics)], [steps])
    first = {t: k for k, names in reversed(list(enumerate(trained))) for t in names}
    starts = {task: ends[k - 1] if k else 0 for task, k in first.items()}
    curves = {
        task: [(n - start, x) for n, x in run.curve(task, metrics[task].name) if n > start]
        for task, start in starts.items()
    }
    reached = steps_to_reach(metrics, curves, singles).values

    def value(task: str) -> float:
        if task not in singles or not curves[task]:
            raise Undefined("no single-task run, or no curve")
        return reached.get(task, float(ends[first[task]] - starts[task]))

    return measure(starts, value)
