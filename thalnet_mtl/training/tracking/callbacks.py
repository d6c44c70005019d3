"""The callbacks of a run: trackers that its configuration names, and callbacks from Python."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from thalnet_mtl.config.options import check_options, field_names
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import RunError, UserError, one_line
from thalnet_mtl.files import read_fields, write_text
from thalnet_mtl.json_fields import typed
from thalnet_mtl.registry import lookup
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import ChangeEntry, DecisionEntry, read_topology
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.tracking.callback import HOOKS, Callback, RunView
from thalnet_mtl.training.tracking.tracker import NO_EVENTS, Tracker, text_of

STATES = "trackers.json"  # in a run directory: what each tracker needs when the run resumes


def make_callbacks(config: Config, callbacks: Sequence[Callback] = ()) -> dict[str, Callback]:
    """Return the callbacks of a run by name: configured trackers, then those from Python.

    Raises:
        UserError: one cannot be built, is no callback, or needs a library that is missing.
    """
    named: dict[str, Callback] = {}
    for entry in config.trackers:
        options = check_options(
            "tracker", entry.name, entry.options, "trackers", field_names(entry)
        )
        named[entry.name] = lookup("tracker", entry.name)(**options)
    for callback in callbacks:
        kind = type(callback).__name__
        earlier = sum(type(other).__name__ == kind for other in named.values())
        named[f"{kind}-{earlier + 1}" if earlier else kind] = callback
    for name, callback in named.items():
        if not isinstance(callback, Callback):
            hint = " Give an instance." if isinstance(callback, type) else ""
            raise UserError(f"callback '{name}' is no Callback of thalnet_mtl.{hint}")
        if isinstance(callback, Tracker):
            callback.name = name
            callback.check_installed()
    return named


class Callbacks:
    """The callbacks of a run, called in order; a tracker that fails is left out from then on.

    Args:
        named: by name.
        view: that they have of the run.
        console: for warnings.
    """

    def __init__(self, named: Mapping[str, Callback], view: RunView, console: Console):
        self.named, self.view, self.console = dict(named), view, console
        self._listeners: dict[str, list[str]] = {}
        self._find_listeners()
        self._told: set[str] = set()  # trackers of which it was said that they show no text

    def listens(self, hook: str) -> bool:
        """Return whether a callback has a hook."""
        return bool(self._listeners[hook])

    def start(self, resumed_at: int | None, logged: frozenset[tuple[int, str]] = NO_EVENTS) -> None:
        """Start all callbacks.

        Args:
            resumed_at: the step at which the run resumes; None if it begins.
            logged: steps and names of the values that an earlier process has logged after the
                checkpoint, which come again; as do the changes that are in ``topology.json``.

        Raises:
            RunError: a tracker cannot start.
        """
        self.view.resumed_at = resumed_at
        path = self.view.folder / STATES
        before = read_states(path) if resumed_at is not None else {}
        if resumed_at is not None:
            logged = logged | logged_texts(self.view.folder)
        states = {name: state for name, state in before.items() if name not in self.named}
        for name, callback in self.named.items():
            if not isinstance(callback, Tracker):
                callback.on_start(self.view)
                continue
            try:
                state = callback.begin(self.view, before.get(name), logged)
            except Exception as error:  # a library may fail in any way
                if isinstance(error, UserError) or getattr(error, "errno", None):
                    raise
                raise RunError(f"tracker '{name}' cannot start: {reason(error)}") from error
            if state or not callback.rewinds:  # so that it is known to have logged the run
                states[name] = {key: str(value) for key, value in state.items()}
            if callback.notice:
                self.console.print(f"tracker {name}: {callback.notice}")
        if states or path.exists():
            write_text(path, json.dumps(states, indent=2) + "\n")

    def step_end(self, losses: Mapping[str, Tensor]) -> None:
        """Tell that a step was taken."""
        self._call("on_step_end", lambda c: c.on_step_end(self.view, losses))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell of the values of the training steps since the last time."""
        self._call("on_log", lambda c: c.on_log(self.view, step, values))

    def evaluation(self, step: int, split: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Tell of the scores of tasks on a split."""
        self._call("on_evaluation", lambda c: c.on_evaluation(self.view, step, split, scores))

    def change(self, change: ChangeEntry) -> None:
        """Tell of a change of the topology."""
        self._tell_what_is_not_shown()
        self._call("on_change", lambda c: c.on_change(self.view, change))

    def decision(self, decision: DecisionEntry) -> None:
        """Tell of a decision on the topology."""
        self._tell_what_is_not_shown()
        self._call("on_decision", lambda c: c.on_decision(self.view, decision))

    def experience_end(self, experience: Experience, measures: Mapping[str, float]) -> None:
        """Tell that an experience is over."""
        self._call(
            "on_experience_end", lambda c: c.on_experience_end(self.view, experience, measures)
        )

    def finish(self, result: RunResult) -> None:
        """Tell that the run has finished."""
        self._call("on_finish", lambda c: c.on_finish(self.view, result))

    def exit(self) -> None:
        """Tell that no hook is called any more."""
        self._call("on_exit", lambda c: c.on_exit(self.view))

    def _call(self, hook: str, call: Callable[[Callback], None]) -> None:
        """Call a hook of all callbacks that have it."""
        for name in list(self._listeners[hook]):
            callback = self.named[name]
            if not isinstance(callback, Tracker):
                call(callback)
                continue
            try:
                call(callback)
            except Exception as error:  # a library may fail in any way
                self._drop(name, callback, error)

    def _drop(self, name: str, tracker: Tracker, error: Exception) -> None:
        """Leave out a tracker that has failed, and warn of it."""
        del self.named[name]
        self._find_listeners()
        self.console.print(
            f"warning: tracker '{name}' failed at step {self.view.step:,} and is left out from now "
            f"on: {reason(error)} Training goes on; metrics.jsonl has every value."
        )
        with suppress(Exception):  # such as a disk that is still full
            tracker.on_exit(self.view)

    def _find_listeners(self) -> None:
        self._listeners = {
            hook: [
                name
                for name, callback in self.named.items()
                if getattr(type(callback), hook) is not getattr(Callback, hook)
            ]
            for hook in HOOKS
        }

    def _tell_what_is_not_shown(self) -> None:
        """Say, once, which trackers do not show changes of the topology."""
        for name, callback in self.named.items():
            if isinstance(callback, Tracker) and not callback.shows_text and name not in self._told:
                self._told.add(name)
                self.console.print(
                    f"note: tracker '{name}' shows no text, so changes of the topology are not in "
                    f"it; they are in topology.json"
                )


def reason(error: Exception) -> str:
    """Return an error as a sentence of one line."""
    text = one_line(" ".join(str(error).split())) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def logged_texts(folder: Path) -> frozenset[tuple[int, str]]:
    """Return step and text of each change and decision that an earlier process has logged."""
    with suppress(UserError):  # the network has no modules, or the file is damaged
        topology = read_topology(folder)
        changes = {(change.step, text_of(change)) for change in topology.history}
        return frozenset(changes | {(d.step, text_of(d)) for d in topology.decisions})
    return NO_EVENTS


def read_states(path: Path) -> dict[str, dict[str, str]]:
    """Read the states of trackers; {} if there is no file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}
    return typed(read_fields(path), dict[str, dict[str, str]], str(path))
