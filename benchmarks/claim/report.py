"""Tables of the claim, made from the records of its runs."""

from collections.abc import Iterable, Mapping, Sequence

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
from benchmarks.markdown import commands, header, row, verdict
from benchmarks.records import (
    Record,
    RunsBySeed,
    load_by_seed,
    load_records,
    load_runs,
    seed_count,
)
from benchmarks.tuning import (
    best_setting,
    display_scale,
    final_score,
    metric_of,
    ranked_trials,
)
from thalnet_mtl.report.cells import Column, Comparison, compare, differences, spread, tested
from thalnet_mtl.report.folding import Row
from thalnet_mtl.report.make_table import column
from thalnet_mtl.report.quantities import find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.runs.summaries import RunSummary

Network = tuple[str, str]  # body and training method
Rows = Mapping[Network, Row]
BETWEEN_BODIES: tuple[Network, Network] = (("thalnet", "weighted"), ("gru", "weighted"))
# Δm of the first minus Δm of the second, both relative to single-task networks of the second body.
COMPARED: list[tuple[Network, Network]] = [
    (("thalnet", "weighted"), ("thalnet", "alone")),
    (("gru", "weighted"), ("gru", "alone")),
    (("thalnet", "aggregated"), ("thalnet", "weighted")),
    (("gru", "aggregated"), ("gru", "weighted")),
    BETWEEN_BODIES,
    (("thalnet", "weighted"), ("thalnet", "wide")),
]


def report() -> str:
    """Return all tables in Markdown: scores, gains, verdicts, lesions and selected settings."""
    runs, records = load_runs(RESULTS), load_by_seed(RESULTS)
    first, later = (fold_networks(r for r in runs if (r.seed in SEEDS) is early)
                    for early in (True, False))  # fmt: skip
    lesions = [
        lesion_table(
            {s: r for s, r in records["weighted_thalnet"].items() if (s in SEEDS) is early}
        )
        for early in (True, False)
    ]
    parts = [score_table(first), gain_table(first), verdict_table(first), single_task_table(first)]
    parts += [lesions[0]]
    if any(each.runs for each in later.values()):
        title = "New seeds, for the comparisons of the joint ThalNet with single-task ThalNets:"
        parts += [[title], score_table(later), verdict_table(later), lesions[1]]
    parts += [selection_table(), [commands(load_records(RESULTS, "*-seed*").values())]]
    untuned = fold_networks(load_runs(RESULTS / "untuned"))
    title = "Earlier protocol: twice as many batches, GRUs of 4 layers, no tuning:"
    parts += [[title], score_table(untuned), gain_table(untuned)]
    return "\n\n".join("\n".join(part) for part in parts if len(part) != len(header()))


