"""What stays of a run: scores of the best weights, the model, its topology and its readings."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl import checkpoint
from thalnet_mtl.build import parameters
from thalnet_mtl.files import write_text
from thalnet_mtl.network import Network
from thalnet_mtl.run import Run
from thalnet_mtl.thalnet import ThalNet
from thalnet_mtl.tracking import RunDirectory

READING_BATCH = 20  # sequences over which a dynamic reading is averaged


def look_at(run: Run, task: str) -> int:
    """Batches of an evaluation of the test part."""
    look = run.config.evaluate
    return look.batches or run.tasks[task].steps("test", look.batch, run.config.train.chunk)


def finish(run: Run, directory: RunDirectory) -> dict[str, Any]:
    """Read the test sets with the best weights, and write what stays of the run."""
    begin = time.monotonic()
    folder, look = directory.folder, run.config.evaluate
    path = folder / "checkpoint" / "best.pt"
    run.network = checkpoint.load_network(checkpoint.load_of(path, run.config), path).to(run.device)
    tasks: dict[str, dict[str, Any]] = {}
    for name, task in run.tasks.items():
        # As much of the training part as of the test part, so that they can be set side by side.
        scores = {"train": run.score(name, "train", look_at(run, name))}
        scores |= {split: run.score(name, split) for split in ("validation", "test")}
        own = {key: run.own_best[name][key] for key in ("step", "value")}
        about = {"label": task.label, "kind": run.config.named_tasks[name].name}
        about |= {"source": task.source, "metric": task.metric.name}
        tasks[name] = about | scores | {"untrained": run.untrained[name], "own_best": own}
    total = parameters(run.network)
    learned = sum(p.numel() for p in run.network.parameters() if p.requires_grad)
    result = {
        "body": run.config.model.body,
        "tasks": tasks,
        "best_step": run.best_step,
        "steps": run.step,
        "parameters": {"total": total, "trainable": learned, "frozen": total - learned},
        "seed": run.config.train.seed,
        "seconds": round(run.seconds + time.monotonic() - begin, 2),
        "train_seconds": round(run.train_seconds, 2),
        "evaluation_batches": look.batches,
    }
    checkpoint.save_model(folder / "model", run.network, run.config, result)
    save_readings(run, folder / "model" / "reading_weights.safetensors")
    if run.continual:
        result["stream"] = [asdict(one) | {"tasks": list(one.tasks)} for one in run.stream]
        result["strategy"] = run.config.train.strategy
    write_matrix(run, tasks, folder / "accuracy_matrix.csv")
    write_topology(run, directory, run.best_step)
    directory.write_json("result.json", result)
    return result


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
    net = run.network.body
    if isinstance(net, ThalNet):
        about = layout(run.network) | {"step": step, "history": run.history}
        directory.write_json("topology.json", about)


def layout(network: Network) -> dict[str, Any]:
    """What ``Network.describe`` says, with what follows from it for a reader."""
    net, about = network.body, network.describe()
    assert isinstance(net, ThalNet)
    for module in about["modules"]:
        slot = net.slots[module["name"]]
        module |= {
            "slot": [slot.start, slot.stop],
            "parameters": parameters(net.cell(module["name"])),
        }
    for name, task in about["tasks"].items():
        task |= {"active": network.active(name), "parameters": parameters(network.port(name))}
    return {"modules": about["modules"], "tasks": about["tasks"]}


def save_readings(run: Run, path: Path) -> None:
    """R of every module and the widths of the slots; dynamic ones as the mean over some inputs."""
    network, net = run.network, run.network.body
    if not isinstance(net, ThalNet):
        return
    weights: dict[str, Tensor] = {}
    for task in run.tasks.values():
        xs = next(task.batches("validation", READING_BATCH, READING_BATCH)).xs
        port, active = network.port(task.port), network.active(task.port)
        with torch.no_grad():
            rows, pace = port.encode(xs, active), port.plug.sub_steps
            weights = net.reading_weights(rows, sub_steps=pace, active=active) | weights
    # Modules that no task runs are left out, as rows and as columns.
    slots = {name: slot.stop - slot.start for name, slot in net.slots.items() if name in weights}
    places = [k for name in slots for k in range(net.slots[name].start, net.slots[name].stop)]
    weights = {name: weights[name][:, places] for name in slots}
    dynamic = [name for name in slots if net.cell(name).reading.dynamic]
    about = {"slots": json.dumps(slots), "dynamic": json.dumps(dynamic)}
    checkpoint.save_tensors(path, weights, about)
