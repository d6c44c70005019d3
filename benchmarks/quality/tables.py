"""The tables of the READMEs, from ``results/`` alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.quality import text
from benchmarks.quality.connectivity import compare, paths
from benchmarks.quality.plans import (
    BODIES,
    DESIGNS,
    EPOCHS,
    READINGS,
    RESULTS,
    TASKS,
    candidates,
    finalist,
    scored,
    winners,
)
from benchmarks.shared import BySeed, Record, by_seed, commands, head, load_records, row, spread
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict

Pair = tuple[BySeed, BySeed]  # of ThalNet and of the GRU

POSTER = {  # what the authors report, test %
    "permuted_mnist": {"thalnet": 92, "gru": 65},
    "cifar10": {"thalnet": 54, "gru": 50},
}


def percents(runs: BySeed, split: str) -> dict[int, float]:
    """Accuracy in percent by seed, of the runs that succeeded."""
    return {seed: 100 * scored(r, split) for seed, r in runs.items() if "result" in r}


def differences(pair: Pair, measure: str = "test") -> list[float]:
    """ThalNet − GRU by seed, where both succeeded; ``gap`` is train − test."""
    ours, theirs = (
        {s: x - percents(runs, "test")[s] for s, x in percents(runs, "train").items()}
        if measure == "gap"
        else percents(runs, measure)
        for runs in pair
    )
    return [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]


def compared(pairs: Mapping[str, Pair], measure: str = "test") -> dict[str, tuple[str, str]]:
    """By task the difference and what it says of ThalNet, corrected over all pairs."""
    found = {name: d for name, pair in pairs.items() if len(d := differences(pair, measure)) > 1}
    corrected = holm({name: sign_flip_test(d) for name, d in found.items()})
    return {
        name: (spread(d), word_of(d, corrected[name], len(found), measure))
        for name, d in found.items()
    }


def word_of(differences: Sequence[float], p: float, comparisons: int, measure: str) -> str:
    said = verdict(differences, p, measure != "gap", comparisons)
    return f"**{said.word}**: {said.line}"


def pairs(folder: str) -> dict[str, Pair]:
    """By task and what else the name says, the runs of both bodies."""
    found = by_seed(RESULTS / folder)
    names = sorted({name.replace("_gru", "").replace("_thalnet", "") for name in found})

    def runs(name: str, body: str) -> BySeed:
        task, dash, more = name.partition("-")
        return found.get(f"{task}_{body}{dash}{more}", {})

    return {name: (runs(name, "thalnet"), runs(name, "gru")) for name in names}


def count(runs: BySeed) -> str:
    """Seeds that succeeded, and those that did not."""
    failed = sum("failed" in record for record in runs.values())
    return f"{len(runs) - failed}" + (f" ({failed} failed)" if failed else "")


def size(runs: BySeed) -> str:
    sizes = {r["result"]["parameters"]["total"] for r in runs.values() if "result" in r}
    return " / ".join(f"{n:,}" for n in sorted(sizes)) or "–"


def poster() -> str:
    """As we recall the paper, against what the poster reports."""
    lines = head("task", "epochs", "model", "parameters", "seeds", "poster", "test %",
                 "worst seed", "train %", "train − test")  # fmt: skip
    found = dict(sorted(pairs("poster").items(), reverse=True))
    for name, pair in found.items():
        task, _, epochs = name.partition("-")
        for (body, title), runs in zip(BODIES.items(), pair, strict=True):
            tests, trains = percents(runs, "test"), percents(runs, "train")
            gaps = [trains[seed] - tests[seed] for seed in tests]
            cells = [TASKS[task], epochs.removesuffix("epochs"), title, size(runs), count(runs)]
            cells += [f"{POSTER[task][body]} %", f"**{spread([*tests.values()])}**"]
            cells += [f"{min(tests.values()):.2f}" if tests else "–"]
            cells += [spread([*trains.values()]), spread(gaps)]
            lines.append(row(*cells))
    lines += ["", *comparison(longest()), "", commands(every(found))]
    return "\n".join(lines)


def every(found: Mapping[str, Pair]) -> Iterator[Record]:
    """The records of all."""
    return (record for pair in found.values() for runs in pair for record in runs.values())


def comparison(found: Mapping[str, Pair]) -> list[str]:
    """ThalNet against the GRU of the same seed: test accuracy, and what it overfits."""
    lines = head(
        "ThalNet − GRU, points", "test accuracy", "ThalNet is", "train − test", "ThalNet is"
    )
    tests, gaps = compared(found), compared(found, "gap")
    for name in tests:
        cells = [TASKS[name.partition("-")[0]], *tests[name], *gaps[name]]
        lines.append(row(*cells))
    return lines


def mechanisms() -> str:
    """Mean test accuracy of readings by designs."""
    found = by_seed(RESULTS / "mechanisms")
    lines = head("reading", *(f"`{design}`" for design in DESIGNS), "mean")
    for reading in READINGS:
        cells, means = [], []
        for design in DESIGNS:
            tests = [*percents(found.get(f"{reading}-{design}", {}), "test").values()]
            means += [mean(tests)] if tests else []
            each = " · ".join(f"{x:.1f}" for x in tests)
            cells.append(f"**{mean(tests):.1f}** ({each})" if tests else "–")
        total = f"{mean(means):.1f}" if means else "–"
        lines.append(row(f"`{reading}`", *cells, total))
    runs = (record for of in found.values() for record in of.values())
    return "\n".join([*lines, "", commands(runs)])


def search() -> str:
    """The best trials by validation, and how many there were."""
    lines = head("task", "body", "trials", "validation %", "test %", "train %", "what it is")
    records, shown = load_records(RESULTS / "search"), list[Record]()
    for (task, body), _ in sorted(winners().items()):
        own = {n: r for n, r in records.items() if n.startswith(f"{task}_{body}-")}
        done = {n: r for n, r in own.items() if "result" in r}
        ranked = sorted(done, key=lambda n: -scored(done[n], "validation"))
        failed = len(own) - len(done)
        trials = f"{len(own)}" + (f" ({failed} failed)" if failed else "")
        for place, name in enumerate(ranked[:3]):
            scores = [f"{100 * scored(done[name], s):.2f}" for s in ("validation", "test", "train")]
            cells = [TASKS[task] if not place else "", BODIES[body].partition(",")[0]]
            cells += [trials if not place else "", *scores, about(done[name]["command"])]
            shown.append(done[name])
            lines.append(row(*cells))
    return "\n".join([*lines, "", commands(shown)])


def about(command: str) -> str:
    """The flags of a trial that differ from trial to trial, in short."""
    words = command.split()[2:]
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    own = {
        key.rpartition(".")[2]: value
        for key, value in flags.items()
        if key.startswith(("--model", "--train")) and key != "--model.body" and value != "0"
    }
    own = {k: v for k, v in own.items() if k not in ("seed", "precision", "epochs", "budget")}
    modules = [key for key in flags if key.startswith("--modules") and key.endswith("input")]
    if modules:
        ends = [
            f"{sum(v == 'true' for k, v in flags.items() if k.endswith('.' + end))} {end}s"
            for end in ("input", "output")
        ]
        own["modules"] = f"{len(modules)} ({', '.join(ends)})"
    return ", ".join(f"{key} {value}" for key, value in own.items())


def best() -> str:
    """The chosen ones with other seeds, if they have been trained."""
    lines = head("task", "model", "parameters", "seeds", "validation %", "test %", "train %")
    found = {(task, body): candidates(task, body) for task in sorted(TASKS) for body in BODIES}
    shown, splits, chosen = list[Record](), ("validation", "test", "train"), winners()
    for (task, body), each in found.items():
        for name, runs in each.items():
            scores = (spread([*percents(runs, split).values()]) for split in splits)
            trial = (name if "-" in name else chosen[task, body][0]).partition("-")[2]
            title = f"{BODIES[body].partition(',')[0]}, {trial}"
            lines.append(row(TASKS[task], title, size(runs), count(runs), *scores))
            shown += runs.values()
    lines += ["", *comparison(finalists()), "", commands(shown)]
    if again := pairs("confirm"):
        lines += ["", "Once more, with seeds that have chosen nothing:", "", *comparison(again)]
        lines += ["", commands(every(again))]
    return "\n".join(lines)


def finalists() -> dict[str, Pair]:
    """The candidates of both bodies whose seeds validate best."""

    def first(task: str, body: str) -> BySeed:
        return candidates(task, body).get(finalist(task, body), {})

    found = {task: (first(task, "thalnet"), first(task, "gru")) for task in sorted(TASKS)}
    return {task: pair for task, pair in found.items() if any(pair)}


def tf32() -> str:
    """The same runs on a processor and, in tf32, side by side on an H100."""
    here = load_records(RESULTS / "poster") | load_records(RESULTS / "search")
    found: dict[str, list[tuple[float, float]]] = {}
    for name, record in load_records(RESULTS / "tf32").items():
        if "result" in here.get(name, {}):
            both = 100 * scored(here[name], "test"), 100 * scored(record, "test")
            found.setdefault(kind(name, record), []).append(both)
    lines = head("ThalNets, same configuration and seed", "runs", "alone on a processor, test %",
                 "side by side on an H100, test %")  # fmt: skip
    for name, values in sorted(found.items()):
        cells = [spread([both[k] for both in values], 1) for k in (0, 1)]
        lines.append(row(name, str(len(values)), *cells))
    return "\n".join(lines)


def kind(name: str, record: Record) -> str:
    """What a run in tf32 belongs to, and which level of ``ops`` computed it."""
    task = TASKS[name.partition("_thalnet")[0]]
    if "-trial" not in name:
        return f"{task}, as we recall the paper, Triton kernel"
    apart = any(f"--model.{x}" in record["command"] for x in ("module gru ", "context 16"))
    return f"{task}, trials, {'node in PyTorch' if apart else 'Triton kernels'}"


def connectivity() -> str:
    """Similarity of the nets of the poster's runs, and of what they began as."""
    trained = {
        task: [
            record["readings"]
            for record in by_seed(RESULTS / "poster")
            .get(f"{task}_thalnet-{EPOCHS}epochs", {})
            .values()
            if "readings" in record
        ]
        for task in TASKS
    }
    started = json.loads((RESULTS / "initial.json").read_text())
    if not all(trained.values()):
        return "Not measured yet."
    nets = {title: trained[task] for task, title in TASKS.items()}
    wired = paths(nets)
    nets |= {f"{title}, untrained": started[task] for task, title in TASKS.items()}
    return f"{compare(nets)}\n\n{wired}"


def longest() -> dict[str, Pair]:
    """The poster's runs that are compared."""
    found = dict(sorted(pairs("poster").items(), reverse=True))
    return {name: pair for name, pair in found.items() if name.endswith(f"-{EPOCHS}epochs")}


def report() -> str:
    """All tables of this benchmark."""
    parts = {
        "As we recall the paper": poster(),
        "Which mechanism works": mechanisms(),
        "The search for the best of each": search() + "\n\n" + best(),
        "Text, 1 M parameters": text.small(),
        "Text, 12 and 14 M parameters": text.large(),
        "Similar connectivity": connectivity(),
        "Runs side by side that failed": tf32(),
    }
    return "\n\n".join(f"### {title}\n\n{part}" for title, part in parts.items())
