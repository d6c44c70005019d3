"""Kill a training run again and again, and compare what comes out with a run left alone.

    python tests/kill_and_resume.py --kills 20 digits --train.steps 3000

Every kill is a SIGKILL at a random moment: while Python starts, while it trains, evaluates, or
writes a checkpoint. Weights, optimizer moments, random state, metrics and results must end up the
same to the bit; only times of day may differ.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from thalnet_mtl import cli
from thalnet_mtl.runs.readings import read_reading_log
from thalnet_mtl.training.checkpoint import load_checkpoint


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--window", type=float, default=2.0, help="seconds after the start")
    options, train = parser.parse_known_args(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        assert cli.main(["train", *train, "--out", str(alone)]) == 0
        for kill in range(options.kills):
            process = start(train, killed)
            early = moments.random() < 0.2
            while not early and process.poll() is None and not started(killed):
                time.sleep(0.01)
            time.sleep(moments.uniform(0, options.window))
            assert process.poll() is None, "the run is too short for so many kills: --train.steps"
            process.kill()
            process.wait()
            (Path(folder) / "killed.log").unlink()
            print(f"kill {kill + 1}: metrics at {last_step(killed)} steps", flush=True)
        assert start(train, killed).wait() == 0, (Path(folder) / "killed.log").read_text()
        different = differences(alone, killed)
        compared = sorted(flatten(load_checkpoint(alone / "checkpoint" / "last.pt")))
    print(f"{options.kills} kills, {len(compared)} values of the checkpoint compared to the bit")
    print("\n".join(different) or "no difference")
    return 1 if different else 0


def start(train: list[str], out: Path) -> subprocess.Popen[bytes]:
    """The training command in a process of its own, its output beside the run."""
    command = [sys.executable, "-m", "thalnet_mtl.cli", "train", *train, "--out", str(out)]
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def started(out: Path) -> bool:
    """Return whether the process has written a line: it is training."""
    return out.with_suffix(".log").stat().st_size > 0


def last_step(out: Path) -> int:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def differences(first: Path, second: Path) -> list[str]:
    """Return what differs between two finished runs, apart from times."""
    different: list[str] = []
    for name in ("last.pt", "best.pt"):
        a, b = (flatten(load_checkpoint(run / "checkpoint" / name)) for run in (first, second))
        same = a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        different += (
            [] if same else [f"{name} differs in {[k for k in a if not equal(a[k], b.get(k))]}"]
        )
    a, b = (metrics(run / "metrics.jsonl") for run in (first, second))
    different += [] if a == b else ["metrics.jsonl differs"]
    a, b = (timeless(json.loads((run / "result.json").read_text())) for run in (first, second))
    different += [] if a == b else ["result.json differs"]
    for name in ("config.yaml", "accuracy_matrix.csv", "model/model.safetensors"):
        different += [] if (first / name).read_bytes() == (second / name).read_bytes() else [name]
    logs = [read_reading_log(run / "readings.jsonl") for run in (first, second)]
    different += [] if logs[0] == logs[1] else ["readings.jsonl differs"]
    return different


def metrics(path: Path) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in path.read_text().splitlines()]


def timeless(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if "seconds" not in key}


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested dicts and lists by path, times and file sizes left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    leaves: dict[str, Any] = {}
    for key, value in items:
        where = f"{path}/{key}"
        if isinstance(value, dict | list | tuple):
            leaves |= flatten(value, where)
        elif "seconds" not in where and "metrics_size" not in where:
            leaves[where] = value
    return leaves


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.shape != b.shape:
            return False
        return bool(((a == b) | ((a != a) & (b != b))).all())  # a missing target is NaN
    return bool(a == b)


if __name__ == "__main__":
    sys.exit(main())
