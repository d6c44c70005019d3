"""The table of the README, from ``results/`` alone."""

import json
from collections.abc import Mapping
from statistics import mean

from benchmarks.continual.methods import METHODS, RESULTS, STREAMS, chosen
from benchmarks.shared import Record
from thalnet_mtl.continual_metrics import AccuracyMatrix, intransigence, transfer
from thalnet_mtl.metrics import ACCURACY
from thalnet_mtl.statistics import bootstrap_interval, holm, sign_flip_test, verdict

BESIDE = "naive"  # what every other method is compared with
MEASURES = {
    "average_accuracy": "ACC",
    "average_incremental_accuracy": "AIA",
    "forgetting": "forgetting",
    "backward_transfer": "BWT",
    "forward_transfer": "FWT",
}
BySeed = dict[int, Record]


def records() -> dict[str, BySeed]:
    """All records of runs by the name of their method, then by seed."""
    found: dict[str, BySeed] = {}
    for path in sorted(RESULTS.glob("*-seed*.json")):
        name, _, seed = path.stem.rpartition("-seed")
        found.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
    return found


def done(runs: BySeed) -> BySeed:
    """Those that succeeded."""
    return {seed: record for seed, record in runs.items() if "result" in record}


def scores(record: Record) -> dict[str, float]:
    """Test accuracy of each task after all."""
    return {name: task["test"]["accuracy"] for name, task in record["result"]["tasks"].items()}


def singles(found: Mapping[str, BySeed], seed: int) -> dict[str, float]:
    """S: what a network for one task alone reaches, by task."""
    names = [name for name in found if name.startswith("independent_")]
    return {
        name.removeprefix("independent_"): next(iter(scores(record).values()))
        for name in names
        if (record := done(found[name]).get(seed))
    }


def accuracies(found: Mapping[str, BySeed], name: str) -> dict[int, float]:
    """ACC by seed."""
    if name != "independent":
        return {
            seed: mean(scores(record).values())
            for seed, record in done(found.get(name, {})).items()
        }
    seeds = set().union(*(done(runs) for key, runs in found.items() if key.startswith(name)))
    by_seed = {seed: singles(found, seed) for seed in sorted(seeds)}
    return {seed: mean(of.values()) for seed, of in by_seed.items() if len(of) == 10}


def beside(record: Record, seed: int, found: Mapping[str, BySeed]) -> tuple[float | None, ...]:
    """Transfer and intransigence, where the single and joint runs of the seed are there."""
    content = record["result"]["continual"]
    tasks = list(record["result"]["tasks"])
    matrix = AccuracyMatrix(dict.fromkeys(tasks, ACCURACY), content["trained"], content["scores"])
    joint = done(found.get("joint", {})).get(seed)
    return (
        transfer(matrix, singles(found, seed)).mean,
        intransigence(matrix, scores(joint) if joint else {}).mean,
    )


def percent(values: list[float]) -> str:
    """Mean, and a 95 % bootstrap interval where there are several."""
    if not values:
        return "–"
    shown = f"{100 * mean(values):.2f}"
    if len(values) < 2 or len(set(values)) < 2:
        return shown if mean(values) else "0.0"
    low, high = bootstrap_interval(values)
    return f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def row(name: str, found: Mapping[str, BySeed]) -> list[str]:
    """The measures of a method."""
    runs, acc = found.get(name, {}), accuracies(found, name)
    failed = sum("failed" in record for record in runs.values())
    seeds = f"{len(acc)}" + (f" ({failed} failed)" if failed else "")
    finished = done(runs if name != "independent" else found.get("independent_p0", {}))
    if not finished:
        return []
    sizes = [record["result"]["parameters"]["total"] for record in finished.values()]
    size = f"{sizes[0]:,}" + (" each" if name == "independent" else "")
    cells = [METHODS[name].title, size, seeds, percent(list(acc.values()))]
    if name not in STREAMS:
        return [*cells, *["–"] * 6]
    for key in list(MEASURES)[1:]:
        means = [
            record["result"]["continual"]["measures"][key]["mean"] for record in finished.values()
        ]
        cells.append(percent([value for value in means if value is not None]))
    pairs = [beside(record, seed, found) for seed, record in finished.items()]
    for values in zip(*pairs, strict=True):
        cells.append(percent([value for value in values if value is not None]))
    return cells


def comparisons(found: Mapping[str, BySeed]) -> list[str]:
    """Each method against the naive one on ACC: paired seeds, corrected by Holm."""
    base = accuracies(found, BESIDE)
    pairs: dict[str, list[float]] = {}
    for name in STREAMS:
        own = accuracies(found, name)
        shared = sorted(base.keys() & own.keys())
        if name != BESIDE and len(shared) > 1:
            pairs[name] = [own[seed] - base[seed] for seed in shared]
    if not pairs:
        return []
    corrected = holm({name: sign_flip_test(of) for name, of in pairs.items()})
    lines = [f"| against {METHODS[BESIDE].title} | ACC | verdict |", "|---|---|---|"]
    for name, of in pairs.items():
        said = verdict(of, corrected[name], higher_is_better=True, comparisons=len(pairs))
        lines.append(f"| {METHODS[name].title} | {percent(of)} | {said.word}: {said.line} |")
    return lines


def knobs(found: Mapping[str, BySeed]) -> list[str]:
    """What the trials chose."""
    named = {"train.learning_rate": "rate", "strategy.strength": "strength"}
    lines = ["| method | chosen of 4 trials |", "|---|---|"]
    for name in STREAMS:
        if name in found:
            words = ", ".join(f"{named[key]} {value}" for key, value in chosen(name).items())
            lines.append(f"| {METHODS[name].title} | {words} |")
    return lines


def report() -> str:
    """All in Markdown."""
    found = records()
    head = ["method", "parameters at the end", "seeds", *(f"{m}, %" for m in MEASURES.values()),
            "transfer, %", "intransigence, %"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cells)} |" for name in METHODS if (cells := row(name, found))]
    return "\n".join([*lines, "", *comparisons(found), "", *knobs(found)])
