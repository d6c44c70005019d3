"""The tracker for Weights & Biases."""

import os
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from thalnet_mtl.config.load import flatten
from thalnet_mtl.registry import register
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.tracking.tracker import TrackedRun, Tracker


@register("tracker", "wandb")
class WandB(Tracker):
    """Weights & Biases, https://wandb.ai: on its servers, or offline in the run directory.

    Online it needs an account (``wandb login``). Offline nothing is sent and no account is needed:
    ``wandb sync RUN/wandb/offline-run-…`` uploads it later. The horizontal axis of all charts is
    the training step. Changes of the topology are texts named ``topology``. The console, the
    hardware and the code are not logged.

    A run that resumes goes on with the same id. Offline, each process writes a folder of its own;
    ``wandb sync RUN/wandb/offline-run-*`` joins them.

    Args:
        project: that the run is shown in.
        mode: online, or offline; default: what WANDB_MODE says, else online.
        entity: user or team; default: that of the account.
        group: of runs; default: the sweep, or the seeds that one command trains.
    """

    package, install = "wandb", "thalnet-mtl[wandb]"

    def __init__(
        self,
        project: str = "thalnet",
        mode: Literal["online", "offline"] | None = None,
        entity: str = "",
        group: str = "",
    ):
        self.project, self.mode, self.entity, self.group = project, mode, entity, group

    def start(self, run: TrackedRun) -> dict[str, str]:
        """Begin a run, or go on with the one of the same id; return its id and project."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        state = {"entity": self.entity, "project": self.project}
        same = {name: run.state.get(name) for name in state} == state
        state["id"] = run.state["id"] if same else uuid.uuid4().hex[:12]
        offline = (self.mode or os.environ.get("WANDB_MODE")) == "offline"
        self._run: Any = wandb.init(
            project=self.project,
            entity=self.entity or None,
            id=state["id"],
            resume=None if offline else "allow",
            mode=self.mode,
            dir=run.folder,
            name=run.name,
            group=self.group or run.group or None,
            config=flatten(run.config),
            reinit="create_new",  # several runs in a process, as with --stacked
            settings=wandb.Settings(
                console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False
            ),
        )
        self._run.define_metric("*", step_metric="step")
        place = self._run.url or "disabled"
        self.notice = f"offline, in {run.folder / 'wandb'}" if offline else place
        return state

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step; it is a value itself, since those of W&B cannot go back."""
        self._run.log({"step": step, **values})

    def log_text(self, step: int, name: str, text: str) -> None:
        """Log a text."""
        self._run.log({"step": step, name: text})

    def finish(self, result: RunResult | None) -> None:
        """Wait until all is written or sent; a run that is not over counts as failed."""
        self._run.finish(exit_code=int(result is None))
