"""Tables of the claim, made from the records of its runs."""

from collections.abc import Mapping, Sequence

from benchmarks.claim.experiments import (
    BODIES,
    METHODS,
    NETWORKS,
    RATES,
    RESULTS,
    SEEDS,
    TASKS,
    run_names,
    settings,
)
from benchmarks.launch import arguments
from benchmarks.markdown import commands, header, row, spread
from benchmarks.records import Record, RunsBySeed, load_by_seed, seed_count
from benchmarks.tuning import (
    best_setting,
    display_scale,
    final_score,
    metric_of,
    validation_scores,
)
from thalnet_mtl.metrics.multitask import delta_m, relative_gain
from thalnet_mtl.metrics.significance import Verdict, holm, sign_flip_test, verdict

Pair = tuple[tuple[str, str], tuple[str, str]]
BETWEEN_BODIES: Pair = (("thalnet", "weighted"), ("gru", "weighted"))
# Δm of the first minus Δm of the second, both relative to single-task networks of the second body.
COMPARED: list[Pair] = [
    (("thalnet", "weighted"), ("thalnet", "alone")),
    (("gru", "weighted"), ("gru", "alone")),
    (("thalnet", "aggregated"), ("thalnet", "weighted")),
    (("gru", "aggregated"), ("gru", "weighted")),
    BETWEEN_BODIES,
    (("thalnet", "weighted"), ("thalnet", "wide")),
]


def complete_runs(
    runs: Mapping[str, RunsBySeed], body: str, method: str
) -> dict[int, dict[str, Record]]:
    """Return the records by seed, then by task, of the seeds whose runs all succeeded."""
    by_task = {task: runs.get(name, {}) for task, name in run_names(body, method).items()}
    seeds = sorted(set.intersection(*(set(records) for records in by_task.values())))
    by_seed = {seed: {task: by_task[task][seed] for task in TASKS} for seed in seeds}
    return {
        seed: records
        for seed, records in by_seed.items()
        if all("result" in record for record in records.values())
    }


def gains(
    runs: Mapping[str, RunsBySeed], body: str, method: str, base: str
) -> dict[int, dict[str, float]]:
    """Return ±(R − S) / S in percent by seed, then by task.

    S is the score of a single-task network of the body ``base``.
    """
    trained, singles = complete_runs(runs, body, method), complete_runs(runs, base, "alone")
    return {
        seed: {
            task: 100
            * relative_gain(
                final_score(trained[seed][task], task),
                final_score(singles[seed][task], task),
                metric_of(task),
            )
            for task in TASKS
        }
        for seed in trained
        if seed in singles
    }


def report() -> str:
    """Return all tables in Markdown: scores, gains, verdicts, lesions and selected settings."""
    (runs, later), untuned = split_seeds(load_by_seed(RESULTS)), load_by_seed(RESULTS / "untuned")
    parts = [score_table(runs), gain_table(runs), verdict_table(runs), single_task_table(runs)]
    parts += [lesion_table(runs)]
    if any(later.values()):
        parts += [
            ["New seeds, for the comparisons of the joint ThalNet with single-task ThalNets:"],
            score_table(later),
            verdict_table(later),
            lesion_table(later),
        ]
    records = [r for part in [*runs.values(), *later.values()] for r in part.values()]
    parts += [selection_table(), [commands(records)]]
    parts += [
        ["Earlier protocol: twice as many batches, GRUs of 4 layers, no tuning:"],
        score_table(untuned),
        gain_table(untuned),
    ]
    return "\n\n".join("\n".join(part) for part in parts if len(part) != len(header()))


def split_seeds(
    runs: Mapping[str, RunsBySeed],
) -> tuple[dict[str, RunsBySeed], dict[str, RunsBySeed]]:
    """Split the records into the seeds of all comparisons and the later seeds."""
    first, later = (
        {
            name: {seed: r for seed, r in records.items() if (seed in SEEDS) is early}
            for name, records in runs.items()
        }
        for early in (True, False)
    )
    return first, later


def score_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the table of test scores of every network and training method."""
    lines = header("network", "training", "parameters", "seeds", *TASKS.values())
    for body, method in NETWORKS:
        complete = complete_runs(runs, body, method)
        if not complete:
            continue
        first = next(iter(complete.values()))
        sizes = {r["command"]: r["result"]["parameters"]["total"] for r in first.values()}
        names = {*run_names(body, method).values()}
        failed = sum("failed" in r for name in names for r in runs[name].values())
        cells = [
            spread(
                [display_scale(task) * final_score(r[task], task) for r in complete.values()],
                digits(task),
            )
            for task in TASKS
        ]
        size, seeds = f"{sum(sizes.values()):,}", seed_count(len(complete), failed)
        lines.append(row(BODIES[body], METHODS[method], size, seeds, *cells))
    return lines


def digits(task: str) -> int:
    """Return the number of decimals that tables show."""
    return 2 if metric_of(task).higher_is_better else 3


def gain_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the table of gains over single-task networks, by task and as Δm."""
    lines = header(
        "network", "gain over single-task, a third", "seeds", *map(short, TASKS), "Δm, %"
    )
    for body, method in NETWORKS:
        by_seed = gains(runs, body, method, body)
        if method != "alone" and by_seed:
            cells = [spread([gain[task] for gain in by_seed.values()]) for task in TASKS]
            mean = spread([*mean_gains(runs, body, method, body).values()])
            lines.append(
                row(BODIES[body], METHODS[method], str(len(by_seed)), *cells, f"**{mean}**")
            )
    return lines


