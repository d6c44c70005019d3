"""Measures the time of a training step relative to ``nn.GRU`` of equal size.

    python -m benchmarks.speed.run              # everything, into results/ and the README
    python -m benchmarks.speed.run --quick      # the image networks, within a minute
    python -m benchmarks.speed.run --configs mnist50 --paths cpp fused --json out.json

A candidate and the GRU alternate, step by step, in one process. A ratio is the median over rounds
of the candidate's time divided by that of the GRU in the same round. With one thread the processor
time is measured as well, which other work on the machine does not increase.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.cases import CASES, HEAVY, Step, size, steps
from benchmarks.speed.machine import FOLDER, LIMITS, limit_instructions, provenance, record_name
from benchmarks.speed.report import plot, save, write_page
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS

QUICK = ("mnist50", "mnist256", "cifar50")
Measurement = dict[str, Any]


def alternate(
    candidates: dict[str, Callable[[], None]], rounds: int, device: str
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return wall-clock and processor seconds by candidate and round, after two warm-up rounds."""
    clock: dict[str, list[float]] = {name: [] for name in candidates}
    processor: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 2):
        for name, step in candidates.items():
            start, busy = perf_counter(), process_time()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            clock[name].append(perf_counter() - start)
            processor[name].append(process_time() - busy)
    return (
        {name: times[2:] for name, times in clock.items()},
        {name: times[2:] for name, times in processor.items()},
    )


def measure(
    config: str, paths: Sequence[str], threads: int, rounds: int, device: str, precision: str
) -> Iterator[Measurement]:
    """Yield a measurement of each candidate of a config."""
    torch.set_num_threads(threads)
    candidates = {
        path: (parameters, step)
        for path, parameters, step in steps(CASES[config], tuple(paths), device, precision)
    }
    for path, (parameters, step) in candidates.items():
        base = "gru4 graphed" if path.endswith("graphed") else "gru4"
        clock, processor = alternate({base: candidates[base][1], path: step}, rounds, device)
        yield {
            "config": config,
            "path": path,
            "ratio_to_gru": _ratio(clock[path], clock[base]),
            "cpu_ratio_to_gru": _ratio(processor[path], processor[base]),
            "seconds": median(clock[path]),
            "cpu_seconds": median(processor[path]),
            "baseline_seconds": median(clock[base]),
            "parameters": parameters,
            "baseline_parameters": candidates[base][0],
            "threads": threads,
            "device": device,
            "precision": precision,
            "rounds": rounds,
        }


def memory(config: str, path: str) -> int:
    """Return the bytes that two steps add to a process that has taken a step on one input."""
    step = Step(CASES[config], path, "cpu", "fp32")
    xs, step.xs = step.xs, step.xs[:1, :1]
    ys, step.ys = step.ys, step.ys[:1]
    step()
    before = peak_memory()
    step.xs, step.ys = xs, ys
    step()
    step()
    return peak_memory() - before


def peak_memory() -> int:
    """Return the peak memory of this process; ``getrusage`` may return that of its parent."""
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(line)


def add_memory(measurements: Sequence[Measurement]) -> None:
    """Add the peak memory of every path on a CPU, measured in separate processes."""
    peaks: dict[tuple[str, str], int] = {}
    for measurement in measurements:
        key = measurement["config"], measurement["path"]
        if measurement["device"] == "cpu" and key not in peaks:
            command = [sys.executable, "-m", "benchmarks.speed.run", "--memory", *key]
            peaks[key] = int(subprocess.run(command, capture_output=True, check=True).stdout)
        if measurement["device"] == "cpu":
            measurement["peak_bytes"] = peaks[key]


def show(measurements: Sequence[Measurement]) -> None:
    """Print a table in a terminal, plain lines elsewhere."""
    console = Console()
    table = Table("config", "path", "threads", "ms", "× GRU", "CPU time × GRU")
    for m in measurements:
        cells = [m["config"], m["path"], str(m["threads"])]
        cells += [f"{1e3 * m['seconds']:.2f}", f"{m['ratio_to_gru']:.3f}"]
        cells += [f"{m['cpu_ratio_to_gru']:.3f}" if m["threads"] == 1 else ""]
        table.add_row(*cells)
        if not console.is_terminal:
            print("  ".join(cells))
    if console.is_terminal:
        console.print(table)


def _ratio(times: Sequence[float], base: Sequence[float]) -> float:
    return median(time / reference for time, reference in zip(times, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the image networks, few rounds")
    parser.add_argument("--configs", nargs="*", choices=CASES, metavar="NAME", help="default: all")
    parser.add_argument(
        "--paths", nargs="*", choices=BACKENDS, help="backends of ThalNet, default: all"
    )
    parser.add_argument("--rounds", type=int, default=0, help="steps of each candidate; 0: by size")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--table", action="store_true", help="only update the README")
    parser.add_argument(
        "--instructions", choices=LIMITS, default="native", help="limit of all that is measured"
    )
    parser.add_argument("--memory", nargs=2, metavar=("CONFIG", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(memory(*options.memory))
        return
    limit_instructions(options.instructions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    publishes = not (options.quick or options.configs or options.paths or options.json)
    if not options.table:
        out = options.json or (FOLDER / "results" / record_name(device) if publishes else None)
        record = run(options, device)
        if out:
            save(record, out, publish=False)
    if publishes:
        write_page()
        plot(FOLDER / "results", FOLDER / "speed.png")


def run(options: argparse.Namespace, device: str) -> Measurement:
    """Measure the selected configs and paths, and print every result."""
    configs = options.configs or (QUICK if options.quick else CASES)
    if device == "cpu" and not options.configs:
        configs = [name for name in configs if name != HEAVY]
    paths, record = options.paths or list(BACKENDS), provenance(device)
    measurements: list[Measurement] = []
    cores = os.cpu_count() or 1
    for config in configs:
        rounds = options.rounds or _rounds(config, options.quick)
        for precision in ("ieee", "tf32", "bf16") if device == "cuda" else ("fp32",):
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            for threads in sorted({1, cores}) if device == "cpu" else (cores,):
                new = list(measure(config, paths, threads, rounds, device, precision))
                show(new)
                measurements += new
    if not options.quick:
        add_memory(measurements)
    record |= {"load_after": os.getloadavg()[0], "measurements": measurements}
    return record


def _rounds(config: str, quick: bool) -> int:
    """Return enough rounds for a stable median, fewer where a step takes long."""
    work = size(ThalNet(CASES[config].inputs, **CASES[config].net)) * CASES[config].time
    usual = max(4, min(60, int(1e8 / work)))
    return max(4, usual // 3) if quick else usual


if __name__ == "__main__":
    main()
