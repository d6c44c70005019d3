"""How long a training step takes, against ``nn.GRU`` of equal size.

    python -m benchmarks.speed.run              # everything, into results/ and the README
    python -m benchmarks.speed.run --quick      # the image nets, within a minute
    python -m benchmarks.speed.run --configs mnist50 --paths cpp fused --json out.json

A candidate and the GRU take turns, step by step, in one process. A ratio is the median over rounds
of the candidate's time divided by that of the GRU in the same round. With one thread the time is
also that of the processor, which other work on the machine does not lengthen.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.shared import with_table
from benchmarks.speed.cases import CASES, HEAVY, Step, size, steps
from benchmarks.speed.tables import plot, tables
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.training.environment import environment

HERE = Path(__file__).parent
QUICK = ("mnist50", "mnist256", "cifar50")
Measurement = dict[str, Any]


def turns(
    candidates: dict[str, Callable[[], None]], rounds: int, device: str
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds on the clock and of the processor, by candidate and round, without the first two."""
    clock: dict[str, list[float]] = {name: [] for name in candidates}
    processor: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 2):
        for name, step in candidates.items():
            begin, busy = perf_counter(), process_time()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            clock[name].append(perf_counter() - begin)
            processor[name].append(process_time() - busy)
    return tuple({name: of[name][2:] for name in of} for of in (clock, processor))  # type: ignore


def measure(
    config: str, paths: Sequence[str], threads: int, rounds: int, device: str, precision: str
) -> Iterator[Measurement]:
    """All candidates of a config with so many threads, one object each."""
    torch.set_num_threads(threads)
    found = {path: rest for path, *rest in steps(CASES[config], tuple(paths), device, precision)}
    for path, (parameters, step) in found.items():
        base = "gru4 graphed" if path.endswith("graphed") else "gru4"
        clock, processor = turns({base: found[base][1], path: step}, rounds, device)
        yield {
            "config": config,
            "path": path,
            "ratio_to_gru": _ratio(clock[path], clock[base]),
            "cpu_ratio_to_gru": _ratio(processor[path], processor[base]),
            "seconds": median(clock[path]),
            "cpu_seconds": median(processor[path]),
            "baseline_seconds": median(clock[base]),
            "parameters": parameters,
            "baseline_parameters": found[base][0],
            "threads": threads,
            "device": device,
            "precision": precision,
            "rounds": rounds,
        }


def memory(config: str, path: str) -> int:
    """Bytes that two steps add to what the process had after a step of one input."""
    step = Step(CASES[config], path, "cpu", "fp32")
    xs, step.xs = step.xs, step.xs[:1, :1]
    ys, step.ys = step.ys, step.ys[:1]
    step()
    before = peak()
    step.xs, step.ys = xs, ys
    step()
    step()
    return peak() - before


def peak() -> int:
    """Most bytes that this process has held; ``getrusage`` may tell those of its parent."""
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(line)


def add_memory(measurements: Sequence[Measurement]) -> None:
    """The peak memory of every path on a CPU, each in a process of its own."""
    known: dict[tuple[str, str], int] = {}
    for found in measurements:
        key = found["config"], found["path"]
        if found["device"] == "cpu" and key not in known:
            command = [sys.executable, "-m", "benchmarks.speed.run", "--memory", *key]
            known[key] = int(subprocess.run(command, capture_output=True, check=True).stdout)
        if found["device"] == "cpu":
            found["peak_bytes"] = known[key]


def about(device: str) -> Measurement:
    """Where the numbers come from."""
    return {
        "date": date.today().isoformat(),
        "load_before": os.getloadavg()[0],
        "environment": environment(torch.device(device), {}),
        "platform": platform.platform(),
    }


def show(measurements: Sequence[Measurement]) -> None:
    """A table in a terminal, plain lines elsewhere."""
    console = Console()
    table = Table("config", "path", "threads", "ms", "× GRU", "CPU time × GRU")
    for found in measurements:
        cells = [found["config"], found["path"], str(found["threads"])]
        cells += [f"{1e3 * found['seconds']:.2f}", f"{found['ratio_to_gru']:.3f}"]
        cells += [f"{found['cpu_ratio_to_gru']:.3f}" if found["threads"] == 1 else ""]
        table.add_row(*cells)
        if not console.is_terminal:
            print("  ".join(cells))
    if console.is_terminal:
        console.print(table)


def _ratio(times: Sequence[float], base: Sequence[float]) -> float:
    return median(time / other for time, other in zip(times, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the image nets, few rounds")
    parser.add_argument("--configs", nargs="*", choices=CASES, metavar="NAME", help="not all")
    parser.add_argument("--paths", nargs="*", choices=BACKENDS, help="levels of ThalNet, not all")
    parser.add_argument("--rounds", type=int, default=0, help="steps of each candidate")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--table", action="store_true", help="only make the README again")
    parser.add_argument("--memory", nargs=2, metavar=("CONFIG", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(memory(*options.memory))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    publishes = not (options.quick or options.configs or options.paths or options.json)
    if not options.table:
        out = options.json or (HERE / "results" / f"{device}.json" if publishes else None)
        record = run(options, device)
        if out:
            out.write_text(json.dumps(record, indent=1) + "\n")
    if publishes:
        readme = HERE / "README.md"
        readme.write_text(with_table(readme.read_text(), tables(HERE / "results")))
        plot(HERE / "results", HERE / "speed.png")


def run(options: argparse.Namespace, device: str) -> Measurement:
    """Measure what is asked for, and say so line by line."""
    configs = options.configs or (QUICK if options.quick else CASES)
    if device == "cpu" and not options.configs:
        configs = [name for name in configs if name != HEAVY]
    paths, record = options.paths or list(BACKENDS), about(device)
    found: list[Measurement] = []
    many = os.cpu_count() or 1
    for config in configs:
        rounds = options.rounds or _rounds(config, options.quick)
        for precision in ("ieee", "tf32", "bf16") if device == "cuda" else ("fp32",):
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            for threads in sorted({1, many}) if device == "cpu" else (many,):
                new = list(measure(config, paths, threads, rounds, device, precision))
                show(new)
                found += new
    if not options.quick:
        add_memory(found)
    record |= {"load_after": os.getloadavg()[0], "measurements": found}
    return record


def _rounds(config: str, quick: bool) -> int:
    """Enough for a steady median, few where a step takes long."""
    work = size(ThalNet(CASES[config].inputs, **CASES[config].net)) * CASES[config].time
    usual = max(4, min(60, int(1e8 / work)))
    return max(4, usual // 3) if quick else usual


if __name__ == "__main__":
    main()
