"""Tables of the quality benchmark, made from the records of its runs."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean

from benchmarks.markdown import commands, header, row, verdict
from benchmarks.quality import text_report
from benchmarks.quality.connectivity import reading_tables, similarity_table
from benchmarks.quality.experiments import (
    BODIES,
    DESIGNS,
    EPOCHS,
    READINGS,
    RESULTS,
    TASKS,
    accuracy,
    best_trials,
    candidates,
    finalist,
)
from benchmarks.records import Record, load_by_seed, load_records, load_runs, seed_count
from thalnet_mtl.report import cells as report_cells
from thalnet_mtl.report.cells import Comparison, spread
from thalnet_mtl.report.make_table import make_table
from thalnet_mtl.report.table import Table

Pair = tuple[str, str]  # the names of the rows of ThalNet and GRU
COLUMNS = ("parameters", "validation", "test", "train", "gap")

PUBLISHED = {  # the test accuracy that the authors report, %
    "permuted_mnist": {"thalnet": 92, "gru": 65},
    "cifar10": {"thalnet": 54, "gru": 50},
}


def report() -> str:
    """Return all tables of this benchmark."""
    parts = {
        "Recipe of the paper, as far as it is known": paper_table(),
        "Readings and module designs": mechanism_table(),
        "Random search and best settings": search_table() + "\n\n" + best_table(),
        "Text, 1 M parameters": text_report.small_table(),
        "Text, 12 and 14 M parameters": text_report.large_table(),
        "Similarity of the learned connectivity": connectivity_tables(),
        "Failed: runs trained concurrently on a GPU": concurrent_table(),
    }
    return "\n\n".join(f"### {title}\n\n{part}" for title, part in parts.items())


def load_table(part: str) -> Table:
    """Return the runs of a folder of results as a table, a row for each name without its seed."""
    return make_table(load_runs(RESULTS / part), rows=["run"], columns=COLUMNS)


def cells(table: Table, name: str, columns: Sequence[str]) -> list[str]:
    """Return parameters, number of seeds and some scores of a row; dashes if it does not exist."""
    matches = [each for each in table.rows if each.label == name]
    if not matches:
        return ["–", "0", *["–"] * len(columns)]
    grid = table.main_grid()
    line = dict(zip(COLUMNS, grid[1 + table.rows.index(matches[0])][2:], strict=True))
    count = seed_count(len(matches[0].seeds), len(matches[0].unfinished))
    return [line["parameters"], count, *(line[name] for name in columns)]


def scores(table: Table, name: str, split: str) -> list[float]:
    """Return the accuracy in percent of a row, a value for each seed."""
    places = [k for k, each in enumerate(table.rows) if each.label == name]
    column = next(column for column in table.columns if column.name == split)
    return [100 * value for k in places for value in column.cells[k].values]


def compare(table: Table, pairs: Mapping[str, Pair], measure: str = "test") -> list[Comparison]:
    """Return the comparisons of ThalNet with GRU, Holm-corrected over the pairs of rows."""
    rows = {each.label: each for each in table.rows}
    known = [(rows[a], rows[b]) for a, b in pairs.values() if a in rows and b in rows]
    columns = [column for column in table.columns if column.name == measure]
    return [c for c in report_cells.compare(known, columns) if c.pairs > 1]


def pairs_of(table: Table) -> dict[str, Pair]:
    """Return the names of the rows of ThalNet and GRU by task and suffix of the name."""
    names = {}
    for each in table.rows:
        task, dash, suffix = each.label.partition("-")
        task = task.removesuffix("_gru").removesuffix("_thalnet")
        both = (f"{task}_{body}{dash}{suffix}" for body in ("thalnet", "gru"))
        names[f"{task}{dash}{suffix}"] = tuple(both)
    return dict(sorted(names.items()))


def paper_table() -> str:
    """Return the results of the paper's recipe beside those that the authors report."""
    lines = header("task", "epochs", "model", "parameters", "seeds", "published, test %", "test %",
                   "worst seed", "train %", "train − test")  # fmt: skip
    table = load_table("poster")
    for name, pair in sorted(pairs_of(table).items(), reverse=True):
        task, _, epochs = name.partition("-")
        for (body, title), run in zip(BODIES.items(), pair, strict=True):
            size, count, test, train, gap = cells(table, run, ("test", "train", "gap"))
            tests = scores(table, run, "test")
            lines.append(row(
                TASKS[task], epochs.removesuffix("epochs"), title, size, count,
                f"{PUBLISHED[task][body]} %", f"**{test}**",
                f"{min(tests):.2f}" if tests else "–", train, gap,
            ))  # fmt: skip
    lines += ["", *comparison_table(table, paper_pairs(table)), "", commands_of("poster", table)]
    return "\n".join(lines)