def short(task: str) -> str:
    """Return the title of a task without its unit."""
    return TASKS[task].partition(",")[0]


def mean_gains(
    runs: Mapping[str, RunsBySeed], body: str, method: str, base: str
) -> dict[int, float]:
    """Return Δm in percent by seed."""
    return {seed: delta_m([*g.values()]) for seed, g in gains(runs, body, method, base).items()}


def joint_verdicts(runs: Mapping[str, RunsBySeed]) -> dict[Pair, tuple[list[float], Verdict]]:
    """Return paired differences and verdict of every comparison, Holm-corrected over all."""
    differences = {}
    for pair in COMPARED:
        ours, theirs = (mean_gains(runs, *network, pair[1][0]) for network in pair)
        if paired := [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]:
            differences[pair] = paired
    corrected = holm({str(pair): sign_flip_test(d) for pair, d in differences.items()})
    return {
        pair: (values, verdict(values, corrected[str(pair)], True, len(differences)))
        for pair, values in differences.items()
    }


def verdict_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the table of all comparisons with their verdicts."""
    lines = header(
        "Δm of", "minus Δm of", "both relative to single-task", "difference, points", "verdict"
    )
    for pair, (values, result) in joint_verdicts(runs).items():
        cells = (f"{BODIES[body]}, {METHODS[method]}" for body, method in pair)
        text = f"**{result.word}**: {result.line}"
        lines.append(row(*cells, BODIES[pair[1][0]], spread(values), text))
    return lines


def joint_cells() -> list[str]:
    """Return Δm of ThalNet and GRU over single-task GRUs, seeds, difference and verdict."""
    runs, _ = split_seeds(load_by_seed(RESULTS))
    if BETWEEN_BODIES not in (verdicts := joint_verdicts(runs)):
        return []
    values, result = verdicts[BETWEEN_BODIES]
    both = [spread([*mean_gains(runs, *network, "gru").values()]) for network in BETWEEN_BODIES]
    return [*both, str(len(values)), spread(values), f"**{result.word}**"]


def single_task_verdicts(
    runs: Mapping[str, RunsBySeed],
) -> dict[str, tuple[list[list[float]], Verdict]]:
    """Return by task the scores of single-task ThalNets and GRUs and the verdict, after Holm."""
    complete = [complete_runs(runs, body, "alone") for body in BODIES]
    seeds = sorted(set.intersection(*map(set, complete)))
    values = {
        task: [
            [display_scale(task) * final_score(by_seed[seed][task], task) for seed in seeds]
            for by_seed in complete
        ]
        for task in TASKS
    }
    differences = {task: subtract(*both) for task, both in values.items() if seeds}
    corrected = holm({task: sign_flip_test(d) for task, d in differences.items()})
    return {
        task: (
            values[task],
            verdict(d, corrected[task], metric_of(task).higher_is_better, len(differences)),
        )
        for task, d in differences.items()
    }


def subtract(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the differences of paired values."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def single_task_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the table that compares single-task ThalNets with single-task GRUs."""
    lines = header("single-task, a third of the size each", "seeds", "ThalNet − GRU", "ThalNet is")
    for task, (both, result) in single_task_verdicts(runs).items():
        difference = spread(subtract(*both), digits(task))
        text = f"**{result.word}**: {result.line}"
        lines.append(row(TASKS[task], str(len(both[0])), difference, text))
    return lines


def text_cells() -> list[str]:
    """Return scores of single-task ThalNet and GRU on text, seeds, difference and verdict."""
    verdicts = single_task_verdicts(split_seeds(load_by_seed(RESULTS))[0])
    if "text8" not in verdicts:
        return []
    both, result = verdicts["text8"]
    cells = [spread(values, digits("text8")) for values in (*both, subtract(*both))]
    return [*cells[:2], str(len(both[0])), cells[2], f"**{result.word}**"]


def lesion_table(runs: Mapping[str, RunsBySeed]) -> list[str]:
    """Return the table of what each task loses without each module of the joint ThalNets."""
    records = [r for r in runs.get("weighted_thalnet", {}).values() if "lesions" in r]
    losses = (f"loss on {short(task)}" for task in TASKS)
    lines = header(f"lesioned module, {len(records)} seeds", *losses)
    for module in records[0]["lesions"] if records else ():
        cells = [
            spread([lesion_loss(r, module, task) for r in records], digits(task))
            if task in records[0]["lesions"][module]
            else ""
            for task in TASKS
        ]
        lines.append(row(module, *cells))
    return lines


def lesion_loss(record: Record, module: str, task: str) -> float:
    """Return the loss by a lesion in percent points or bits; above 0 the lesion harms."""
    sign = 1 if metric_of(task).higher_is_better else -1
    return (
        display_scale(task) * sign * (final_score(record, task) - record["lesions"][module][task])
    )


def selection_table() -> list[str]:
    """Return the table of the settings that the trials selected."""
    lines = header("network", "training", "selected, of four trials each")
    for body, method in NETWORKS:
        tasks = {name: short(task) for task, name in run_names(body, method).items()}
        tried = settings(body, method)
        if any(len(validation_scores(RESULTS, name, tried)) < len(RATES) for name in tasks):
            continue
        flags = {name: " ".join(arguments(best_setting(RESULTS, name, tried))) for name in tasks}
        text = (f"{tasks[n]} `{f}`" if len(tasks) > 1 else f"`{f}`" for n, f in flags.items())
        lines.append(row(BODIES[body], METHODS[method], "; ".join(text)))
    return lines
