"""Three tasks, each alone and all jointly, with a ThalNet and with a GRU of equal size.

    python -m benchmarks.claim.run --tune --seeds 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
goes on where it stopped. Results go to ``results/`` as they come, one JSON file a run, and the
tables of both READMEs are made from those files alone (without arguments: only that).
"""

import argparse
import json
from pathlib import Path

from benchmarks import opening
from benchmarks.claim.plans import HERE, RESULTS, jobs, tried
from benchmarks.claim.tables import report
from benchmarks.shared import train_all, with_table
from thalnet_mtl.training.evaluate import lesions
from thalnet_mtl.training.trained_run import load_run

README = HERE / "README.md"


def add_lesions(runs: Path) -> None:
    """To the records of joint ThalNets with fixed weights: the scores without each module."""
    for path in RESULTS.glob("weighted_thalnet-seed*.json"):
        record, folder = json.loads(path.read_text()), runs / path.stem
        if "result" not in record or "lesions" in record or not folder.exists():
            continue
        run, found = load_run(folder), dict[str, dict[str, float]]()
        look, chunk = run.config.evaluate, run.config.train.chunk
        for name, task in run.tasks.items():
            data = task.load("cpu"), "test", look.batch, chunk, look.batches
            for module, values in lesions(run.network, *data).items():
                found.setdefault(module, {})[name] = values[task.metric.name]
        path.write_text(json.dumps(record | {"lesions": found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="the trials first")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/claim"))
    options = parser.parse_args()
    if options.tune:
        for _ in range(2):  # rates first, then what is tried at the rate found
            train_all(tried(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        train_all(jobs(options.seeds), options.runs, RESULTS, options.jobs)
        add_lesions(options.runs)
    README.write_text(with_table(README.read_text(), report()))
    opening.write()


if __name__ == "__main__":
    main()
