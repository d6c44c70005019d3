"""What stays of a run: scores of the best weights, the model, its topology and its readings."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.files import write_text
from thalnet_mtl.metrics.summary import ContinualSummary, StageCost, summarize
from thalnet_mtl.models.build import configure_network
from thalnet_mtl.models.cost import count_macs
from thalnet_mtl.models.model_folder import save_tensors
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters, parameter_counts
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.checkpoint import load_matching, load_network
from thalnet_mtl.training.state import Run

READING_BATCH = 20  # sequences over which a dynamic reading is averaged


def test_batches(run: Run, task: str) -> int:
    """Batches of an evaluation of the test part."""
    look = run.config.evaluate
    return look.batches or run.tasks[task].batches_per_epoch(
        "test", look.batch, run.config.train.chunk
    )


def finish(run: Run, directory: RunDirectory) -> dict[str, Any]:
    """Read the test sets with the best weights, and write what stays of the run."""
    begin = time.monotonic()
    folder, look = directory.folder, run.config.evaluate
    path = folder / "checkpoint" / "best.pt"
    run.network = load_network(load_matching(path, run.config), path).to(run.device)
    configure_network(run.network, run.config.train)
    tasks: dict[str, dict[str, Any]] = {}
    for name, task in run.tasks.items():
        # As much of the training part as of the test part, so that they can be set side by side.
        scores = {"train": run.score(name, "train", test_batches(run, name))}
        scores |= {split: run.score(name, split) for split in ("validation", "test")}
        own = {key: run.best_by_task[name][key] for key in ("step", "value")}
        about: dict[str, Any] = {"label": task.label, "kind": run.config.named_tasks[name].name}
        about |= {"source": task.source, "classes": task.spec.classes}
        about |= {"metric": task.metric.name}
        tasks[name] = about | scores | {"untrained": run.untrained[name], "own_best": own}
    result = {
        "body": run.config.model.body,
        "tasks": tasks,
        "best_step": run.best_step,
        "steps": run.step,
        "parameters": parameter_counts(run.network),
        "seed": run.config.train.seed,
        "seconds": round(run.seconds + time.monotonic() - begin, 2),
        "train_seconds": round(run.train_seconds, 2),
        "evaluation_batches": look.batches,
    }
    run.network.save(folder / "model", config=run.config, result=result)
    save_readings(run, folder / "model" / "reading_weights.safetensors")
    if run.continual:
        result["continual"] = about_stream(run).to_json()
    write_matrix(run, tasks, folder / "accuracy_matrix.csv")
    write_topology(run, directory, run.best_step)
    directory.write_json("result.json", result)
    return result


def about_stream(run: Run) -> ContinualSummary:
    """Summarize a run over several experiences."""
    growth = run.config.growth
    return summarize(
        {name: task.metric for name, task in run.tasks.items()},
        [experience.tasks for experience in run.stream],
        run.matrix,
        scenario=scenario(run),
        strategy=run.config.train.strategy,
        growth=growth.when if growth.when == "never" else f"{growth.when}, {growth.policy}",
        ends=[experience.stop for experience in run.stream],
        stages=[StageCost(**cost) for cost in run.costs],
    )


def scenario(run: Run) -> str:
    """By heads: one of its own for each task, or shared, by the same classes or by others."""
    tasks = list(run.tasks.values())
    if len({task.head_name for task in tasks}) == len(tasks):
        return "task-incremental"
    if len({task.head_name for task in tasks}) > 1:
        return "task-incremental, some heads shared"
    alone = len({task.classes_seen for task in tasks}) == len(tasks)
    return "class-incremental" if alone else "domain-incremental"


def measure_cost(run: Run) -> dict[str, Any]:
    """What the network costs now: multiply-adds are for a sequence of each task."""
    chunk, found = run.config.train.chunk, {}
    for name in run.attached_tasks:
        task = run.tasks[name]
        xs = next(task.iterate("validation", 1, chunk)).xs
        found[name] = count_macs(run.network, task.head_name, xs)
    stored = {"multiply_adds": found, "stored_bytes": run.strategy.stored_bytes()}
    return parameter_counts(run.network) | stored


def write_matrix(run: Run, tasks: dict[str, dict[str, Any]], path: Path) -> None:
    """R: a row of test scores before training and after every experience; nothing, no head yet."""
    last = {name: one["test"][one["metric"]] for name, one in tasks.items()}
    matrix = run.matrix if run.continual else [*run.matrix, last]
    rows = [",".join(["stage", *tasks])]
    for stage, row in enumerate(matrix):
        rows.append(",".join([str(stage), *(str(row.get(name, "")) for name in tasks)]))
    write_text(path, "\n".join(rows) + "\n")


def write_topology(run: Run, directory: RunDirectory, step: int) -> None:
    """``topology.json``: the modules after a step, what each task uses, and all changes so far."""
    if run.network.body.graph is not None:
        about = layout(run.network) | {"step": step, "history": run.history}
        directory.write_json("topology.json", about)


def layout(network: Network) -> dict[str, Any]:
    """What ``Network.describe`` says, with what follows from it for a reader."""
    body, about = network.body, network.describe()
    assert body.graph is not None
    modules = about["arguments"]["modules"]
    for module in modules:
        slot = body.graph.slots[module["name"]]
        prefix = body.parameter_prefixes([module["name"]])
        sizes = (p.numel() for name, p in body.named_parameters() if name.startswith(prefix))
        module |= {"slot": [slot.start, slot.stop], "parameters": sum(sizes)}
    for name, task in about["tasks"].items():
        task |= {"into": task.pop("input_modules"), "out_of": task.pop("output_modules")}
        task |= {
            "active": network.active_modules(name),
            "parameters": count_parameters(network.adapter(name)),
        }
    return {"modules": modules, "tasks": about["tasks"]}


def save_readings(run: Run, path: Path) -> None:
    """R of every module and the widths of the slots; dynamic ones as the mean over some inputs."""
    network, net = run.network, run.network.body
    if not isinstance(net, ThalNet):
        return
    weights: dict[str, Tensor] = {}
    for task in run.tasks.values():
        xs = next(task.iterate("validation", READING_BATCH, READING_BATCH)).xs
        port, active = network.adapter(task.head_name), network.active_modules(task.head_name)
        with torch.no_grad():
            rows, pace = port.encode(xs, active), port.spec.sub_steps
            weights = net.reading_weights(rows, sub_steps=pace, active=active) | weights
    # Modules that no task runs are left out, as rows and as columns.
    slots = {name: slot.stop - slot.start for name, slot in net.slots.items() if name in weights}
    places = [k for name in slots for k in range(net.slots[name].start, net.slots[name].stop)]
    weights = {name: weights[name][:, places] for name in slots}
    dynamic = [name for name in slots if net.cell(name).reading.dynamic]
    about = {"slots": json.dumps(slots), "dynamic": json.dumps(dynamic)}
    save_tensors(path, weights, about)
