"""The logs of trackers, each read back by the library that it is for.

A log is read as values by step and name, each with all that were logged there, and as texts.
"""

import csv
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Nothing of a test leaves the machine.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}

Values = dict[tuple[int, str], list[float]]
Texts = list[tuple[int, str]]


def tensorboard_log(run: Path) -> tuple[Values, Texts, dict[str, Any]]:
    """Read event files with the reader of TensorBoard's pages."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(run / "tensorboard"), {"tensors": 0})
    events.Reload()
    plugins = {n: data.plugin_data.plugin_name for n, data in events.AllSummaryMetadata().items()}
    rows = [(event.step, name, make_ndarray(event.tensor_proto))
            for name in plugins for event in events.Tensors(name)]  # fmt: skip
    values = [(step, name, float(array)) for step, name, array in rows if plugins[name] != "text"]
    texts = [(step, name, array.item().decode()) for step, name, array in rows
             if plugins[name] == "text"]  # fmt: skip
    config = next(text for _, name, text in texts if name == "config")
    changes = [(step, text) for step, name, text in texts if name == "topology"]
    return grouped(values), changes, {"text": config}


def csv_log(run: Path) -> tuple[Values, Texts, dict[str, Any]]:
    """Read the file with Python's own reader."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [
            (int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)
        ]
    return grouped(rows), [], {}


def wandb_log(run: Path) -> tuple[Values, Texts, dict[str, Any]]:
    """Read offline runs with the inspector that comes with W&B."""
    from wandb.util import get_core_path

    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    records = [
        json.loads(line)
        for file in files
        for line in subprocess.check_output([*command, str(file)], text=True).splitlines()
    ]
    history = [r["history"]["item"] for r in records if r["type"] == "history"]
    items = [(row["step"], *item) for row in history for item in row.items() if item[0] != "step"]
    values = [item for item in items if "/" in item[1]]
    texts = [(step, text) for step, name, text in items if name == "topology"]
    runs = [record["run"] for record in records if record["type"] == "run"]
    exits = [record["exit"]["exit_code"] for record in records if record["type"] == "exit"]
    facts = {"ids": {run["run_id"] for run in runs}, "exits": exits, "group": runs[0]["run_group"]}
    return grouped(values), texts, facts | {"config": runs[0]["config"]["update"]}


def mlflow_log(run: Path) -> tuple[Values, Texts, dict[str, Any]]:
    """Read the run of a local store with MLflow's client."""
    from mlflow import MlflowClient

    state = json.loads((run / "trackers.json").read_text())["mlflow"]
    client = MlflowClient(state["uri"])
    record = client.get_run(state["id"])
    values = [
        (metric.step, name, metric.value)
        for name in record.data.metrics
        for metric in client.get_metric_history(state["id"], name)
    ]
    texts = [
        (int(file.path[-13:-4]), line)
        for file in client.list_artifacts(state["id"], "topology")
        for line in Path(client.download_artifacts(state["id"], file.path)).read_text().splitlines()
    ]
    number = record.info.experiment_id
    facts = {"config": record.data.params, "runs": len(client.search_runs([number]))}
    facts |= {"group": record.data.tags.get("group"), "status": record.info.status}
    return grouped(values), texts, facts


def trackio_log(run: Path) -> tuple[Values, Texts, dict[str, Any]]:
    """Read the local data base of trackio with its own functions."""
    from trackio.sqlite_storage import SQLiteStorage

    state = json.loads((run / "trackers.json").read_text())["trackio"]
    logs = SQLiteStorage.get_logs(state["project"], run_id=state["id"])
    values = [(row["step"], *item) for row in logs for item in row.items() if "/" in item[0]]
    alerts = SQLiteStorage.get_alerts(state["project"], run_id=state["id"])
    texts = [(alert["step"], alert["text"]) for alert in reversed(alerts)]  # the last is first
    config = SQLiteStorage.get_all_run_configs(state["project"])[state["id"]]
    ids = {record["id"] for record in SQLiteStorage.get_run_records(state["project"])}
    return grouped(values), texts, {"config": config, "ids": ids, "group": config["_Group"]}


READERS = {
    "tensorboard": tensorboard_log,
    "csv": csv_log,
    "wandb": wandb_log,
    "mlflow": mlflow_log,
    "trackio": trackio_log,
}


def run_log(run: Path) -> tuple[Values, Texts]:
    """Read what a tracker has to show from ``metrics.jsonl`` and ``topology.json``."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("task", "metric", "split")
    values = [(x["step"], "/".join(x[name] for name in names), x["value"]) for x in lines]
    history = json.loads((run / "topology.json").read_text())["history"]
    return grouped(values), [(x["step"], f"{x['verb']} {x['about']}") for x in history]


def grouped(rows: list[tuple[int, str, float]]) -> Values:
    """Return values by step and name."""
    values: Values = defaultdict(list)
    for step, name, value in rows:
        values[step, name].append(value)
    return dict(values)


def of_tasks(values: Values) -> Iterator[tuple[tuple[int, str], list[float]]]:
    """Yield the values that ``metrics.jsonl`` has as well."""
    for (step, name), found in values.items():
        if name.partition("/")[0] not in ("training", "stream", "final"):
            yield (step, name), found
