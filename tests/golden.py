"""Compare what training gives now with what it gave when the golden runs were recorded.

    python tests/golden.py                 compare all golden runs
    python tests/golden.py digits agem     compare some
    python tests/golden.py --record        record them anew, after a change that is meant to show

A golden run is a few dozen training steps. Its losses, scores and result stand in
``tests/golden/*.json``. On a processor like the one that recorded them every value must be equal to
the bit. On another one, values may differ as rounding makes them differ in so few steps. The runs
on MNIST download it once.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import toy_tasks

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 5e-3  # relative, on another processor: accuracies move by single samples

STEPS = ["--train.steps", "60", "--evaluate.every", "30", "--evaluate.log_every", "20"]
SPLIT_MNIST = [
    "continual/split_mnist",
    *("--train.steps", "12", "--train.batch", "20"),
    *("--evaluate.every", "12", "--evaluate.log_every", "4", "--evaluate.batches", "1"),
]
MEMORY = ("--strategy.memory", "60")
STRATEGIES: dict[str, tuple[str, ...]] = {  # with their options
    "naive": (),
    "replay": MEMORY,
    "ewc": ("--strategy.strength", "1000"),
    "online_ewc": ("--strategy.strength", "1000"),
    "si": ("--strategy.strength", "100"),
    "lwf": (),
    "agem": MEMORY,
    "gem": MEMORY,
}

MODEL = {"model": {"modules": 3}}
TOY = [
    *("--model.features", "6", "--train.learning_rate", "0.01"),
    *("--train.batch", "10", "--train.chunk", "7"),
    *("--evaluate.every", "10", "--evaluate.batch", "24", "--evaluate.log_every", "8"),
]

# The arguments of ``thalnet train`` by the name of the golden run; a mapping stands for a file.
RUNS: dict[str, list[Any]] = {
    "digits": ["digits", *STEPS],
    "digits_gru": ["digits", "--model.body", "gru", *STEPS],
    "digits_fast_gaussian": ["digits", "--model.reading", "fast_gaussian", *STEPS],
    "joint": ["joint/digits", *STEPS[2:], "--train.steps", "260"],
    "joint_draw": ["joint/digits", "--train.draw", "1", *STEPS[2:], "--train.steps", "260"],
    "joint_uncertainty": [
        *("joint/digits", "--train.combine", "uncertainty", *STEPS[2:], "--train.steps", "260")
    ],
    "joint_upgrad": [
        *("joint/digits", "--train.combine", "upgrad", *STEPS[2:], "--train.steps", "260")
    ],
    "stacked": ["digits", *STEPS, "--seeds", "0", "1", "--stacked"],
    "split_mnist_frozen": SPLIT_MNIST,
    **{
        f"split_mnist_{strategy}": [
            *(*SPLIT_MNIST, "--growth.when", "never", "--train.strategy", strategy, *options)
        ]
        for strategy, options in STRATEGIES.items()
    },
    "split_mnist_avalanche_replay": [*SPLIT_MNIST, "--train.strategy", "avalanche:replay", *MEMORY],
    "toy_text": [MODEL | {"tasks": {"toy_text": {"reset": 0.2}}}, *STEPS[:2], *TOY],
    "toy_changes": [toy_tasks.JOINT | {"changes": toy_tasks.GROWTH}, *STEPS[:2], *TOY],
    "toy_plateau": [toy_tasks.STREAM | MODEL | {"growth": toy_tasks.GROWING["plateau"]}, *TOY],
    "toy_shared": [toy_tasks.STREAM | MODEL | {"growth": toy_tasks.GROWING["shared"]}, *TOY],
    # Recorded without being killed, compared after it was.
    "killed": ["digits", "--evaluate.checkpoint_every", "5", "--train.steps", "400", *STEPS[2:]],
}


def main(arguments: list[str] | None = None) -> int:
    """Run the golden runs; exit status 1 where one differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="golden runs (all)")
    parser.add_argument("--record", action="store_true", help="write what they give now")
    options = parser.parse_args(arguments)
    names = [n for n in RUNS if not options.names or any(part in n for part in options.names)]
    different = 0
    for name in names:
        start = time.monotonic()
        found = run(name, kill=name == "killed" and not options.record)
        path = FOLDER / f"{name}.json"
        if options.record:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found, separators=(",", ":")).replace("],[", "],\n[") + "\n")
            verdict = "recorded"
        else:
            verdict = compare(json.loads(path.read_text()), found)
        different += verdict.startswith("differs")
        print(f"{name:30} {verdict}  ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{len(names) - different} of {len(names)} golden runs are as recorded")
    return 1 if different else 0


