"""The trials of a search for settings: their values, their runs and their scores."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import duration
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.sweep.arms import Arm, first_experiences
from thalnet_mtl.sweep.plan import PlannedRun, column_names, format_value
from thalnet_mtl.sweep.queue import RunQueue, SweepEntry
from thalnet_mtl.sweep.sampler import FinishedTrial, random_values, tpe_values
from thalnet_mtl.sweep.scores import ranked, score_of

DIVERGED = "training has diverged"  # in the last line of the log of a run that has


@dataclass
class Trial:
    """A trial in the record of a tuning."""

    number: int
    values: dict[str, Any]  # of the sampled fields that it has
    runs: list[str]  # one for each seed; of an earlier trial with the same values, if there is one
    status: str = "waiting"  # 'done', 'failed' or 'waiting', of all its runs together
    score: float | None = None  # mean over its runs; None unless all are done and it is finite


@dataclass
class ArmRecord:
    """An arm in the record of a tuning."""

    run: str
    point: dict[str, Any]  # values of the grid
    left_out: dict[str, str]  # sampled fields that no trial has, and why
    trials: list[Trial] = field(default_factory=list)
    metric: Metric | None = None  # of the scores; None before the first
    winner: int | None = None  # number of the trial with the best score, once all have ended

    def best(self, count: int) -> Trial | None:
        """Return the trial with the best score among the first ``count``; of equals, the first."""
        scores = [trial.score for trial in self.trials[:count]]
        order = ranked(scores, self.metric) if self.metric else []
        return self.trials[order[0]] if order else None

    def failed(self, count: int) -> int:
        """Return the number of failed trials among the first ``count``."""
        return sum(trial.status == "failed" for trial in self.trials[:count])


@dataclass(frozen=True)
class Settings:
    """Settings of a tuning; the record holds all of them but the number of trials."""

    trials: int  # of every arm
    sampler: str
    tuning_seed: int
    seeds: Sequence[int]  # of every trial
    tuned_on: Mapping[str, int]  # experiences that trials train, by arm; 0 without a stream
    at_a_time: int  # trials of an arm that TPE suggests before it sees their scores


class Trials(RunQueue):
    """Queue of the runs of all trials of all arms.

    Args:
        out: the folder of their runs.
        arms: with distinct names.
        settings: of the tuning.
        records: of all arms by name; trials are added to them.
        entries, save: see ``RunQueue``.
    """

    def __init__(
        self,
        out: Path,
        arms: Sequence[Arm],
        settings: Settings,
        records: Mapping[str, ArmRecord],
        entries: dict[str, SweepEntry],
        save: Callable[[], None],
    ):
        self.arms, self.settings, self.records = arms, settings, records
        self._trials: dict[str, tuple[Arm, Trial]] = {}  # by run
        self._scores: dict[str, tuple[float, Metric]] = {}  # by run
        super().__init__(out, [], entries, save)
        self.total = len(arms) * settings.trials * len(settings.seeds)
        for arm in arms:
            for trial in records[arm.name].trials[: settings.trials]:
                self._plan(arm, trial)

    def batches(self) -> Iterator[Sequence[PlannedRun]]:
        """Yield all trials at random, or as many of every arm as TPE suggests at a time."""
        count, settings = self.settings.trials, self.settings
        step = count if settings.sampler == "random" else settings.at_a_time
        for first in range(0, count, step):
            for number in range(first, min(first + step, count)):
                for arm in self.arms:
                    trials = self.records[arm.name].trials
                    if number == len(trials):
                        trials.append(self._suggest(arm, number, first))
                        self._plan(arm, trials[-1])
            self.save()  # a trial is trained only once its values are on the disk
            numbers = range(first, first + step)
            yield [run for run in self.plan if self._trials[run.name][1].number in numbers]

    def is_final(self, entry: SweepEntry) -> bool:
        """Return whether a run would fail again: it has diverged."""
        return entry.status == "failed" and DIVERGED in entry.error

    def update(self) -> None:
        """Set the status and the score of every trial to what its runs say."""
        for arm in self.arms:
            record = self.records[arm.name]
            for trial in record.trials[: self.settings.trials]:
                statuses = {self.entries[name].status for name in trial.runs}
                trial.status, trial.score = "waiting", None
                if statuses == {"done"}:
                    scores = [self._score(name) for name in trial.runs]
                    mean, record.metric = fmean(score for score, _ in scores), scores[0][1]
                    finite = math.isfinite(mean)
                    trial.status, trial.score = ("done", mean) if finite else ("failed", None)
                elif statuses <= {"done", "failed"}:
                    trial.status = "failed"

    def config(self, arm: Arm, values: Mapping[str, Any], seed: int) -> Config:
        """Return the configuration of a run of a trial."""
        return first_experiences(arm.configure(values, seed), self.settings.tuned_on[arm.name])

    def outcome(self, name: str) -> tuple[str, str]:
        """Return the title of a run of a trial, and its score or its error."""
        (arm, trial), entry = self._trials[name], self.entries[name]
        several = f" seed {entry.seed}" if len(self.settings.seeds) > 1 else ""
        title = f"{arm.name} trial {trial.number}{several}".strip()
        if entry.status != "done":
            return title, f"{entry.status}, {entry.error}"
        score, metric = self._score(name)
        name = metric.name.replace("_", " ")
        return title, f"validation {name} {metric.format(score)} in {duration(entry.seconds)}"

    def details(self, name: str) -> str:
        """Return the sampled values of a run."""
        return describe_values(self._trials[name][1].values)

    def _suggest(self, arm: Arm, number: int, first: int) -> Trial:
        """Return a new trial of an arm; TPE uses the scores of the trials before ``first``."""
        settings, record = self.settings, self.records[arm.name]
        if settings.sampler == "random":
            values = random_values(arm.space, settings.tuning_seed, number)
        else:
            self.update()
            finished = [FinishedTrial(t.values, t.score) for t in record.trials[:first]]
            maximize = record.metric is None or record.metric.higher_is_better
            values = tpe_values(arm.space, settings.tuning_seed, number, finished, maximize)
        values = arm.trial_values(values)
        same = next((trial for trial in record.trials if trial.values == values), None)
        stem = f"{arm.name}-trial{number:02}".removeprefix("-")
        runs = same.runs if same else [f"{stem}-seed{seed}" for seed in settings.seeds]
        return Trial(number, values, runs)

    def _plan(self, arm: Arm, trial: Trial) -> None:
        """Plan the runs of a trial that are not those of an earlier one."""
        for name, seed in zip(trial.runs, self.settings.seeds, strict=True):
            if name in self._trials:
                self.total -= 1
                continue
            self._trials[name] = arm, trial
            config = self.config(arm, trial.values, seed)
            self.add([PlannedRun(name, arm.run, {**arm.point, **trial.values}, seed, config)])

    def _score(self, name: str) -> tuple[float, Metric]:
        """Return the validation score of a finished run over the tasks that it trained."""
        if name not in self._scores:
            result = RunResult.load(self.out / name)
            (arm, trial), seed = self._trials[name], self.entries[name].seed
            trained = self.config(arm, trial.values, seed).trained_tasks
            self._scores[name] = score_of(result, trained)
        return self._scores[name]


def describe_values(values: Mapping[str, Any]) -> str:
    """Return sampled values as people write them: 'learning_rate=0.001, layers=2'."""
    names = column_names(list(values))
    return ", ".join(f"{names[key]}={format_value(value)}" for key, value in values.items())
