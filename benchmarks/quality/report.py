"""Tables of the quality benchmark, made from the records of its runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.markdown import commands, header, row, spread
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
from benchmarks.records import (
    Record,
    RunsBySeed,
    load_by_seed,
    load_records,
    seed_count,
    succeeded,
)
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict

Pair = tuple[RunsBySeed, RunsBySeed]  # ThalNet and GRU

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


def percents(runs: RunsBySeed, split: str) -> dict[int, float]:
    """Return the accuracy in percent by seed of the runs that succeeded."""
    return {seed: 100 * accuracy(record, split) for seed, record in succeeded(runs).items()}


def differences(pair: Pair, measure: str = "test") -> list[float]:
    """Return ThalNet − GRU by seed where both succeeded; measure ``gap`` is train − test."""
    ours, theirs = (
        {s: x - percents(runs, "test")[s] for s, x in percents(runs, "train").items()}
        if measure == "gap"
        else percents(runs, measure)
        for runs in pair
    )
    return [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]


def compare(pairs: Mapping[str, Pair], measure: str = "test") -> dict[str, tuple[str, str]]:
    """Return difference and verdict by task, Holm-corrected over all pairs."""
    values = {name: d for name, pair in pairs.items() if len(d := differences(pair, measure)) > 1}
    corrected = holm({name: sign_flip_test(d) for name, d in values.items()})
    return {
        name: (spread(d), verdict_text(d, corrected[name], len(values), measure))
        for name, d in values.items()
    }


def verdict_text(differences: Sequence[float], p: float, comparisons: int, measure: str) -> str:
    """Return the verdict on ThalNet and the reason for it."""
    result = verdict(differences, p, measure != "gap", comparisons)
    return f"**{result.word}**: {result.line}"


def load_pairs(folder: str) -> dict[str, Pair]:
    """Return the runs of both bodies by task and suffix of the run name."""
    records = load_by_seed(RESULTS / folder)
    names = sorted({name.replace("_gru", "").replace("_thalnet", "") for name in records})

    def runs(name: str, body: str) -> RunsBySeed:
        task, dash, suffix = name.partition("-")
        return records.get(f"{task}_{body}{dash}{suffix}", {})

    return {name: (runs(name, "thalnet"), runs(name, "gru")) for name in names}


def count(runs: RunsBySeed) -> str:
    """Return the number of seeds that succeeded, and of those that failed."""
    return seed_count(len(succeeded(runs)), sum("failed" in r for r in runs.values()))


def size(runs: RunsBySeed) -> str:
    """Return the number of parameters."""
    sizes = {r["result"]["parameters"]["total"] for r in succeeded(runs).values()}
    return " / ".join(f"{n:,}" for n in sorted(sizes)) or "–"


def paper_table() -> str:
    """Return the results of the paper's recipe beside those that the authors report."""
    lines = header("task", "epochs", "model", "parameters", "seeds", "published, test %", "test %",
                   "worst seed", "train %", "train − test")  # fmt: skip
    pairs = dict(sorted(load_pairs("poster").items(), reverse=True))
    for name, pair in pairs.items():
        task, _, epochs = name.partition("-")
        for (body, title), runs in zip(BODIES.items(), pair, strict=True):
            tests, trains = percents(runs, "test"), percents(runs, "train")
            gaps = [trains[seed] - tests[seed] for seed in tests]
            cells = [TASKS[task], epochs.removesuffix("epochs"), title, size(runs), count(runs)]
            cells += [f"{PUBLISHED[task][body]} %", f"**{spread([*tests.values()])}**"]
            cells += [f"{min(tests.values()):.2f}" if tests else "–"]
            cells += [spread([*trains.values()]), spread(gaps)]
            lines.append(row(*cells))
    lines += ["", *comparison_table(paper_pairs()), "", commands(all_records(pairs))]
    return "\n".join(lines)


def paper_pairs() -> dict[str, Pair]:
    """Return the runs by the paper's recipe that are compared: those with the most epochs."""
    pairs = dict(sorted(load_pairs("poster").items(), reverse=True))
    return {name: pair for name, pair in pairs.items() if name.endswith(f"-{EPOCHS}epochs")}


def all_records(pairs: Mapping[str, Pair]) -> Iterator[Record]:
    """Return the records of all pairs."""
    return (record for pair in pairs.values() for runs in pair for record in runs.values())


def comparison_table(pairs: Mapping[str, Pair]) -> list[str]:
    """Return the comparison of ThalNet and GRU on paired seeds: accuracy and overfitting."""
    lines = header(
        "ThalNet − GRU, points", "test accuracy", "ThalNet is", "train − test", "ThalNet is"
    )
    tests, gaps = compare(pairs), compare(pairs, "gap")
    for name in tests:
        lines.append(row(TASKS[name.partition("-")[0]], *tests[name], *gaps[name]))
    return lines


def mechanism_table() -> str:
    """Return the mean test accuracy of every reading with every module design."""
    runs = load_by_seed(RESULTS / "mechanisms")
    lines = header("reading", *(f"`{design}`" for design in DESIGNS), "mean")
    for reading in READINGS:
        cells, means = [], []
        for design in DESIGNS:
            tests = [*percents(runs.get(f"{reading}-{design}", {}), "test").values()]
            means += [mean(tests)] if tests else []
            seeds = " · ".join(f"{x:.1f}" for x in tests)
            cells.append(f"**{mean(tests):.1f}** ({seeds})" if tests else "–")
        total = f"{mean(means):.1f}" if means else "–"
        lines.append(row(f"`{reading}`", *cells, total))
    records = (record for by_seed in runs.values() for record in by_seed.values())
    return "\n".join([*lines, "", commands(records)])


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
    lines = header("task", "model", "parameters", "seeds", "validation %", "test %", "train %")
    settings = {(task, body): candidates(task, body) for task in sorted(TASKS) for body in BODIES}
    shown, splits, selected = list[Record](), ("validation", "test", "train"), best_trials()
    for (task, body), by_name in settings.items():
        for name, runs in by_name.items():
            scores = (spread([*percents(runs, split).values()]) for split in splits)
            trial = (name if "-" in name else selected[task, body][0]).partition("-")[2]
            title = f"{BODIES[body].partition(',')[0]}, {trial}"
            lines.append(row(TASKS[task], title, size(runs), count(runs), *scores))
            shown += runs.values()
    lines += ["", *comparison_table(finalists()), "", commands(shown)]
    if confirmed := load_pairs("confirm"):
        lines += ["", "Confirmation with new seeds, which were not used in any selection:", ""]
        lines += [*comparison_table(confirmed), "", commands(all_records(confirmed))]
    return "\n".join(lines)


def finalists() -> dict[str, Pair]:
    """Return for each task the candidates of both bodies whose seeds validate best."""

    def runs(task: str, body: str) -> RunsBySeed:
        return candidates(task, body).get(finalist(task, body), {})

    pairs = {task: (runs(task, "thalnet"), runs(task, "gru")) for task in sorted(TASKS)}
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
