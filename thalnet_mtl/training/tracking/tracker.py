"""The contract of a tracker: a callback that logs a run to a program or a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import ChangeEntry, DecisionEntry
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.tracking.callback import Callback, RunView

NO_EVENTS: frozenset[tuple[int, str]] = frozenset()


@dataclass(frozen=True)
class TrackedRun:
    """Facts about a run that a tracker starts to log.

    Args:
        folder: the run directory; its name is that of the run.
        config: of the run.
        group: name of the runs that this one belongs to, such as the seeds of a sweep; '' if none.
        step: 0, or the step at which the run resumes.
        state: what ``start`` returned when the run began; {} at the beginning.
    """

    folder: Path
    config: Config
    group: str
    step: int
    state: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.absolute().name


class Tracker(Callback, contract=True):
    """A callback that logs a run: what it gets is ready to be written down.

    Override ``log``, and of the others what you need. Register it with
    ``@register("tracker", NAME)``; the arguments of its ``__init__`` are its options in a
    configuration: ``trackers: [tensorboard, {name: NAME, path: log.txt}]``.

    >>> class Text(Tracker):
    ...     def __init__(self, path: str = "log.txt"):
    ...         self.path = path
    ...     def start(self, run):
    ...         self.file = (run.folder / self.path).open("a")
    ...     def log(self, step, values):
    ...         self.file.writelines(f"{step} {name} {value}\\n" for name, value in values.items())
    ...     def finish(self, result):
    ...         self.file.close()

    A tracker that fails while a run trains is left out from then on, with a warning; the run, and
    its ``metrics.jsonl``, go on. One that fails in ``start`` ends the run before its first step.

    A run that was killed resumes at its last checkpoint, and logs again what came after that. What
    a tracker has got already is not given to it a second time. If it can drop values itself, set
    ``rewinds = True``: it then gets them again, and must drop those after ``run.step`` in
    ``start``.

    ``package`` is the library that it needs, and ``install`` what pip installs for it.

    Raises:
        UserError: when a subclass is defined with a method that has nearly the name of one of
            these, so that it would never be called.
    """

    rewinds: ClassVar[bool] = False
    package: ClassVar[str] = ""
    install: ClassVar[str] = ""
    name: str = ""  # under which the run knows it
    _open: bool = False  # between ``start`` and ``finish``
    notice: str = ""  # a line for the user, once it has started: where the log is

    def start(self, run: TrackedRun) -> Mapping[str, str] | None:
        """Begin the log of a run, or go on with it.

        Returns:
            what it needs when the run resumes, such as an id; it may be None.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values by name: ``TASK/METRIC/SPLIT``, ``training/…``, ``stream/…``, ``final/…``."""
        raise NotImplementedError(f"tracker {type(self).__name__} has no method 'log'")

    def log_text(self, step: int, name: str, text: str) -> None:
        """Log a line of text, such as a change of the topology; left out unless overridden."""

    def finish(self, result: RunResult | None) -> None:
        """End the log, with the result of the run; None if the run was interrupted or failed."""

    def check_installed(self) -> None:
        """Raise ``UserError`` if the library that it needs is missing."""
        if self.package and find_spec(self.package) is None:
            install = self.install or self.package
            raise UserError(f"tracker '{self.name}' needs {self.package}: pip install '{install}'.")

    @property
    def shows_text(self) -> bool:
        """True if it logs text."""
        return type(self).log_text is not Tracker.log_text

    def begin(
        self, run: RunView, state: Mapping[str, str] | None, logged: frozenset[tuple[int, str]]
    ) -> Mapping[str, str]:
        """Start, and return what is needed when the run resumes.

        Args:
            run: that is logged.
            state: what it returned before; None if it has not logged this run yet.
            logged: steps of all that an earlier process has logged and that comes again, with the
                name of a value, or with a text.
        """
        step = run.resumed_at or 0
        if self.rewinds:
            logged = frozenset(event for event in logged if event[0] <= step)
        self._logged = NO_EVENTS if state is None and not self.rewinds else logged
        self._open = True
        return self.start(TrackedRun(run.folder, run.config, run.group, step, state or {})) or {}

    def on_log(self, run: RunView, step: int, values: Mapping[str, float]) -> None:
        self._log_new(step, values)

    def on_evaluation(
        self, run: RunView, step: int, split: str, scores: Mapping[str, Mapping[str, float]]
    ) -> None:
        self._log_new(step, names_of(split, scores))

    def on_change(self, run: RunView, change: ChangeEntry) -> None:
        self._log_text(change)

    def on_decision(self, run: RunView, decision: DecisionEntry) -> None:
        self._log_text(decision)

    def on_experience_end(
        self, run: RunView, experience: Experience, measures: Mapping[str, float]
    ) -> None:
        if not any(step == run.step and name.endswith("/test") for step, name in self._logged):
            self.log(run.step, {f"stream/{name}": value for name, value in measures.items()})

    def on_finish(self, run: RunView, result: RunResult) -> None:
        self.log(result.steps, dict(final_scores(result)))
        self._open = False
        self.finish(result)

    def on_exit(self, run: RunView) -> None:
        if self._open:
            self._open = False
            self.finish(None)

    def _log_new(self, step: int, values: Mapping[str, float]) -> None:
        """Log values, but for those that were logged before the run resumed."""
        known = {name for name in values if (step, name) in self._logged}
        if known and all(name in known or name.startswith("training/") for name in values):
            return
        self.log(step, {name: value for name, value in values.items() if name not in known})

    def _log_text(self, entry: ChangeEntry | DecisionEntry) -> None:
        if (entry.step, text_of(entry)) not in self._logged:
            self.log_text(entry.step, "topology", text_of(entry))


def text_of(entry: ChangeEntry | DecisionEntry) -> str:
    """Return a change, or a decision, as trackers log it."""
    return entry.line() if isinstance(entry, DecisionEntry) else f"{entry.verb} {entry.about}"


def names_of(split: str, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the scores of tasks on a split by the names under which they are logged."""
    return {
        f"{task}/{metric}/{split}": value
        for task, values in scores.items()
        for metric, value in values.items()
    }


def final_scores(result: RunResult) -> Iterator[tuple[str, float]]:
    """Yield the name and the value of everything that the result of a run is judged by."""
    for name, task in result.tasks.items():
        for split in ("validation", "test"):
            scores = task.scores[split]
            for metric, value in {**scores.values, "loss": scores.loss}.items():
                yield f"final/{name}/{metric}/{split}", value
    for name, measure in result.continual.measures.items() if result.continual else ():
        if measure.mean is not None:
            yield f"final/stream/{name}", measure.mean
    yield "final/parameters", result.parameters.total
    yield "final/best_step", result.best_step
    yield "final/train_seconds", result.train_seconds
