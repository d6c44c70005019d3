"""The environment of a run: versions, hardware, commit and data, for ``environment.json``."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from thalnet_mtl.data import datasets
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.fingerprint import fingerprints

PACKAGES = ("thalnet-mtl", "torch", "torchvision", "numpy", "datasets", "avalanche-lib")


def run_environment(run: RunContext) -> dict[str, Any]:
    """Return what ``environment.json`` holds."""
    sources = sorted({task.source for task in run.tasks.values() if task.source})
    tasks, data = run.tasks.items(), {source: datasets.checksums(source) for source in sources}
    return environment(run.device, data) | {
        "notices": {name: list(task.notices) for name, task in tasks},
        "scalings": {name: scalings_as_json(task) for name, task in tasks},
        **fingerprints(run.tasks, run.chunk),
    }


def environment(device: torch.device, data: dict[str, Any]) -> dict[str, Any]:
    """Return versions, hardware, commit and data.

    Args:
        device: of the run.
        data: checksums of the files by data set.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "commit": _commit(),
        "data": data,
    }


def scalings_as_json(task: Task) -> list[dict[str, list[float]] | None]:
    """Return the scalings of the inputs and of the targets of a task."""
    return [
        None if scaling is None else {k: list(v) for k, v in vars(scaling).items()}
        for scaling in task.scalings
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor()


def _commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with + if it has changes."""
    top = Path(__file__).parents[2]
    if not (top / ".git").exists():
        return None
    command = ["git", "-C", str(top), "describe", "--always", "--dirty=+", "--abbrev=40"]
    try:
        result = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