def fold_networks(runs: Iterable[RunSummary]) -> Rows:
    """Return a row for each network; a single-task one has a run for each task and seed."""
    by_name: dict[str, list[RunSummary]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    rows = {}
    for body, method in NETWORKS:
        names = {*run_names(body, method).values()}
        members = [run for name in names for run in by_name.get(name, ())]
        done = {(run.seed, run.name): run for run in members if run.result}
        seeds = {seed for seed, _ in done if all((seed, name) in done for name in names)}
        complete = {key: run for key, run in sorted(done.items()) if key[0] in seeds}
        failed = [run for run in members if not run.result]
        rows[body, method] = Row((BODIES[body], METHODS[method]), complete, failed)
    return rows


def score_columns(rows: Rows) -> list[Column]:
    """Return the test scores by task."""
    runs = [run for each in rows.values() for run in each.runs.values()]
    names = [f"{task}.test" for task in TASKS if runs]
    return [column(find_quantity(n, runs, References()), [*rows.values()]) for n in names]


def gain_columns(rows: Rows, base: str) -> list[Column]:
    """Return the gain over single-task networks of a body by task, and their mean Δm."""
    runs = [run for each in rows.values() for run in each.runs.values()]
    singles = References([*rows[base, "alone"].runs.values()])
    names = [*(f"{task}.gain" for task in TASKS), "gain"]
    if not singles.single:
        return []
    return [column(find_quantity(n, runs, singles), [*rows.values()]) for n in names]


def score_table(rows: Rows) -> list[str]:
    """Return the table of test scores of every network and training method."""
    lines = header("network", "training", "parameters", "seeds", *TASKS.values())
    columns = score_columns(rows)
    for number, each in enumerate(rows.values()):
        if each.runs:
            first = [run.result for run in each.runs.values() if run.seed == each.seeds[0]]
            size = sum(result.parameters.total for result in first if result)
            cells = [c.cells[number].format(digits(t)) for c, t in zip(columns, TASKS, strict=True)]
            count = seed_count(len(each.seeds), len(each.unfinished))
            lines.append(row(*each.cells, f"{size:,}", count, *cells))
    return lines


def digits(task: str) -> int:
    """Return the number of decimals that tables show."""
    return 2 if metric_of(task).higher_is_better else 3


def gain_table(rows: Rows) -> list[str]:
    """Return the table of gains over single-task networks, by task and as Δm."""
    lines = header(
        "network", "gain over single-task, a third", "seeds", *map(short, TASKS), "Δm, %"
    )
    columns = {body: gain_columns(rows, body) for body in BODIES}
    for number, (body, method) in enumerate(rows):
        cells = [each.cells[number] for each in columns[body]]
        if method != "alone" and cells and cells[-1].values:
            *by_task, mean = (cell.format(2) for cell in cells)
            count = str(len(cells[-1].values))
            lines.append(row(BODIES[body], METHODS[method], count, *by_task, f"**{mean}**"))
    return lines


def short(task: str) -> str:
    """Return the title of a task without its unit."""
    return TASKS[task].partition(",")[0]


def joint_comparisons(rows: Rows) -> list[Comparison]:
    """Return the comparisons of Δm, Holm-corrected over all."""
    columns = {base: gain_columns(rows, base)[-1:] for base in BODIES}
    pairs = [((rows[ours], rows[theirs]), columns[theirs[0]]) for ours, theirs in COMPARED]
    return [c for c in tested(d for p, c in pairs for d in differences([p], c)) if c.pairs]


def verdict_table(rows: Rows) -> list[str]:
    """Return the table of all comparisons with their verdicts."""
    lines = header(
        "Δm of", "minus Δm of", "both relative to single-task", "difference, points", "verdict"
    )
    for c in joint_comparisons(rows):
        cells = c.row.label, c.baseline.label, c.baseline.cells[0], c.difference.format(2)
        lines.append(row(*cells, verdict(c)))
    return lines


def joint_cells() -> list[str]:
    """Return Δm of ThalNet and GRU over single-task GRUs, seeds, difference and verdict."""
    rows = fold_networks(run for run in load_runs(RESULTS) if run.seed in SEEDS)
    pair = tuple(rows[network] for network in BETWEEN_BODIES)
    comparisons = [c for c in joint_comparisons(rows) if (c.row, c.baseline) == pair]
    return [text for c in comparisons for text in comparison_cells(c, [*rows.values()], 2)]


def comparison_cells(c: Comparison, rows: Sequence[Row], decimals: int) -> list[str]:
    """Return both cells of a comparison, number of seeds, difference and verdict."""
    both = [c.column.cells[rows.index(each)].format(decimals) for each in (c.row, c.baseline)]
    return [*both, str(c.pairs), c.difference.format(decimals), f"**{c.result.word}**"]


def single_task_comparisons(rows: Rows) -> dict[str, Comparison]:
    """Return the comparison of single-task ThalNets and GRUs by task, after Holm."""
    ours, theirs = (rows[body, "alone"] for body in BODIES)
    compared = compare([(ours, theirs)], score_columns(rows))
    return {task: c for task, c in zip(TASKS, compared, strict=False) if c.pairs}


def single_task_table(rows: Rows) -> list[str]:
    """Return the table that compares single-task ThalNets with single-task GRUs."""
    lines = header("single-task, a third of the size each", "seeds", "ThalNet − GRU", "ThalNet is")
    for task, c in single_task_comparisons(rows).items():
        difference = c.difference.format(digits(task))
        lines.append(row(TASKS[task], str(c.pairs), difference, verdict(c)))
    return lines


def text_cells() -> list[str]:
    """Return scores of single-task ThalNet and GRU on text, seeds, difference and verdict."""
    rows = fold_networks(run for run in load_runs(RESULTS) if run.seed in SEEDS)
    comparison = single_task_comparisons(rows).get("text8")
    return comparison_cells(comparison, [*rows.values()], digits("text8")) if comparison else []


def lesion_table(runs: RunsBySeed) -> list[str]:
    """Return the table of what each task loses without each module of the joint ThalNets."""
    records = [record for record in runs.values() if "lesions" in record]
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
        if any(len(ranked_trials(RESULTS, name, tried)) < len(RATES) for name in tasks):
            continue
        flags = {name: " ".join(arguments(best_setting(RESULTS, name, tried))) for name in tasks}
        text = (f"{tasks[n]} `{f}`" if len(tasks) > 1 else f"`{f}`" for n, f in flags.items())
        lines.append(row(BODIES[body], METHODS[method], "; ".join(text)))
    return lines
