"""Scores and losses of a run while it trains: logged, shown, and kept for its results."""

import math
from collections.abc import Mapping, Sequence

from thalnet_mtl.console import Console
from thalnet_mtl.metrics.metric import format_scores, list_names
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.signals import interruptible
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.best_weights import keep_best, restore_best
from thalnet_mtl.training.checkpoint import save_best
from thalnet_mtl.training.checkpoint_parts import PartFiles
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.divergence import diverged
from thalnet_mtl.training.readings import ReadingRecorder
from thalnet_mtl.training.results import decision_entries, measure_cost, write_topology
from thalnet_mtl.training.score_lines import MANY, Scores, summary_line
from thalnet_mtl.training.scores import is_better, record_validation
from thalnet_mtl.training.state import NOT_TRAINED

DIVERGENCE_FACTOR = 100.0  # times the loss of guessing, or of the untrained network


class Monitor:
    """The scores, the log and the console of a run, updated after steps.

    Args:
        run: scored as it is; its scores are kept in its state.
        directory: for the log and ``best.pt``.
        console: for people.
        parts: see ``save_checkpoint``.
    """

    def __init__(
        self,
        run: RunContext,
        directory: RunDirectory,
        console: Console,
        parts: PartFiles | None = None,
    ):
        self.run, self.directory, self.console, self.parts = run, directory, console, parts
        self.readings = ReadingRecorder(run, directory)

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
        self.directory.log(step, task, "test", scores[task])

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
                self.directory.log(run.step, name, "test", values, experience=last.number)
                self.directory.log(0, name, "test", run.state.scores.untrained[name])

    def log_losses(self, means: Mapping[str, float], learning_rate: float) -> None:
        """Log and show the mean loss of each task since the last time."""
        run = self.run
        for name, loss in means.items():
            values = {"loss": loss, "learning_rate": learning_rate}
            seconds = run.state.timers.train_seconds
            self.directory.log(run.step, name, "train", values, seconds=seconds)
        self.console.log_losses(run.step, means)

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
        for name, values in scored.items():
            task = run.tasks[name]
            metric, seconds = task.metric, run.state.timers.train_seconds
            value = values[metric.name]
            self.directory.log(run.step, name, "validation", values, seconds=seconds)
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
        """Show validation scores: a line for each task, or one for many."""
        run = self.run
        if len(scores) > MANY:
            self.console.print(f"  step {run.step:,}  validation: {summary_line(run, scores)}")
            return
        for name, values in scores.items():
            prefix = f"{name} " if len(run.tasks) > 1 else ""
            self.console.log_scores(run.step, prefix, run.tasks[name].metrics, values)

    def end_experience(self, experience: Experience) -> None:
        """Score all tasks after an experience: a row of the matrix of scores."""
        run, scores = self.run, self.run.state.scores
        row = dict[str, float]()
        with interruptible():
            scored = run.scores(run.attached_tasks, "test")
            cost = measure_cost(run)
        run.state.loss_log.fill_(NOT_TRAINED)  # its losses are logged, the next one's are not yet
        for name, values in scored.items():
            row[name] = values[run.tasks[name].metric.name]
            self.directory.log(run.step, name, "test", values, experience=experience.number)
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
        lines = [(decision.step, decision.line()) for decision in decisions]
        for entry in state.topology_log[logged:]:
            lines.append((entry["step"], f"{entry['verb']} {entry['about']}"))
        for step, line in lines:
            self.console.print(f"  step {step:,}  {line}")
        if lines:
            write_topology(self.run, self.directory, state.step)
            self.readings.record()
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


def mean_losses(run: RunContext) -> dict[str, float]:
    """Return the mean loss of every trained task since the last line of the log.

    Raises:
        Diverged: a loss has exploded, or a loss or a weight is not finite.
    """
    log = run.state.loss_log
    count = (run.step - 1) % len(log) + 1
    rows, limits = log[:count].tolist(), {name: loss_limit(run, name) for name in run.tasks}
    for k, row in enumerate(rows):
        for name, loss in zip(run.tasks, row, strict=True):
            if math.isnan(loss) or loss == math.inf or loss > limits[name]:
                raise diverged(f"loss {loss:.4g} at step {run.step - count + k + 1:,}", name)
    trainable = (weight for weight in run.network.parameters() if weight.requires_grad)
    if not all(bool(weight.isfinite().all()) for weight in trainable):
        reason = f"a weight that is not finite after step {run.step:,}"
        raise diverged(reason, ", ".join(run.tasks))
    means: dict[str, float] = {}
    for name, column in zip(run.tasks, zip(*rows, strict=True), strict=True):
        trained = [loss for loss in column if loss != NOT_TRAINED]
        means |= {name: sum(trained) / len(trained)} if trained else {}
    return means


def loss_limit(run: RunContext, task: str) -> float:
    """Return the loss above which the training of a task has diverged.

    It is g + 100 · max(|g|, |u|, 1), with the loss g of guessing and the loss u of the untrained
    network. The 1 is for losses near 0, such as those of small numbers: outputs of order 1, which
    are far too large for these, are soon corrected.
    """
    guess = run.guess(task, "validation")["loss"]
    untrained = run.state.scores.untrained.get(task, {}).get("loss", 0.0)
    scales = [abs(loss) for loss in (guess, untrained) if math.isfinite(loss)]
    return (guess if math.isfinite(guess) else 0.0) + DIVERGENCE_FACTOR * max(*scales, 1.0)
