"""Tables of the continual benchmark, made from the records of its runs."""

from collections.abc import Iterable, Mapping
from statistics import mean

from benchmarks.continual.methods import METHODS, RESULTS, STREAMS, best_setting
from benchmarks.markdown import commands, header, row, spread
from benchmarks.records import Record, RunsBySeed, load_by_seed, seed_count, succeeded
from thalnet_mtl.metrics.continual import AccuracyMatrix, intransigence, transfer
from thalnet_mtl.metrics.learning_curves import minimum_accuracy, steps_to_reach
from thalnet_mtl.metrics.metric import ACCURACY, Metric
from thalnet_mtl.metrics.multitask import delta_m, relative_gain, skill
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict

STEPS = 300  # of a task; a task that never reaches its target counts as all of them
BASELINE = "naive"  # compared with every other method
MEASURES = {
    "average_accuracy": "ACC",
    "average_incremental_accuracy": "AIA",
    "forgetting": "forgetting",
    "avalanche_forgetting": "forgetting (first − last)",
    "backward_transfer": "BWT",
    "forward_transfer": "FWT",
}
COST_HEADER = ("method", "min-ACC, %", "steps to 90 % of S", "skill, %", "Δm, %",
       "parameters: first → last, trainable at the end", "M multiply-adds", "stored, kB",
       "seconds")  # fmt: skip


def report() -> str:
    """Return all tables in Markdown."""
    runs = load_by_seed(RESULTS)
    percents = (f"{title}, %" for title in MEASURES.values())
    lines = header("method", "parameters at the end", "seeds", *percents, "transfer, %",
                   "intransigence, %")  # fmt: skip
    lines += [row(*cells) for name in METHODS if (cells := measure_cells(name, runs))]
    lines += ["", *header(*COST_HEADER)]
    lines += [row(*cost_cells(name, runs)) for name in STREAMS if succeeded(runs.get(name, {}))]
    records = (record for by_seed in runs.values() for record in by_seed.values())
    lines += ["", *verdict_table(runs), "", *selection_table(runs), "", commands(records)]
    return "\n".join(lines)


def scores(record: Record, split: str = "test") -> dict[str, float]:
    """Return the accuracy on each task after the last experience."""
    return {name: task[split]["accuracy"] for name, task in record["result"]["tasks"].items()}


def single_task_scores(
    runs: Mapping[str, RunsBySeed], seed: int, split: str = "test"
) -> dict[str, float]:
    """Return S, the accuracy of a single-task network, by task."""
    names = [name for name in runs if name.startswith("independent_")]
    return {
        name.removeprefix("independent_"): next(iter(scores(record, split).values()))
        for name in names
        if (record := succeeded(runs[name]).get(seed))
    }


def average_accuracies(runs: Mapping[str, RunsBySeed], name: str) -> dict[int, float]:
    """Return ACC by seed."""
    if name != "independent":
        records = succeeded(runs.get(name, {}))
        return {seed: mean(scores(record).values()) for seed, record in records.items()}
    singles = [succeeded(by_seed) for key, by_seed in runs.items() if key.startswith(name)]
    by_seed = {seed: single_task_scores(runs, seed) for seed in sorted(set().union(*singles))}
    return {seed: mean(values.values()) for seed, values in by_seed.items() if len(values) == 10}


def relative_measures(
    record: Record, seed: int, runs: Mapping[str, RunsBySeed]
) -> tuple[float | None, ...]:
    """Return transfer and intransigence, where the reference runs of the seed exist."""
    content = record["result"]["continual"]
    tasks = list(record["result"]["tasks"])
    matrix = AccuracyMatrix(dict.fromkeys(tasks, ACCURACY), content["trained"], content["scores"])
    joint = succeeded(runs.get("joint", {})).get(seed)
    return (
        transfer(matrix, single_task_scores(runs, seed)).mean,
        intransigence(matrix, scores(joint) if joint else {}).mean,
    )


def percent(values: Iterable[float | None]) -> str:
    """Return mean and 95 % bootstrap interval in percent of the values that are not None."""
    return number([None if value is None else 100 * value for value in values], 2)


def number(values: Iterable[float | None], digits: int = 0) -> str:
    """Return mean and 95 % bootstrap interval of the values that are not None; 0.0 if all are 0."""
    defined = [value for value in values if value is not None]
    if not defined:
        return "–"
    return spread(defined, digits) if any(defined) else "0.0"