def commands_of(part: str, table: Table) -> str:
    """Return the commands of the runs of a folder, ThalNets first."""
    records = load_by_seed(RESULTS / part)
    pairs = sorted(pairs_of(table).items(), reverse=True)
    names = [name for _, pair in pairs for name in pair]
    return commands(record for name in names for record in records.get(name, {}).values())


def paper_pairs(table: Table) -> dict[str, Pair]:
    """Return the runs by the paper's recipe that are compared: those with the most epochs."""
    pairs = sorted(pairs_of(table).items(), reverse=True)
    return {name: pair for name, pair in pairs if name.endswith(f"-{EPOCHS}epochs")}


def comparison_table(table: Table, pairs: Mapping[str, Pair]) -> list[str]:
    """Return the comparison of ThalNet and GRU on paired seeds: accuracy and overfitting."""
    lines = header(
        "ThalNet − GRU, points", "test accuracy", "ThalNet is", "train − test", "ThalNet is"
    )
    by_measure = [compare(table, pairs, measure) for measure in ("test", "gap")]
    for both in zip(*by_measure, strict=True):
        texts = (text for c in both for text in (c.difference.format(), verdict(c)))
        lines.append(row(TASKS[task_of(both[0])], *texts))
    return lines


def task_of(comparison: Comparison) -> str:
    """Return the task of the rows that were compared."""
    return comparison.row.label.partition("-")[0].removesuffix("_thalnet")


def mechanism_table() -> str:
    """Return the mean test accuracy of every reading with every module design."""
    table = load_table("mechanisms")
    lines = header("reading", *(f"`{design}`" for design in DESIGNS), "mean")
    for reading in READINGS:
        line, means = [], []
        for design in DESIGNS:
            tests = scores(table, f"{reading}-{design}", "test")
            means += [mean(tests)] if tests else []
            seeds = " · ".join(f"{x:.1f}" for x in tests)
            line.append(f"**{mean(tests):.1f}** ({seeds})" if tests else "–")
        total = f"{mean(means):.1f}" if means else "–"
        lines.append(row(f"`{reading}`", *line, total))
    return "\n".join([*lines, "", commands(load_records(RESULTS / "mechanisms").values())])


def search_table() -> str:
    """Return the three best trials by validation of each task and body."""
    lines = header("task", "body", "trials", "validation %", "test %", "train %", "setting")
    records, shown = load_records(RESULTS / "search"), list[Record]()
    for (task, body), _ in sorted(best_trials().items()):
        trials = {n: r for n, r in records.items() if n.startswith(f"{task}_{body}-")}
        done = {n: r for n, r in trials.items() if "result" in r}
        ranked = sorted(done, key=lambda n: -accuracy(done[n], "validation"))
        number = seed_count(len(trials), len(trials) - len(done))
        for place, name in enumerate(ranked[:3]):
            scores = [
                f"{100 * accuracy(done[name], s):.2f}" for s in ("validation", "test", "train")
            ]
            cells = [TASKS[task] if not place else "", BODIES[body].partition(",")[0]]
            cells += [number if not place else "", *scores, describe(done[name]["command"])]
            shown.append(done[name])
            lines.append(row(*cells))
    return "\n".join([*lines, "", commands(shown)])


