"""Scores and losses of a run while it trains: logged, shown, and kept for its results."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalnet_mtl.console import Console
from thalnet_mtl.metrics.metric import format_scores, list_names
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.topology_file import ChangeEntry
from thalnet_mtl.signals import interruptible
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.best_weights import keep_best, restore_best
from thalnet_mtl.training.checkpoint import save_best
from thalnet_mtl.training.checkpoint_parts import PartFiles
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.readings import ReadingRecorder
from thalnet_mtl.training.results import (
    decision_entries,
    measure_cost,
    measures_so_far,
    write_topology,
)
from thalnet_mtl.training.score_lines import MANY, Scores, summary_line
from thalnet_mtl.training.scores import is_better, record_validation
from thalnet_mtl.training.state import NOT_TRAINED
from thalnet_mtl.training.tracking.callback import RunView
from thalnet_mtl.training.tracking.callbacks import Callbacks
from thalnet_mtl.training.tracking.tracker import NO_EVENTS, names_of


class Monitor:
    """The scores, the log and the console of a run, updated after steps.

    Args:
        run: scored as it is; its scores are kept in its state.
        directory: for the log and ``best.pt``.
        console: for people.
        parts: see ``save_checkpoint``.
        callbacks: that are told of all of it; by default none.
    """

    def __init__(
        self,
        run: RunContext,
        directory: RunDirectory,
        console: Console,
        parts: PartFiles | None = None,
        callbacks: Callbacks | None = None,
    ):
        self.run, self.directory, self.console, self.parts = run, directory, console, parts
        self.readings = ReadingRecorder(run, directory)
        self.callbacks = callbacks or Callbacks({}, RunView(run, directory.folder), console)
        self.shown_frozen: dict[str, Mapping[str, float]] = {}  # validation scores of frozen tasks
        self.rate_since: tuple[int, float] | None = None  # step and seconds, for the rate of steps

    def score_untrained(self, task: str, step: int) -> None:
        """Score a task on the test split before its training, if its rule of growth has not yet.

        Args:
            task: its name.
            step: at which it is added. A rule of growth may have trained it since then.
        """
        scores = self.run.state.scores.untrained
        if task not in scores:
            with interruptible():
                scores[task] = self.run.score_untrained(task)
        self.log(step, "test", {task: scores[task]})

    def log(
        self, step: int, split: str, scores: Mapping[str, Mapping[str, float]], **extra: Any
    ) -> None:
        """Log scores of tasks on a split; those of frozen tasks are marked.

        Args:
            step: of the scores.
            split: validation or test.
            scores: by task and metric.
            extra: of the lines of the log.
        """
        for name, values in scores.items():
            frozen = {} if name in self.run.trainable_tasks else {"frozen": True}
            self.directory.log(step, name, split, values, **extra, **frozen)
        self.callbacks.evaluation(step, split, scores)

    def start_accuracy_matrix(self) -> None:
        """Score the untrained network: the first row of the matrix of scores."""
        run, scores = self.run, self.run.state.scores
        with evaluation_mode(run.network):
            for name in run.attached_tasks:
                self.score_untrained(name, run.step)
        row = {n: scores.untrained[n][run.tasks[n].metric.name] for n in run.attached_tasks}
        scores.accuracy_matrix.append(row)
        if run.continual:
            scores.costs.append(measure_cost(run))
        self.readings.start()

    def score_appended(self) -> None:
        """Score the tasks of appended experiences that had no score after the last experience.

        Their scores after earlier ones stay unknown.
        """
        run, matrix = self.run, self.run.state.scores.accuracy_matrix
        new = [name for name in matrix[0] if name not in matrix[-1]]
        last = run.last_experience
        if new and run.step == last.stop and not run.state.due:
            scored = run.scores(new, "test")
            for name, values in scored.items():
                matrix[-1][name] = values[run.tasks[name].metric.name]
                self.log(run.step, "test", {name: values}, experience=last.number)
                self.log(0, "test", {name: run.state.scores.untrained[name]})

    def log_losses(
        self, means: Mapping[str, float], learning_rate: float, gradient_norm: float | None = None
    ) -> None:
        """Log and show the mean loss of each task since the last time.

        Args:
            means: by task.
            learning_rate: of the last step.
            gradient_norm: of the last step, for callbacks; None where it is not known.
        """
        run, seconds = self.run, self.run.state.timers.train_seconds
        scores = {
            name: {"loss": loss, "learning_rate": learning_rate} for name, loss in means.items()
        }
        for name, values in scores.items():
            self.directory.log(run.step, name, "train", values, seconds=seconds)
        if self.callbacks.listens("on_log"):
            training = {} if gradient_norm is None else {"training/gradient_norm": gradient_norm}
            if self.rate_since and seconds > self.rate_since[1]:
                steps, time = run.step - self.rate_since[0], seconds - self.rate_since[1]
                training |= {"training/steps_per_second": steps / time}
            self.rate_since = run.step, seconds
            self.callbacks.log(run.step, names_of("train", scores) | training)
        self.console.log_losses(run.step, means)

    def start_callbacks(
        self, resumed_at: int | None, logged: frozenset[tuple[int, str]] = NO_EVENTS
    ) -> None:
        """Start the callbacks, when the run begins or goes on; see ``Callbacks.start``."""
        self.callbacks.start(resumed_at, logged)
        self.rate_since = self.run.step, self.run.state.timers.train_seconds

    def validate(self) -> None:
        """Score the validation splits, and keep the weights that are best for all tasks together.

        Weights are compared by the mean over trained tasks of the normalized score: 0 for
        guessing, 1 for perfection. With several experiences the last weights are kept, good or
        bad: their scores are the last row of the matrix of scores. With ``train.patience`` the best
        ones of each experience are, for its own tasks.
        """
        run, scores, normalized = self.run, self.run.state.scores, []
        active, experience = run.active_tasks, run.last_experience
        judged: Sequence[str] = () if run.continual else run.config.trained_tasks
        if run.keeps_best:
            active, judged = run.active_in(experience), experience.tasks
        with interruptible():
            scored = run.scores(run.attached_tasks, "validation")
        self.show_validation(scored)
        self.log(run.step, "validation", scored, seconds=run.state.timers.train_seconds)
        for name, values in scored.items():
            task = run.tasks[name]
            metric = task.metric
            value = values[metric.name]
            batches = run.state.batches_seen[name]
            new = name, metric, value, run.step, batches, name in active
            record_validation(scores.best_by_task, *new)
            if name in judged:
                guess = run.guess(name, "validation")[metric.name]
                normalized.append(metric.normalized_score(value, guess))
                if run.keeps_best:
                    record_validation(run.state.stopping.best_by_task, *new)
        mean = sum(normalized) / max(1, len(normalized))
        if run.keeps_best:
            if is_better(mean, run.state.stopping.best, run.state.stopping.best_step):
                keep_best(run, mean)
                self.save_best(mean)
        elif run.continual or is_better(mean, scores.best, scores.best_step):
            self.save_best(mean)
        self.readings.record_validated()

    def save_best(self, mean: float) -> None:
        """Save the weights as the best ones, with a mean normalized score."""
        scores = self.run.state.scores
        scores.best, scores.best_step = mean, self.run.step
        save_best(self.directory.folder / "checkpoint" / "best.pt", self.run, self.parts)

    def restore_best(self, experience: Experience) -> None:
        """Restore the best weights of an experience that is over, and say so if it ended early."""
        run = self.run
        restore_best(run)
        steps, planned = run.step - experience.start, experience.stop - experience.start
        end = f" (early stop; {planned:,} were planned)" if steps < planned else ""
        self.console.print(
            f"  step {run.step:,}  experience {experience.number} took {steps:,} steps{end}: its "
            f"best weights, of step {run.state.stopping.kept[-1]:,}, are kept"
        )

    def show_validation(self, scores: Scores) -> None:
        """Show validation scores: a line for each task, or one for many.

        Scores of a frozen task are shown again only if they have changed.
        """
        run = self.run
        if len(scores) > MANY:
            self.console.print(f"  step {run.step:,}  validation: {summary_line(run, scores)}")
            return
        for name, values in scores.items():
            prefix = f"{name} " if len(run.tasks) > 1 else ""
            if name not in run.trainable_tasks:
                if self.shown_frozen.get(name) == values:
                    continue
                self.shown_frozen[name] = values
            self.console.log_scores(run.step, prefix, run.tasks[name].metrics, values)

    def end_experience(self, experience: Experience) -> None:
        """Score all tasks after an experience of a stream: a row of the matrix of scores."""
        run, scores = self.run, self.run.state.scores
        if not run.continual:
            self.callbacks.experience_end(experience, {})
            return
        row = dict[str, float]()
        with interruptible():
            scored = run.scores(run.attached_tasks, "test")
            cost = measure_cost(run)
        run.state.loss_log.fill_(NOT_TRAINED)  # its losses are logged, the next one's are not yet
        for name, values in scored.items():
            row[name] = values[run.tasks[name].metric.name]
        self.log(run.step, "test", scored, experience=experience.number)
        scores.accuracy_matrix.append(row)
        scores.costs.append(cost)
        shown = ", ".join(
            f"{name} {format_scores(run.tasks[name].metrics, values)}"
            for name, values in scored.items()
        )
        shown = summary_line(run, scored) if len(scored) > MANY else shown
        self.console.print(
            f"  step {run.step:,}  test after experience {experience.number}: {shown}"
        )
        if self.callbacks.listens("on_experience_end"):
            self.callbacks.experience_end(experience, measures_so_far(run))

    def report_changes(self, logged: int, decided: int | None = None) -> bool:
        """Report decisions of the rule of growth, and changes that the run has followed.

        Args:
            logged: the number of changes that were reported before.
            decided: that of decisions; by default all of them.

        Returns:
            whether there is a new change.
        """
        state = self.run.state
        decisions = [] if decided is None else decision_entries(self.run)[decided:]
        changes = [ChangeEntry(**entry) for entry in state.topology_log[logged:]]
        lines = [(decision.step, decision.line()) for decision in decisions]
        lines += [(change.step, f"{change.verb} {change.about}") for change in changes]
        for step, line in lines:
            self.console.print(f"  step {step:,}  {line}")
        if lines:
            write_topology(self.run, self.directory, state.step)
            self.readings.record()
        for decision in decisions:
            self.callbacks.decision(decision)
        for change in changes:
            self.callbacks.change(change)
        return len(state.topology_log) > logged

    def report_notices(self) -> None:
        """Print notices on the data, each once with its tasks, and on the strategy."""
        tasks: dict[str, list[str]] = {}
        for name, task in self.run.tasks.items():
            for notice in task.notices:
                tasks.setdefault(notice, []).append(f"'{name}'")
        for notice, names in tasks.items():
            self.console.print(f"note: task{'s' * (len(names) > 1)} {list_names(names)}: {notice}")
        if self.run.state.strategy.notice:
            self.console.print(f"note: {self.run.state.strategy.notice}")

    def report_early_stop(self) -> None:
        """Say so if training ends before the last step, and how many changes are skipped."""
        run = self.run
        if run.step < run.total_steps:
            skipped = sum(change.step >= run.step for change in run.config.changes)
            ending = f"; {skipped} scheduled changes were skipped" if skipped else ""
            self.console.print(
                f"early stop at step {run.step:,} of {run.total_steps:,}: no task improved{ending}"
            )
