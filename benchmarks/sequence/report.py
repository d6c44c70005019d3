"""Tables of the sequence benchmark, made from the records of its runs."""

from collections.abc import Mapping, Sequence
from statistics import mean

from benchmarks.markdown import commands, header, row, spread
from benchmarks.records import Record, RunsBySeed, load_by_seed, seed_count, succeeded
from benchmarks.sequence.experiments import METHODS, RESULTS, TASKS
from benchmarks.tuning import display_scale, final_score, metric_of, normalized_scores
from thalnet_mtl.metrics.multitask import delta_m, relative_gain
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict

COMPARED = [("ewc", "never"), ("replay", "never"), ("frozen", "never"), ("shared", "never")]
COMPARED += [("frozen", "ewc"), ("frozen", "replay")]
ADDED = [("through", "frozen"), ("through", "ewc")]  # after the results of all others were known
GROUPS = {"images": ("permuted_mnist", "cifar10_rows"), "text": ("text8",)}


def report() -> str:
    """Return all tables in Markdown: results of each method, then the comparisons."""
    runs = load_by_seed(RESULTS)
    tables = [method_table(runs), verdict_table(runs, COMPARED), verdict_table(runs, ADDED)]
    records = (record for by_seed in runs.values() for record in by_seed.values())
    return "\n\n".join("\n".join(part) for part in (*tables, [commands(records)]) if part)


def method_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return final scores, Δm, forgetting and transfer of every method."""
    kinds = [(measure, group) for measure in ("forgetting", "transfer") for group in GROUPS]
    units = {"images": "images, points", "text": "text, bits"}
    lines = header("ThalNet", "parameters", "seeds", *TASKS.values(), "Δm, %",
                   *(f"{measure}, {units[group]}" for measure, group in kinds))  # fmt: skip
    for name, (title, _) in METHODS.items():
        records = succeeded(runs.get(name, {}))
        if not records:
            continue
        sizes = [record["result"]["parameters"]["total"] for record in records.values()]
        size = " to ".join(dict.fromkeys(f"{n:,}" for n in (min(sizes), max(sizes))))
        seeds = seed_count(len(records), len(runs[name]) - len(records))
        cells = [
            spread([display_scale(task) * final_score(r, task) for r in records.values()])
            for task in TASKS
        ]
        cells.append(f"**{spread([*mean_gains(runs, name).values()], 1)}**")
        measures = [
            forgetting_and_transfer(record, single_task_scores(runs, seed))
            for seed, record in records.items()
        ]
        cells += [spread([values[kind] for values in measures if kind in values]) for kind in kinds]
        lines.append(row(title, size, seeds, *cells))
    singles = {task: single_task_runs(runs, task) for task in TASKS}
    cells = [
        spread([display_scale(task) * final_score(r, task) for r in records.values()])
        for task, records in singles.items()
    ]
    count = str(min(map(len, singles.values())))
    lines.append(
        f"| three single-task networks | 3 times | {count} | {' | '.join(cells)} | 0 |||||"
    )
    return lines


def single_task_runs(runs: Mapping[str, RunsBySeed], task: str) -> RunsBySeed:
    """Return the single-task runs at the one of two rates that validates better over all seeds."""
    prefix = f"single_{task}_at_"
    candidates = [succeeded(by_seed) for name, by_seed in runs.items() if name.startswith(prefix)]
    scores = [
        mean(score for record in records.values() for score in normalized_scores(record))
        if records
        else 0
        for records in candidates
    ]
    return candidates[scores.index(max(scores))] if candidates else {}


def single_task_scores(runs: Mapping[str, RunsBySeed], seed: int) -> dict[str, float]:
    """Return S by task."""
    records = {task: single_task_runs(runs, task).get(seed) for task in TASKS}
    return {task: final_score(record, task) for task, record in records.items() if record}


def mean_gains(runs: Mapping[str, RunsBySeed], name: str) -> dict[int, float]:
    """Return Δm in percent by seed, where all runs that it needs have succeeded."""
    gains = {}
    for seed, record in succeeded(runs.get(name, {})).items():
        singles = single_task_scores(runs, seed)
        if len(singles) == len(TASKS):
            relative = [
                relative_gain(final_score(record, task), singles[task], metric_of(task))
                for task in TASKS
            ]
            gains[seed] = 100 * delta_m(relative)
    return gains


def forgetting_and_transfer(
    record: Record, singles: Mapping[str, float]
) -> dict[tuple[str, str], float]:
    """Return forgetting and transfer R[j, j] − S, of images in percent points, of text in bits.

    Transfer is over the tasks that are not the first, which no earlier task can help.
    """
    content, tasks = record["result"]["continual"], list(record["result"]["tasks"])
    forgetting = content["measures"]["forgetting"]["values"]
    measures: dict[tuple[str, str], float] = {}
    for group, names in GROUPS.items():
        scale = display_scale(names[0])
        forgotten = [scale * forgetting[task] for task in names if task in forgetting]
        if forgotten:
            measures["forgetting", group] = mean(forgotten)
        transfers = []
        for task in names:
            stage = next(k for k, trained in enumerate(content["trained"], 1) if task in trained)
            score = content["scores"][stage][tasks.index(task)]
            sign = 1 if metric_of(task).higher_is_better else -1
            if task in singles and stage > 1:
                transfers.append(scale * sign * (score - singles[task]))
        if transfers:
            measures["transfer", group] = mean(transfers)
    return measures


def verdict_table(runs: Mapping[str, RunsBySeed], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the comparisons of Δm in the same order of tasks with the same seed."""
    gains, differences = {name: mean_gains(runs, name) for name in METHODS}, {}
    for ours, theirs in pairs:
        seeds = sorted(gains[ours].keys() & gains[theirs].keys())
        if len(seeds) > 1:
            values = [gains[ours][seed] - gains[theirs][seed] for seed in seeds]
            differences[METHODS[ours][0], METHODS[theirs][0]] = values
    corrected = holm({str(pair): sign_flip_test(d) for pair, d in differences.items()})
    lines = header("Δm of", "minus Δm of", "difference, points", "verdict")
    for pair, values in differences.items():
        result = verdict(values, corrected[str(pair)], True, len(differences))
        text = f"**{result.word}**: {result.line}"
        lines.append(row(*pair, spread(values, 1), text))
    return lines if differences else []
