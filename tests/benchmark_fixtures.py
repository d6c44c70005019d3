"""Records of the benchmarks that tests make up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from table_fixtures import task_entry

from benchmarks.claim.experiments import TASKS
from benchmarks.tuning import metric_of
from thalnet_mtl.runs.summaries import RunSummary, read_record


def scored_record(mnist, cifar, text, **fields):
    """Return a record of those test scores on the three tasks of the claim."""
    values = zip(TASKS, (mnist, cifar, text), strict=True)
    tasks = {task: task_entry(score, metric_of(task).name) for task, score in values}
    result = {"body": "gru", "tasks": tasks, "best_step": 1, "steps": 1, "seconds": 1.0,
              "parameters": {"total": 10, "trainable": 10, "frozen": 0}, "train_seconds": 1.0,
              "seed": 0, "evaluation_batches": 0}  # fmt: skip
    return {"command": f"{mnist}", "result": result} | fields


def claim_runs(records: Mapping[str, Mapping[int, dict[str, Any]]]) -> list[RunSummary]:
    """Return the runs of the claim, by records of the name and the seed of each."""
    runs = []
    for name, by_seed in records.items():
        task = next((task for task in TASKS if f"_{task}_" in name), "")
        about = {"task": {"name": task}} if task else {"tasks": {task: {} for task in TASKS}}
        for seed, record in by_seed.items():
            record = record | {"config": about | {"train": {"seed": seed}}}
            if task and "result" in record:
                alone = {task: record["result"]["tasks"][task]}
                record["result"] = record["result"] | {"tasks": alone}
            runs.append(read_record(record, Path(f"{name}-seed{seed}.json")))
    return runs
