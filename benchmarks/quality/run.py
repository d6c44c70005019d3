"""Compares ThalNet and GRU at equal size: paper's recipe, mechanisms, search, best, text.

    python -m benchmarks.quality.run poster mechanisms search best --seeds 0 1 2 --jobs 2

Every run is one ``thalnet train``; a finished one is not repeated, an interrupted one resumes.
Every record is written to ``results/`` when its run ends. The tables of all READMEs are made from
these files alone (without a part, nothing else is done).
"""

import argparse
import json
from pathlib import Path

from benchmarks import readme_table
from benchmarks.launch import launch
from benchmarks.markdown import with_table
from benchmarks.quality import experiments, text_experiments
from benchmarks.quality.connectivity import initial_strengths
from benchmarks.quality.report import report

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
PARTS = experiments.PARTS | text_experiments.PARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"), help="run directories")
    options, flags = parser.parse_known_args()  # the flags are passed on to ``thalnet train``
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"unknown part '{part}'. Allowed: {', '.join(PARTS)}.")
        jobs, results = PARTS[part](options.seeds, flags), experiments.RESULTS / part
        launch(jobs, options.runs / part, results, options.jobs)
    untrained = {
        task: [initial_strengths(f"paper/{task}_thalnet", seed) for seed in range(10)]
        for task in experiments.TASKS
    }
    (experiments.RESULTS / "initial.json").write_text(json.dumps(untrained, indent=1) + "\n")
    README.write_text(with_table(README.read_text(), report()))
    readme_table.write()


if __name__ == "__main__":
    main()
