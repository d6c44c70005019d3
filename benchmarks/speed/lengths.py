"""Measures a training step on sequences of unequal lengths relative to the same padded batch.

    python -m benchmarks.speed.lengths                        # into results/lengths/ and the README
    python -m benchmarks.speed.lengths --configs mnist50 --pairs 10 --json out.json

Both steps take the same numbers; only one of them is given the lengths. They alternate in one
process with one thread, and processor times are compared, which other work does not increase.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import BASELINES, CASES, Case, Step
from benchmarks.speed.machine import FOLDER, provenance
from benchmarks.speed.report import save
from benchmarks.speed.run import alternate
from thalnet_mtl.models.recurrent import RecurrentBody
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS

CONFIGS = ("mnist50",)
SHORTER = {"random": None, "nearly equal": 3}  # steps that may lack at the end; None: all but one
PAIRS = 40


def draw_lengths(case: Case, kind: str) -> Tensor:
    """Return lengths of which at least one is the longest."""
    generator = torch.Generator().manual_seed(1)
    shorter = SHORTER[kind]
    least = 1 if shorter is None else case.time - shorter
    lengths = torch.randint(least, case.time + 1, (case.batch,), generator=generator)
    lengths[0] = case.time
    return lengths


def step_of(case: Case, path: str, lengths: Tensor | None) -> Step | None:
    """Return a step on a CPU, None if the path cannot run here.

    A network of PyTorch runs as a body, which packs its sequences.
    """
    step = Step(case, path, "cpu", "fp32")
    step.lengths = lengths
    if isinstance(step.net, nn.RNNBase):
        step.net = RecurrentBody(step.net)
    elif isinstance(step.net, ThalNet) and step.net.explain()[path]:
        return None
    return step


def measure(config: str, paths: Sequence[str], pairs: int) -> Iterator[dict[str, Any]]:
    """Yield a measurement of each path and kind of lengths."""
    case = CASES[config]
    for path in paths:
        for kind in SHORTER:
            lengths = draw_lengths(case, kind)
            padded, unequal = step_of(case, path, None), step_of(case, path, lengths)
            if padded is None or unequal is None:
                continue
            steps = {"padded": padded, "unequal": unequal}
            _, seconds = alternate(steps, pairs, "cpu")
            times = zip(seconds["unequal"], seconds["padded"], strict=True)
            ratios = [with_lengths / without for with_lengths, without in times]
            low, _, high = quantiles(ratios, n=4)
            yield {
                "config": config,
                "path": path,
                "lengths": kind,
                "real_steps": float(lengths.double().mean()) / case.time,
                "cpu_ratio_to_padded": median(ratios),
                "quartiles": [low, high],
                "cpu_seconds": median(seconds["unequal"]),
                "padded_cpu_seconds": median(seconds["padded"]),
                "threads": 1,
                "pairs": pairs,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--configs", nargs="*", choices=CASES, metavar="NAME", default=CONFIGS)
    paths = (*BACKENDS, *BASELINES)
    parser.add_argument("--paths", nargs="*", choices=paths, default=paths)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of steps for each ratio")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measurements = []
    record = provenance("cpu")
    for config in options.configs:
        for m in measure(config, options.paths, options.pairs):
            low, high = m["quartiles"]
            ratio = f"{m['cpu_ratio_to_padded']:.3f} ({low:.3f} to {high:.3f})"
            print(m["config"], m["path"], m["lengths"], ratio, sep="  ", flush=True)
            measurements.append(m)
    record |= {"measurements": measurements}
    out = options.json or FOLDER / "results" / "lengths" / "cpu.json"
    save(record, out, publish=not options.json)


if __name__ == "__main__":
    main()
