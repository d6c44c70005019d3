"""The tracker for MLflow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import dump_config, flatten
from thalnet_mtl.registry import register
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.tracking.tracker import TrackedRun, Tracker

# Variables of MLflow. Its own seven attempts hold up training for minutes where a server is gone.
DEFAULTS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
LONGEST = 500  # characters of a parameter
MOST_PARAMETERS = 100  # in a request


@register("tracker", "mlflow")
class MLflow(Tracker):
    """MLflow, https://mlflow.org: a server, a data base or a folder.

    The package ``mlflow-skinny`` logs to a server or a folder. The package ``mlflow`` in full adds
    data bases, as in ``uri: sqlite:///mlflow.db``, and the page that shows the runs:
    ``MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri mlruns``. Changes of the topology
    are texts among the artifacts. A run that resumes goes on with the same run of MLflow.

    Args:
        experiment: that the run belongs to.
        uri: address of a server or a data base, or a folder; default: what MLFLOW_TRACKING_URI
            says, else the folder mlruns.
        group: tag ``group`` of the run; default: the sweep, or the seeds that one command trains.
    """

    package, install = "mlflow", "thalnet-mtl[mlflow]"

    def __init__(self, experiment: str = "thalnet", uri: str = "", group: str = ""):
        self.experiment, self.uri, self.group = experiment, uri, group

    def start(self, run: TrackedRun) -> dict[str, str]:
        """Begin a run, or go on with the one of the same id; return its id and address."""
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI", "") or "mlruns"
        if "://" not in uri and not uri.startswith(("databricks", "uc:", "file:")):
            uri = Path(uri).expanduser().absolute().as_uri()
        if uri.startswith("file:"):  # MLflow refuses folders otherwise
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client: Any = MlflowClient(uri)
        self._texts: dict[str, str] = {}
        self.notice = uri
        state = {"uri": uri, "experiment": self.experiment}
        if {name: run.state.get(name) for name in state} == state:
            self._id = run.state["id"]
            self._client.update_run(self._id, status="RUNNING")
            return state | {"id": self._id}
        experiment = self._client.get_experiment_by_name(self.experiment)
        number = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(self.experiment)
        )
        group = self.group or run.group
        tags = {"group": group} if group else {}
        self._id = self._client.create_run(number, run_name=run.name, tags=tags).info.run_id
        fields = [Param(name, str(value)[:LONGEST]) for name, value in flatten(run.config).items()]
        for start in range(0, len(fields), MOST_PARAMETERS):
            self._client.log_batch(self._id, params=fields[start : start + MOST_PARAMETERS])
        self._client.log_text(self._id, dump_config(run.config), "config.yaml")
        return state | {"id": self._id}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_text(self, step: int, name: str, text: str) -> None:
        """Write a text to the artifact of a step."""
        file = f"{name}/step-{step:09}.txt"
        self._texts[file] = self._texts.get(file, "") + text + "\n"
        self._client.log_text(self._id, self._texts[file], file)

    def finish(self, result: RunResult | None) -> None:
        """Say that the run is over, or that it was stopped."""
        self._client.set_terminated(self._id, "KILLED" if result is None else "FINISHED")
