"""Runs side by side on a GPU, each on a stream: jobs as JSON on standard input, records as files.

    python -m benchmarks.beside RUNS RESULTS < jobs.json

Jobs are commands of ``thalnet train`` by the name of their run. The runs need not be alike.
"""

import json
import sys
from itertools import islice
from pathlib import Path

from benchmarks.shared import write_record
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
        found = {}
        for name in names:
            files, flags = split_flags(jobs[name])
            found[runs / name] = load_configs(files, flags)[""]
        try:
            train_stacked(found, Console())
        except RunError as error:
            print(error, flush=True)
            for name in names:  # a record has the last word of a run that left no result
                (runs / f"{name}.log").write_text(f"{error}\n")
        for name in names:
            write_record(name, jobs[name], runs / name, results)


if __name__ == "__main__":
    main()
