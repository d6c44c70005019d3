"""ThalNet and GRU at equal size: the poster's table, what works in it, and the best of each.

    python -m benchmarks.quality.run poster mechanisms search best --seeds 0 1 2 --jobs 2

Every run is one ``thalnet train``; a finished one is not repeated, an interrupted one goes on where
it stopped. Records go to ``results/`` as they come, one JSON file a run, and the tables of both
READMEs are made from those files alone (without a part: only that).
"""

import argparse
import json
from pathlib import Path

from benchmarks import opening
from benchmarks.quality import plans, text
from benchmarks.quality.connectivity import initial
from benchmarks.quality.tables import report
from benchmarks.shared import train_all, with_table

HERE = Path(__file__).parent
README = HERE / "README.md"
PARTS = plans.PARTS | text.PARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    options, more = parser.parse_known_args()  # flags of ``thalnet train``, of a GPU say
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"unknown part '{part}'. Allowed: {', '.join(PARTS)}.")
        jobs = PARTS[part](options.seeds, more)
        train_all(jobs, options.runs / part, plans.RESULTS / part, options.jobs)
    begun = {
        task: [initial(f"paper/{task}_thalnet", seed) for seed in range(10)] for task in plans.TASKS
    }
    (plans.RESULTS / "initial.json").write_text(json.dumps(begun, indent=1) + "\n")
    README.write_text(with_table(README.read_text(), report()))
    opening.write()


if __name__ == "__main__":
    main()
