"""The tracker for trackio."""

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from contextvars import Context
from io import StringIO
from typing import Any

from thalnet_mtl.config.load import flatten
from thalnet_mtl.registry import register
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.tracking.tracker import TrackedRun, Tracker


@register("tracker", "trackio")
class Trackio(Tracker):
    """trackio of Hugging Face, https://github.com/gradio-app/trackio: a local data base.

    ``trackio show --project thalnet`` opens its page. The data base is in $TRACKIO_DIR, by default
    in the cache of Hugging Face; nothing leaves the machine unless ``space`` is given. Changes of
    the topology are alerts of the lowest level.

    A run that resumes goes on with the same run of trackio. trackio writes twice a second: what a
    killed process had not written by then is missing there.

    Args:
        project: that the run is shown in.
        space: Space of Hugging Face that the run is sent to, as USER/NAME; default: none.
        group: of runs; default: the sweep, or the seeds that one command trains.
    """

    package, install = "trackio", "thalnet-mtl[trackio]"

    def __init__(self, project: str = "thalnet", space: str = "", group: str = ""):
        self.project, self.space, self.group = project, space, group

    def start(self, run: TrackedRun) -> dict[str, str]:
        """Begin a run, or go on with the one of the same id; return its id and project."""
        import trackio

        state = {"project": self.project, "space": self.space}
        same = {name: run.state.get(name) for name in state} == state
        self._context = Context()  # trackio ends the run that it finds in this one
        self._run: Any = self._quietly(
            trackio.init,
            project=self.project,
            name=run.name,
            group=self.group or run.group or None,
            space_id=self.space or None,
            config=flatten(run.config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        if same:
            self._run.id = run.state["id"]  # ``init`` would look for it by its name
        self._level = trackio.AlertLevel.INFO
        self.notice = f"project {self.project} in {self.space or trackio.TRACKIO_DIR}"
        return state | {"id": str(self._run.id)}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step."""
        self._run.log(dict(values), step=step)

    def log_text(self, step: int, name: str, text: str) -> None:
        """Log an alert."""
        self._quietly(self._run.alert, name, text, level=self._level, step=step)

    def finish(self, result: RunResult | None) -> None:
        """Wait until all is written or sent."""
        self._quietly(self._run.finish)

    def _quietly(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function of trackio without what it prints."""
        with redirect_stdout(StringIO()):
            return self._context.run(function, *args, **options)