def measure_cells(name: str, runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the measures of a method, a row of the first table."""
    records, averages = runs.get(name, {}), average_accuracies(runs, name)
    seeds = seed_count(len(averages), sum("failed" in record for record in records.values()))
    finished = succeeded(records if name != "independent" else runs.get("independent_p0", {}))
    if not finished:
        return []
    sizes = [record["result"]["parameters"]["total"] for record in finished.values()]
    size = f"{sizes[0]:,}" + (" each" if name == "independent" else "")
    cells = [METHODS[name].title, size, seeds, percent(averages.values())]
    if name not in STREAMS:
        return [*cells, *["–"] * 7]
    for key in list(MEASURES)[1:]:
        means = [
            record["result"]["continual"]["measures"][key]["mean"] for record in finished.values()
        ]
        cells.append(percent(means))
    pairs = [relative_measures(record, seed, runs) for seed, record in finished.items()]
    for values in zip(*pairs, strict=True):
        cells.append(percent(values))
    return cells


def stability_minimum(record: Record) -> float | None:
    """Return min-ACC, from the validation scores within the experiences."""
    content = record["result"]["continual"]
    matrix = AccuracyMatrix(metrics(record), content["trained"], content["scores"])
    return minimum_accuracy(matrix, validation_curves(record), content["ends"]).mean


def mean_steps(record: Record, singles: Mapping[str, float]) -> float | None:
    """Return the mean steps from the start of a task to 90 % of S on validation."""
    content = record["result"]["continual"]
    starts = {task: n * STEPS for n, names in enumerate(content["trained"]) for task in names}
    curves = {
        task: [(n - starts[task], score) for n, score in curve if n > starts[task]]
        for task, curve in validation_curves(record).items()
    }
    reached = steps_to_reach(metrics(record), curves, singles).values
    return mean(reached.get(task, STEPS) for task in starts) if singles else None


def single_task_comparison(
    record: Record, singles: Mapping[str, float]
) -> tuple[float | None, float | None]:
    """Return skill and Δm relative to single-task networks."""
    tasks, final = record["result"]["tasks"], scores(record)
    if len(singles) < len(tasks):
        return None, None
    untrained = {name: task["untrained"]["accuracy"] for name, task in tasks.items()}
    return (
        mean(skill(final[task], singles[task], untrained[task]) for task in tasks),
        delta_m([relative_gain(final[task], singles[task], ACCURACY) for task in tasks]),
    )


def metrics(record: Record) -> dict[str, Metric]:
    """Return the metrics of the tasks in the order of the columns of R."""
    return dict.fromkeys(record["result"]["tasks"], ACCURACY)


def validation_curves(record: Record) -> dict[str, list[tuple[int, float]]]:
    """Return steps and validation accuracies by task."""
    return {
        task: list(zip(curve["validation_step"], curve["validation_accuracy"], strict=True))
        for task, curve in record["curves"].items()
    }


def cost_cells(name: str, runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the course of the training of a method and its costs, a row of the second table."""
    records = succeeded(runs.get(name, {}))
    comparisons = [
        single_task_comparison(record, single_task_scores(runs, seed))
        for seed, record in records.items()
    ]
    steps = [
        mean_steps(record, single_task_scores(runs, seed, "validation"))
        for seed, record in records.items()
    ]
    first, *_, last = next(iter(records.values()))["result"]["continual"]["stages"]
    multiply_adds = mean(last["multiply_adds"].values()) / 1e6
    return [
        METHODS[name].title,
        percent(map(stability_minimum, records.values())),
        number(steps),
        *map(percent, zip(*comparisons, strict=True)),
        f"{first['total']:,} → {last['total']:,}, {last['trainable']:,}",
        f"{multiply_adds:.2f}",
        f"{last['stored_bytes'] / 1e3:,.0f}",
        number([record["result"]["train_seconds"] for record in records.values()]),
    ]


def verdict_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the comparison of each method with the naive one on ACC: paired seeds, Holm."""
    base = average_accuracies(runs, BASELINE)
    differences: dict[str, list[float]] = {}
    for name in STREAMS:
        averages = average_accuracies(runs, name)
        seeds = sorted(base.keys() & averages.keys())
        if name != BASELINE and len(seeds) > 1:
            differences[name] = [averages[seed] - base[seed] for seed in seeds]
    if not differences:
        return []
    corrected = holm({name: sign_flip_test(values) for name, values in differences.items()})
    lines = header(
        f"compared with {METHODS[BASELINE].title}", "difference in ACC, points", "verdict"
    )
    for name, values in differences.items():
        result = verdict(
            values, corrected[name], higher_is_better=True, comparisons=len(differences)
        )
        lines.append(row(METHODS[name].title, percent(values), f"{result.word}: {result.line}"))
    return lines


def selection_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the table of the settings that the trials selected."""
    titles = {"train.learning_rate": "learning rate", "strategy.strength": "strength"}
    lines = header("method", "selected, of 4 trials")
    for name in STREAMS:
        if name in runs:
            setting = best_setting(name).items()
            words = ", ".join(f"{titles[key]} {value}" for key, value in setting)
            lines.append(row(METHODS[name].title, words))
    return lines
