"""Measures a training step on several processes: from which size on does a second one pay?

    python -m benchmarks.speed.ranks                     # into results/ranks/ and the README
    python -m benchmarks.speed.ranks --configs text8 --rounds 20 --json out.json

The steps are those of ``thalnet train`` on random numbers. One process takes the whole batch, with
one thread and with as many threads as there are processes; then the processes share it, with one
thread each. These three alternate, and wall-clock times are compared, so measure on a quiet
machine. The other processes sleep while one takes the whole batch. Processor times, of the busiest
process, say what a step takes without waiting for others; other work does not increase them.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.speed.machine import FOLDER, provenance
from benchmarks.speed.report import save
from thalnet_mtl import load_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.ranks import ALONE, Ranks
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

SEQUENCES = 1024  # of random rows for training
# Features of each of four modules, and sequences in a batch.
CONFIGS = {
    "rows-47k-50": (32, 50),
    "rows-47k-256": (32, 256),
    "rows-0.5M-50": (108, 50),
    "rows-0.5M-256": (108, 256),
    "text-3M-100": (288, 100),
}
ROUNDS = {"rows-47k-50": 200, "rows-47k-256": 100, "rows-0.5M-50": 60, "rows-0.5M-256": 30}
FEWEST = 10  # rounds of the other configs
WARM_UP = 2  # rounds that do not count


@register("task", "random_rows")
def random_rows() -> SequenceTask:
    """Random numbers in the shape of MNIST rows."""
    generator = torch.Generator().manual_seed(0)
    xs = torch.randint(256, (SEQUENCES, 28, 28), generator=generator, dtype=torch.uint8)
    ys = torch.arange(SEQUENCES) % 10
    data = {name: (xs, ys) for name in ("train", "validation", "test")}
    return SequenceTask("random_rows", data, TaskSpec(28, 10, steps=28), scale=255)


@register("task", "random_text")
def random_text() -> TextTask:
    """Random bytes."""

    def load() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        text = torch.randint(256, (200_000,), generator=generator, dtype=torch.uint8)
        return {"train": text, "validation": text, "test": text}

    return TextTask("random_text", load, vocabulary=256)


def config_of(name: str) -> Config:
    """Return the configuration of the run whose steps are measured."""
    features, batch = CONFIGS[name]
    text = name.startswith("text")
    wide = {"hidden": features, "context": 2 * features // 3} if text else {}
    return load_config(
        task={"name": "random_text" if text else "random_rows"},
        model={"modules": 4, "features": features, "budget": 0, **wide},
        train={"batch": batch, "chunk": 100, "steps": 1_000_000, "optimizer": "adam"},
    )


def step_of(name: str, ranks: Ranks, threads: int) -> tuple[Callable[[], None], int]:
    """Return a function that takes the next step of a run, and the number of parameters."""
    run = set_up(config_of(name), print, ranks=ranks)
    train_step = TrainStep(run)

    def step() -> None:
        torch.set_num_threads(threads)
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1

    return step, count_parameters(run.network)


def measure(name: str, ranks: Ranks, rounds: int) -> dict[str, Any]:
    """Return the times of steps of a config; every rank calls it, and the first one measures."""
    shared, parameters = step_of(name, ranks, 1)
    alone = {}
    if ranks.writes:
        alone = {f"threads{n}": step_of(name, ALONE, n)[0] for n in (1, ranks.size)}
    clock: dict[str, list[float]] = {kind: [] for kind in (*alone, "ranks")}
    processor: dict[str, list[float]] = {kind: [] for kind in clock}

    def take(kind: str, step: Callable[[], None]) -> None:
        start, busy = perf_counter(), process_time()
        step()
        clock[kind].append(perf_counter() - start)
        processor[kind].append(process_time() - busy)

    for _ in range(rounds + WARM_UP):
        for kind, step in alone.items():
            take(kind, step)
        ranks.any(False)  # the others wait here
        take("ranks", shared)
    processor["ranks"] = [
        max(times) for times in zip(*ranks.gather(processor["ranks"]), strict=True)
    ]
    clock, processor = (
        {kind: times[WARM_UP:] for kind, times in each.items()} for each in (clock, processor)
    )
    return {
        "config": name,
        "parameters": parameters,
        "ranks": ranks.size,
        "rounds": rounds,
        "seconds": {kind: median(times) for kind, times in clock.items()},
        "cpu_seconds": {kind: median(times) for kind, times in processor.items()},
        "ratios": {kind: ratio(clock["ranks"], clock[kind]) for kind in alone},
        "cpu_ratio": ratio(processor["ranks"], processor[next(iter(alone), "ranks")]),
    }


def ratio(times: list[float], base: list[float]) -> list[float]:
    """Return the median and the quartiles of ratios in the same rounds."""
    ratios = [time / other for time, other in zip(times, base, strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return [middle, low, high]


def work(rank: int, size: int, store: str, names: list[str], rounds: int, pipe: Any) -> None:
    """Measure configs as one of several processes; the first one sends what it has measured."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    for name in names:
        measured = measure(name, Ranks(rank, size), rounds or ROUNDS.get(name, FEWEST))
        if rank == 0:
            pipe.send(measured)
    dist.destroy_process_group()


def measure_all(names: list[str], size: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the measurements of configs on some processes."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = size, f"{folder}/store", names, rounds, sender
        processes = [context.Process(target=work, args=(rank, *arguments)) for rank in range(size)]
        for process in processes:
            process.start()
        sender.close()
        for _ in names:
            yield receiver.recv()
        for process in processes:
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--configs", nargs="*", choices=CONFIGS, metavar="NAME", default=[*CONFIGS])
    parser.add_argument("--ranks", type=int, default=2, help="processes")
    parser.add_argument("--rounds", type=int, default=0, help="steps of each kind; 0: by size")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    record, measurements = provenance("cpu"), []
    for m in measure_all(options.configs, options.ranks, options.rounds):
        milliseconds = "  ".join(f"{kind} {1e3 * s:.2f} ms" for kind, s in m["seconds"].items())
        ratios = "  ".join(f"× {kind} {r[0]:.2f}" for kind, r in m["ratios"].items())
        busiest = f"processor time × {m['cpu_ratio'][0]:.2f}"
        print(m["config"], m["parameters"], milliseconds, ratios, busiest, sep="  ", flush=True)
        measurements.append(m)
    record |= {"load_after": os.getloadavg()[0], "measurements": measurements}
    out = options.json or FOLDER / "results" / "ranks" / "cpu.json"
    save(record, out, publish=not options.json)


if __name__ == "__main__":
    main()
