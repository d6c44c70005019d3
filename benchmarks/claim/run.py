"""Three tasks, each alone and all jointly, with a ThalNet and with a GRU of equal size.

    python -m benchmarks.claim.run --seeds 0 1 2 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
goes on where it stopped. Results go to ``results/`` as they come, one JSON file a run, and the
table of the README is made from those files alone (``--seeds`` without a number does only that).
"""

import argparse
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from benchmarks.shared import BySeed, Record, as_named, by_seed, train_all, with_table
from thalnet_mtl.metrics import METRICS, Metric, delta_m, relative_gain

HERE = Path(__file__).parent
README = HERE / "README.md"
TASKS = {
    "permuted_mnist": "permuted MNIST, %",
    "cifar10_rows": "CIFAR-10 by rows, %",
    "text8": "text8, first 74 MB, bits",
}
BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
JOINT = {"thalnet": ("joint/three_tasks", 34), "gru": ("joint/three_tasks_gru", 65)}

# The budget of a network for one task: a third of what the joint one has, or all of it.
SINGLES = {"third": 50_000, "whole": 147_000}


def jobs(
    seeds: Sequence[int], sizes: Sequence[str], more: Sequence[str] = ()
) -> dict[str, list[str]]:
    """All commands by the name of their run, with ``more`` flags."""
    found = {}
    here = as_named(HERE)
    for seed in seeds:
        last = ["--train.seed", str(seed), *more]
        for body, (config, features) in JOINT.items():
            found[f"joint_{body}-seed{seed}"] = [
                *(config, f"{here}/recipe.yaml", "--model.features", str(features), *last)
            ]
        for size in sizes:
            for body in BODIES:
                for task in TASKS:
                    budget = str(SINGLES[size])
                    found[f"{size}_{task}_{body}-seed{seed}"] = [
                        *(f"{here}/recipe.yaml", f"{here}/{body}.yaml", "--task.name", task),
                        *("--model.budget", budget, *last),
                    ]
    return found


def metric_of(record: Record, task: str) -> Metric:
    """What a task of a run is judged by."""
    return METRICS[record["result"]["tasks"][task]["metric"]]


def score(record: Record, task: str) -> float:
    """The test score of a task in a run."""
    return record["result"]["tasks"][task]["test"][metric_of(record, task).name]


def gains(joint: BySeed, singles: Mapping[str, BySeed]) -> list[dict[str, float]]:
    """±(R − S) / S of every task, for every seed of which all runs succeeded."""
    runs = (joint, *singles.values())
    return [
        {
            task: relative_gain(
                score(joint[seed], task), score(single[seed], task), metric_of(joint[seed], task)
            )
            for task, single in singles.items()
        }
        for seed in joint
        if all("result" in run.get(seed, {}) for run in runs)
    ]


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of Student's t, in percent."""
    if len(values) < 2:
        return "–"
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values))
    low, high = (100 * (mean(values) + sign * half) for sign in (-1, 1))
    return f"{100 * mean(values):+.2f} [{low:+.2f}, {high:+.2f}]"


def table() -> str:
    """All results in Markdown: test scores, and below them what joint training gained."""
    found = by_seed(HERE / "results")
    head = ["network", "trained on", "parameters", "seeds", *TASKS.values()]
    scores = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    short = [title.partition(",")[0] for title in TASKS.values()]
    head = ["network", "joint against", "seeds", *short, "Δm"]
    changes = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for body, title in BODIES.items():
        joint = found.get(f"joint_{body}", {})
        scores += row(title, "all jointly", dict.fromkeys(TASKS, joint))
        for size, words in {"third": "one each, a third", "whole": "one each, full size"}.items():
            singles = {task: found.get(f"{size}_{task}_{body}", {}) for task in TASKS}
            scores += row(title, words, singles)
            if gained := gains(joint, singles):
                cells = [interval([gain[task] for gain in gained]) for task in TASKS]
                cells.append(interval([delta_m(list(gain.values())) for gain in gained]))
                changes.append(f"| {' | '.join([title, words, str(len(gained)), *cells])} |")
    return "\n".join([*scores, "", *changes])


def row(title: str, what: str, runs: Mapping[str, BySeed]) -> list[str]:
    """One line with the mean and all values of every task, if there are any."""
    done = {task: [r for r in run.values() if "result" in r] for task, run in runs.items()}
    if not all(done.values()):
        return []
    failed = {r["command"] for run in runs.values() for r in run.values() if "failed" in r}
    sizes = {f"{rs[0]['result']['parameters']['total']:,}": None for rs in done.values()}
    count = f"{min(map(len, done.values()))}" + (f" ({len(failed)} failed)" if failed else "")
    cells = [title, what, " + ".join(sizes), count]
    for task, rs in done.items():
        percent = metric_of(rs[0], task).name == "accuracy"
        values = [score(r, task) * (100 if percent else 1) for r in rs]
        each = " · ".join(f"{value:.{2 if percent else 3}f}" for value in values)
        cells.append(f"**{mean(values):.{2 if percent else 3}f}** ({each})")
    return [f"| {' | '.join(cells)} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: table only")
    parser.add_argument("--sizes", nargs="*", default=list(SINGLES), choices=list(SINGLES))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/claim"))
    options, more = parser.parse_known_args()  # flags of ``thalnet train``, of a GPU say
    work = jobs(options.seeds, options.sizes, more)
    train_all(work, options.runs, HERE / "results", options.jobs)
    README.write_text(with_table(README.read_text(), table()))


if __name__ == "__main__":
    main()