def describe(command: str) -> str:
    """Return the flags in which trials differ, abbreviated."""
    words = command.split()[2:]
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    short = {
        key.rpartition(".")[2]: value
        for key, value in flags.items()
        if key.startswith(("--model", "--train")) and key != "--model.body" and value != "0"
    }
    shared = ("seed", "precision", "epochs", "budget")
    short = {key: value for key, value in short.items() if key not in shared}
    modules = [key for key in flags if key.startswith("--modules") and key.endswith("input")]
    if modules:
        ends = [
            f"{sum(v == 'true' for k, v in flags.items() if k.endswith('.' + end))} {end}s"
            for end in ("input", "output")
        ]
        short["modules"] = f"{len(modules)} ({', '.join(ends)})"
    return ", ".join(f"{key} {value}" for key, value in short.items())


def best_table() -> str:
    """Return the results of the best settings with other seeds, as far as they were trained."""
    splits = ("validation", "test", "train")
    lines = header("task", "model", "parameters", "seeds", *(f"{split} %" for split in splits))
    table, selected, shown = load_table("best"), best_trials(), list[Record]()
    for task, body in product(sorted(TASKS), BODIES):
        for name, runs in candidates(task, body).items():
            trial = (name if "-" in name else selected[task, body][0]).partition("-")[2]
            title = f"{BODIES[body].partition(',')[0]}, {trial}"
            lines.append(row(TASKS[task], title, *cells(table, name, splits)))
            shown += runs.values()
    lines += ["", *comparison_table(table, finalists()), "", commands(shown)]
    confirmed = load_table("confirm")
    if confirmed.rows:
        lines += ["", "Confirmation with new seeds, which were not used in any selection:", ""]
        lines += comparison_table(confirmed, pairs_of(confirmed))
        lines += ["", commands_of("confirm", confirmed)]
    return "\n".join(lines)


def finalists() -> dict[str, Pair]:
    """Return for each task the names of the candidates of both bodies that validate best."""
    pairs = {task: (finalist(task, "thalnet"), finalist(task, "gru")) for task in sorted(TASKS)}
    return {task: pair for task, pair in pairs.items() if any(pair)}


def concurrent_table() -> str:
    """Return the scores of equal runs alone on a processor and concurrently on an H100."""
    alone = load_records(RESULTS / "poster") | load_records(RESULTS / "search")
    scores: dict[str, list[tuple[float, float]]] = {}
    for name, record in load_records(RESULTS / "tf32").items():
        if "result" in alone.get(name, {}):
            both = 100 * accuracy(alone[name], "test"), 100 * accuracy(record, "test")
            scores.setdefault(concurrent_group(name, record), []).append(both)
    lines = header("ThalNets, same configuration and seed", "runs",
                   "alone on a processor, test %", "concurrently on an H100, test %")  # fmt: skip
    for name, values in sorted(scores.items()):
        cells = [spread([both[k] for both in values], 1) for k in (0, 1)]
        lines.append(row(name, str(len(values)), *cells))
    return "\n".join(lines)


def concurrent_group(name: str, record: Record) -> str:
    """Return what a concurrent run belongs to, and the backend that computed it."""
    task = TASKS[name.partition("_thalnet")[0]]
    if "-trial" not in name:
        return f"{task}, recipe of the paper, Triton kernel"
    fused = any(f"--model.{x}" in record["command"] for x in ("module gru ", "context 16"))
    return f"{task}, trials of the search, {'`fused` in PyTorch' if fused else 'Triton kernels'}"


def connectivity_tables() -> str:
    """Return the similarity of the networks of the paper's recipe, trained and untrained."""
    runs = load_by_seed(RESULTS / "poster")
    trained = {
        task: [
            record["readings"]
            for record in runs.get(f"{task}_thalnet-{EPOCHS}epochs", {}).values()
            if "readings" in record
        ]
        for task in TASKS
    }
    untrained = json.loads((RESULTS / "initial.json").read_text())
    if not all(trained.values()):
        return "Not measured yet."
    networks = {title: trained[task] for task, title in TASKS.items()}
    readings = reading_tables(networks)
    networks |= {f"{title}, untrained": untrained[task] for task, title in TASKS.items()}
    return f"{similarity_table(networks)}\n\n{readings}"
