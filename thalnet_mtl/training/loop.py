"""The training loop: from the first step, or from the last checkpoint, to the results."""

import time
from collections.abc import Callable, Mapping

from torch import Tensor

from thalnet_mtl.config.schema import ChangeConfig
from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted
from thalnet_mtl.models.build import lines_on_modules, selected_backend
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.names import sweep_of
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.signals import StopRequested
from thalnet_mtl.training.beginning import resume_or_start
from thalnet_mtl.training.checkpoint import part_files, save_run
from thalnet_mtl.training.checks import fixed_length
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.continuation import (
    due_after_early_stop,
    due_after_step,
    end_experience_now,
    next_due,
    save_before_end,
)
from thalnet_mtl.training.delay_notes import delay_notes
from thalnet_mtl.training.fingerprint import check_agreement
from thalnet_mtl.training.growth.base import end_growth, grow_if_due, idle_rule
from thalnet_mtl.training.mean_losses import mean_losses
from thalnet_mtl.training.monitor import Monitor
from thalnet_mtl.training.optimizers import learning_rate
from thalnet_mtl.training.results import write_results
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.session import session
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.topology_changes import apply_scheduled
from thalnet_mtl.training.tracking.callback import Callback, RunView
from thalnet_mtl.training.tracking.callbacks import Callbacks
from thalnet_mtl.training.tracking.tracker import Tracker
from thalnet_mtl.training.unknown_task import fit_paths


