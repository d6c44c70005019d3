"""Trains several runs in one process on a GPU, each on its own CUDA stream.

    python -m benchmarks.gpu_streams RUNS RESULTS < jobs.json

Standard input holds the arguments of ``thalnet train`` by the name of their run, as JSON. The runs
need not be alike. Their records are written to RESULTS.
"""

import json
import sys
from itertools import islice
from pathlib import Path

from benchmarks.records import write_record
from thalnet_mtl.cli.parser import split_flags
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.console import Console
from thalnet_mtl.errors import RunError
from thalnet_mtl.training.stacked import train_stacked

WIDTH = 12  # runs at a time: more keep the processor busy, not the GPU


def main() -> None:
    runs, results = map(Path, sys.argv[1:])
    jobs: dict[str, list[str]] = json.load(sys.stdin)
    waiting = iter(jobs)
    while names := list(islice(waiting, WIDTH)):
        configs, failure = {}, ""
        for name in names:
            files, flags = split_flags(jobs[name])
            configs[runs / name] = load_configs(files, flags)[""]
        try:
            train_stacked(configs, Console())
        except RunError as error:
            failure = str(error)
            print(error, flush=True)
        for name in names:
            write_record(name, jobs[name], runs / name, results, failure)


if __name__ == "__main__":
    main()