def run(name: str, kill: bool = False) -> dict[str, Any]:
    """Train one of the golden runs in a temporary directory and return what it left."""
    from thalnet_mtl.cli.main import main as thalnet

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = Path(folder) / "config.yaml"
        command = ["train", "--out", str(out)]
        for argument in RUNS[name]:
            if isinstance(argument, dict):
                config.write_text(json.dumps(argument))
            command.append(str(config) if isinstance(argument, dict) else argument)
        if kill:
            kill_in_the_middle(command, out)
        with redirect_stdout(StringIO()) as said:
            status = thalnet(command)
        assert status == 0, said.getvalue()
        folders = sorted(path.parent for path in out.rglob("result.json"))
        return {"processor": processor(), "runs": {p.name: outcome(p) for p in folders}}


def kill_in_the_middle(command: list[str], out: Path) -> None:
    """Start a run in a process of its own and kill it some steps after its first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "thalnet_mtl.cli", *command],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    metrics = out / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and '"step": 20' in metrics.read_text()):
        time.sleep(0.002)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def outcome(folder: Path) -> dict[str, Any]:
    """Return what a run left: lines of the log, its result, the accuracy matrix; without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keys = "step", "task", "split", "metric", "value"
    return {
        "metrics": [[line[key] for key in keys] for line in lines],
        "result": timeless(json.loads((folder / "result.json").read_text())),
        "matrix": (folder / "accuracy_matrix.csv").read_text().splitlines(),
    }


def timeless(tree: Any) -> Any:
    """Return a tree of values without those that are seconds."""
    if isinstance(tree, dict):
        return {key: timeless(value) for key, value in tree.items() if "seconds" not in key}
    return [timeless(value) for value in tree] if isinstance(tree, list) else tree


def processor() -> str:
    """Return what decides how sums are rounded: the processor, its instructions, and PyTorch."""
    import torch

    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines()[:10] if path.exists() else []
    known = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    kind = [known.get(key, "?") for key in ("vendor_id", "cpu family", "model")]
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{' '.join(kind)}, {instructions}, torch {torch.__version__.split('+')[0]}"


def compare(recorded: dict[str, Any], found: dict[str, Any]) -> str:
    """Return a verdict in words: equal, equal within rounding, or the first values that differ."""
    there, here = (dict(leaves(content["runs"])) for content in (recorded, found))
    missing = there.keys() ^ here.keys()
    if missing:
        return f"differs: {min(missing)} is in one of them only"
    if recorded["processor"] == found["processor"]:
        unequal = [key for key in there if there[key] != here[key]]
        word = "equal"
    else:
        unequal = [key for key in there if not near(there[key], here[key])]
        word = f"equal within rounding (recorded with {recorded['processor']})"
    shown = "; ".join(f"{key}: {here[key]}, recorded {there[key]}" for key in unequal[:3])
    return f"differs in {len(unequal)} of {len(there)} values: {shown}" if unequal else word


def near(there: Any, here: Any) -> bool:
    """Return whether two values are equal, numbers within ``TOLERANCE``."""
    if isinstance(there, float) and isinstance(here, float):
        return math.isclose(there, here, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(there == here)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values by path; a line of the matrix is split into its numbers."""
    if isinstance(tree, str) and path.rpartition("/")[0].endswith("matrix"):
        tree = [float(cell) if "." in cell else cell for cell in tree.split(",")]
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, tree


if __name__ == "__main__":
    sys.exit(main())