class Trainer:
    """The training of one run in its directory.

    A loop calls ``before_step``, ``train_step`` and ``after_step`` in turn: ``run_steps`` for one
    run, ``train_stacked`` for several. A strategy may take the steps itself, as Avalanche's do.

    Args:
        run: before its first step.
        directory: of the run, open for writing.
        console: for progress and scores.
        start: when ``time.monotonic`` began to count for the run; by default now.
        callbacks: by name.
        group: see ``train``.
    """

    def __init__(
        self,
        run: RunContext,
        directory: RunDirectory,
        console: Console,
        start: float | None = None,
        callbacks: Mapping[str, Callback] | None = None,
        group: str = "",
    ):
        self.run, self.directory, self.console = run, directory, console
        self.view = RunView(run, directory.folder, group or sweep_of(directory.folder))
        self.callbacks = Callbacks(callbacks or {}, self.view, console)
        self.after_every_step = self.callbacks.listens("on_step_end")
        # Of callbacks from Python, each rank has its own.
        self.may_be_asked = any(not isinstance(c, Tracker) for c in self.callbacks.named.values())
        directory.before_close(self.callbacks.exit)
        # A single experience leaves nothing behind that does not change any more.
        self.parts = part_files(directory.folder / "checkpoint") if run.continual else None
        self.monitor = Monitor(run, directory, console, self.parts, self.callbacks)
        self.train_step = TrainStep(run)
        self.may_go_on = not fixed_length(run.config)
        self.stop_requested: Callable[[], bool] = lambda: False
        self.step_start = time.monotonic() if start is None else start
        self._plain_until = 0  # before this step nothing is due, scheduled or announced
        self._scheduled: dict[int, list[ChangeConfig]] = {}
        for change in run.config.changes:
            self._scheduled.setdefault(change.step, []).append(change)

    def fit(self) -> RunResult:
        """Train to the end, and return the result."""
        run, config = self.run, self.run.config
        self.resume_or_start()
        run.state.timers.seconds += time.monotonic() - self.step_start
        tasks = next(iter(run.tasks)) if len(run.tasks) == 1 else f"{len(run.tasks)} tasks"
        backends = {selected_backend(config, run.network, head) for head in run.network.adapters}
        if backends := backends - {""}:
            self.console.print(f"backend: {', '.join(sorted(backends))} (set with --train.ops)")
        if "batched" in backends:
            for line in lines_on_modules(config, run.network):
                self.console.print(line)
        for line in delay_notes(run):
            self.console.print(line)
        with session([self], self.console, f"{config.model.body} on {tasks}"):
            run.state.strategy.fit(self)
        return self.finish()

    def run_steps(self) -> None:
        """Take all remaining steps."""
        while (inputs := self.before_step()) is not None:
            self.after_step(self.train_step(inputs))

    def resume_or_start(self) -> None:
        """Bring the run to the step of its last checkpoint, or to step 0 and a first checkpoint."""
        if resume_or_start(self.run, self.directory, self.monitor, self.console):
            self.train_step.drop_caches()
        elif self.run.state.strategy.resumable:
            self.save()

    def before_step(self) -> StepInputs | None:
        """Apply what is due before a step, and return its inputs; None if there is no step left.

        Scheduled changes and growth come first, then batches and the learning rate.
        """
        self.step_start = time.monotonic()
        run = self.run
        if run.step < self._plain_until and (batches := next_batches(run)):
            return StepInputs(batches, run.learning_rate())
        if run.state.due:  # of the step at which the run was saved
            self.finish_step(saves=True)
        going = run.step < run.total_steps
        if not going or not (run.active_tasks or run.step == run.experience.start):
            self.monitor.report_early_stop()
            return None
        for scheduled in self._scheduled.get(run.step, ()):
            logged = len(run.state.topology_log)
            apply_scheduled(run, scheduled)
            self.monitor.report_changes(logged)
        self.begin_experience_or_grow()
        if not run.active_tasks:  # a change has frozen the tasks that had not stopped early
            self.monitor.report_early_stop()
            return None
        acts = run.state.rule.acts_within or self.may_be_asked
        coming = [step for step in self._scheduled if step > run.step]
        self._plain_until = 0 if acts else min([next_due(run), *coming])
        return StepInputs(next_batches(run), run.learning_rate())

    def begin_experience_or_grow(self) -> bool:
        """Announce an experience before its first step, and grow if it is time.

        Tasks that get their head are scored before they are trained. Returns whether the network
        has changed.
        """
        run, experience = self.run, self.run.experience
        begins = run.step == experience.start
        if not begins and not run.state.rule.acts_within:
            return False
        if run.continual and begins:
            names = ", ".join(experience.tasks)
            self.console.print(f"experience {experience.number} of {len(run.stream)}: {names}")
        attached, start = run.attached_tasks, run.step
        logged, decided = len(run.state.topology_log), len(run.state.growth.decisions)
        try:
            grow_if_due(run)
            for name in run.attached_tasks:
                if name not in attached:
                    self.monitor.score_untrained(name, start)
        except StopRequested:  # before an experience, the run was saved at this step already
            if not begins and run.state.strategy.resumable:
                self.save()
            raise self.interrupted() from None
        changed = self.monitor.report_changes(logged, decided)
        every = run.config.evaluate.every or run.epoch
        if run.step // every > start // every:  # a race has taken the steps of a validation
            run.state.due = ["validate"]
            self.finish_step(saves=True)
        return changed

    def after_step(self, losses: Tensor) -> None:
        """Count a step, and log, validate, end its experience and save as configured.

        Args:
            losses: of every task, on the device.

        Raises:
            Diverged: a loss or a weight has.
            Interrupted: if the user asked to stop; the step is saved.
        """
        run, state, options = self.run, self.run.state, self.run.config.evaluate
        state.loss_log[state.step % options.log_every] = losses
        if run.task_stream and state.rule.acts_within:
            state.rule.after_step(float(losses.max()))
        state.step += 1
        if self.after_every_step:
            self.callbacks.step_end(dict(zip(run.tasks, losses, strict=True)))
        asked = self.view.stop_reason is not None
        if state.step < self._plain_until and not asked and not self.stop_requested():
            seconds = time.monotonic() - self.step_start
            state.timers.train_seconds += seconds
            state.timers.seconds += seconds
            self.console.advance(state.step)
            return
        self._plain_until = 0
        due, often = due_after_step(run), options.checkpoint_every
        saves = (
            "validate" in due or self.stop_requested() or bool(often and state.step % often == 0)
        )
        means = mean_losses(run) if saves or "log" in due else None
        state.timers.train_seconds += time.monotonic() - self.step_start
        state.due += due
        if self.ends:
            save_before_end(run, self.directory)
        self.finish_step(saves, means)

    @property
    def ends(self) -> bool:
        """Whether the run is at its last step, and saved as ``save_before_end`` does."""
        return self.run.step == self.run.total_steps and self.may_go_on

    def finish_step(self, saves: bool, means: Mapping[str, float] | None = None) -> None:
        """Do what is due after a step, and save. What a stop request leaves is done on resuming.

        Args:
            saves: whether to save.
            means: of the losses since the last line of the log, if they are known.
        """
        run, state = self.run, self.run.state
        try:
            while state.due or self.end_if_asked():
                experience = run.last_experience
                if state.due[0] == "log":
                    rate = learning_rate(run.config.train, run.schedule(experience), run.step - 1)
                    asked = self.callbacks.listens("on_log")
                    norm = self.train_step.gradient_norm() if asked else None
                    self.monitor.log_losses(means or mean_losses(run), rate, norm)
                elif state.due[0] == "growth":
                    logged, decided = len(state.topology_log), len(state.growth.decisions)
                    end_growth(run)
                    if self.monitor.report_changes(logged, decided) and run.keeps_best:
                        self.monitor.save_best(state.scores.best)
                elif state.due[0] == "validate":
                    self.monitor.validate()
                    if run.keeps_best and state.due == ["validate"]:
                        state.due += due_after_early_stop(run)
                elif state.due[0] == "restore_best":
                    self.monitor.restore_best(experience)
                    self.train_step.drop_caches()
                elif state.due[0] == "after_experience":
                    if run.announced:
                        state.strategy.after_experience(experience)
                    fit_paths(run, experience.tasks)
                else:
                    saves, self.view.stop_reason = True, None
                    self.monitor.end_experience(experience)
                del state.due[0]
        except StopRequested:
            saves = True
        state.timers.seconds += time.monotonic() - self.step_start
        self.console.advance(state.step)
        if saves and state.strategy.resumable and not self.ends:
            self.save()
        if saves and self.stop_requested():
            raise self.interrupted()
        self.step_start = time.monotonic()

    def end_if_asked(self) -> bool:
        """Let the experience end if a callback has asked for it. Returns whether it does."""
        run, reason = self.run, self.view.stop_reason
        if self.may_be_asked:
            reason = next((r for r in run.ranks.gather(reason) if r is not None), None)
        if reason is None or run.step in (run.experience.start, run.last_experience.stop):
            return False
        self.console.print(
            f"  step {run.step:,}  stopped by a callback{': ' * bool(reason)}{reason}"
        )
        end_experience_now(run)
        if self.ends:
            save_before_end(run, self.directory)
        return True

    def interrupted(self) -> Interrupted:
        """Return the error for a run that the user stopped."""
        return Interrupted(self.run.step, self.run.total_steps, self.run.state.strategy.resumable)

    def save(self) -> None:
        """Write a checkpoint of the run as it is."""
        check_agreement(self.run)
        path = self.directory.folder / "checkpoint" / "last.pt"
        save_run(path, self.run, self.directory.size, self.parts)

    def finish(self) -> RunResult:
        """Score the best weights, write the results and return them."""
        step = self.run.state.scores.best_step
        self.console.print(f"scoring the weights of step {step:,} …")
        result = write_results(self.run, self.directory)
        for line in result.lines():
            self.console.print(line)
        if note := idle_rule(self.run):
            self.console.print(note)
        self.callbacks.finish(result)
        return result
