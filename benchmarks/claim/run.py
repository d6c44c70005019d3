"""Trains ThalNets and GRUs of equal size on three tasks, jointly and one network per task.

    python -m benchmarks.claim.run --tune --seeds 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
resumes. Every record is written to ``results/`` when its run ends. The tables of all READMEs are
made from these files alone (without arguments, nothing else is done).
"""

import argparse
import json
from pathlib import Path

from benchmarks import readme_table
from benchmarks.claim.experiments import FOLDER, RESULTS, jobs, trial_jobs
from benchmarks.claim.report import report
from benchmarks.launch import launch
from benchmarks.markdown import with_table
from thalnet_mtl.training.evaluate import lesions
from thalnet_mtl.training.trained_run import load_run

README = FOLDER / "README.md"


def add_lesions(runs: Path) -> None:
    """Add the scores without each module to the records of joint ThalNets with fixed weights."""
    for path in RESULTS.glob("weighted_thalnet-seed*.json"):
        record, folder = json.loads(path.read_text()), runs / path.stem
        if "result" not in record or "lesions" in record or not folder.exists():
            continue
        run, scores = load_run(folder), dict[str, dict[str, float]]()
        options, chunk = run.config.evaluate, run.config.train.chunk
        for name, task in run.tasks.items():
            data = task.load("cpu"), "test", options.batch, chunk, options.batches
            for module, values in lesions(run.network, *data).items():
                scores.setdefault(module, {})[name] = values[task.metric.name]
        path.write_text(json.dumps(record | {"lesions": scores}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="run the trials first")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/claim"), help="run directories")
    options = parser.parse_args()
    if options.tune:
        for _ in range(2):  # learning rates first, then the trials at the best learning rate
            launch(trial_jobs(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        launch(jobs(options.seeds), options.runs, RESULTS, options.jobs)
        add_lesions(options.runs)
    README.write_text(with_table(README.read_text(), report()))
    readme_table.write()


if __name__ == "__main__":
    main()
