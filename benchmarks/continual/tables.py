"""The table of the README, from ``results/`` alone."""

from collections.abc import Iterable, Mapping
from statistics import mean

from benchmarks.continual.methods import METHODS, RESULTS, STREAMS, chosen
from benchmarks.shared import BySeed, Record, by_seed, commands, spread
from thalnet_mtl.metrics.continual import AccuracyMatrix, intransigence, transfer
from thalnet_mtl.metrics.learning_curves import minimum_accuracy, steps_to_reach
from thalnet_mtl.metrics.metric import ACCURACY, Metric
from thalnet_mtl.metrics.multitask import delta_m, relative_gain, skill
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict

STEPS = 300  # of a task, which one that never reaches its mark counts as
BESIDE = "naive"  # what every other method is compared with
MEASURES = {
    "average_accuracy": "ACC",
    "average_incremental_accuracy": "AIA",
    "forgetting": "forgetting",
    "avalanche_forgetting": "forgetting (first − last)",
    "backward_transfer": "BWT",
    "forward_transfer": "FWT",
}


def done(runs: BySeed) -> BySeed:
    """Those that succeeded."""
    return {seed: record for seed, record in runs.items() if "result" in record}


def scores(record: Record, split: str = "test") -> dict[str, float]:
    """Accuracy on each task after all."""
    return {name: task[split]["accuracy"] for name, task in record["result"]["tasks"].items()}


def singles(found: Mapping[str, BySeed], seed: int, split: str = "test") -> dict[str, float]:
    """S: what a network for one task alone reaches, by task."""
    names = [name for name in found if name.startswith("independent_")]
    return {
        name.removeprefix("independent_"): next(iter(scores(record, split).values()))
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


def percent(values: Iterable[float | None]) -> str:
    """Of those that there are, the mean and a 95 % bootstrap interval where they differ."""
    return number([None if value is None else 100 * value for value in values], 2)


def number(values: Iterable[float | None], digits: int = 0) -> str:
    """As ``percent``, as they are; an exact zero as such."""
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    return spread(there, digits) if any(there) else "0.0"


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
    cells = [METHODS[name].title, size, seeds, percent(acc.values())]
    if name not in STREAMS:
        return [*cells, *["–"] * 7]
    for key in list(MEASURES)[1:]:
        means = [
            record["result"]["continual"]["measures"][key]["mean"] for record in finished.values()
        ]
        cells.append(percent(means))
    pairs = [beside(record, seed, found) for seed, record in finished.items()]
    for values in zip(*pairs, strict=True):
        cells.append(percent(values))
    return cells


def lowest(record: Record) -> float | None:
    """min-ACC, of validation within the experiences."""
    content = record["result"]["continual"]
    matrix = AccuracyMatrix(metrics(record), content["trained"], content["scores"])
    return minimum_accuracy(matrix, curves(record), content["ends"]).mean


def steps(record: Record, alone: Mapping[str, float]) -> float | None:
    """Of each task from its begin until nine tenths of S on validation; never counts as all."""
    content = record["result"]["continual"]
    begins = {task: n * STEPS for n, names in enumerate(content["trained"]) for task in names}
    since = {
        task: [(n - begins[task], score) for n, score in curve if n > begins[task]]
        for task, curve in curves(record).items()
    }
    found = steps_to_reach(metrics(record), since, alone).values
    return mean(found.get(task, STEPS) for task in begins) if alone else None


def against(record: Record, alone: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Skill and Δm, beside a network for each task."""
    tasks, after = record["result"]["tasks"], scores(record)
    if len(alone) < len(tasks):
        return None, None
    begin = {name: task["untrained"]["accuracy"] for name, task in tasks.items()}
    return (
        mean(skill(after[task], alone[task], begin[task]) for task in tasks),
        delta_m([relative_gain(after[task], alone[task], ACCURACY) for task in tasks]),
    )


def metrics(record: Record) -> dict[str, Metric]:
    """Of the tasks, in the order of the columns of R."""
    return dict.fromkeys(record["result"]["tasks"], ACCURACY)


def curves(record: Record) -> dict[str, list[tuple[int, float]]]:
    """Validation by task."""
    return {
        task: list(zip(curve["validation_step"], curve["validation_accuracy"], strict=True))
        for task, curve in record["curves"].items()
    }


def on_the_way(name: str, found: Mapping[str, BySeed]) -> list[str]:
    """What a method did between the ends of experiences, and what it costs."""
    runs = done(found.get(name, {}))
    pairs = [against(record, singles(found, seed)) for seed, record in runs.items()]
    reached = [steps(r, singles(found, seed, "validation")) for seed, r in runs.items()]
    first, *_, last = next(iter(runs.values()))["result"]["continual"]["stages"]
    work = mean(last["multiply_adds"].values()) / 1e6
    return [
        METHODS[name].title,
        percent(map(lowest, runs.values())),
        number(reached),
        *map(percent, zip(*pairs, strict=True)),
        f"{first['total']:,} → {last['total']:,}, {last['trainable']:,}",
        f"{work:.2f}",
        f"{last['stored_bytes'] / 1e3:,.0f}",
        number([record["result"]["train_seconds"] for record in runs.values()]),
    ]


WAY = ("method", "min-ACC, %", "steps to 90 % of S", "skill, %", "Δm, %",
       "parameters: first → last, trainable", "M multiply-adds", "kept, kB", "seconds")  # fmt: skip


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
    found = by_seed(RESULTS)
    head = ["method", "parameters at the end", "seeds", *(f"{m}, %" for m in MEASURES.values()),
            "transfer, %", "intransigence, %"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cells)} |" for name in METHODS if (cells := row(name, found))]
    way = [f"| {' | '.join(WAY)} |", "|" + "---|" * len(WAY)]
    way += [
        f"| {' | '.join(on_the_way(name, found))} |"
        for name in STREAMS
        if done(found.get(name, {}))
    ]
    runs = (record for of in found.values() for record in of.values())
    return "\n".join(
        [*lines, "", *way, "", *comparisons(found), "", *knobs(found), "", commands(runs)]
    )
