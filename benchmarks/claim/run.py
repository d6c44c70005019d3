"""Three tasks, each alone and all jointly, with a ThalNet and with a GRU of equal size.

    python -m benchmarks.claim.run --tune --seeds 0 1 2 3 4 5 6 7 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
goes on where it stopped. Results go to ``results/`` as they come, one JSON file a run, and the
tables of the README are made from those files alone (without arguments: only that).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks import trials
from benchmarks.shared import (
    BySeed,
    Record,
    as_named,
    by_seed,
    commands,
    head,
    row,
    spread,
    train_all,
    with_table,
)
from benchmarks.trials import Flags, chosen, metric_of, score, unit
from thalnet_mtl.evaluate import lesions
from thalnet_mtl.metrics import delta_m, relative_gain
from thalnet_mtl.statistics import holm, sign_flip_test, verdict
from thalnet_mtl.trained import load_run

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
TASKS = {
    "permuted_mnist": "permuted MNIST, %",
    "cifar10_rows": "CIFAR-10 by rows, %",
    "text8": "text8, first 74 MB, bits",
}
BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
JOINT = {"thalnet": "joint/three_tasks", "gru": "joint/three_tasks_gru"}

# How a network is trained, each way with four trials; all but rates at the rate found before.
WAYS = {
    "alone": "one each, a third",
    "weighted": "jointly, fixed weights",
    "aggregated": "jointly, an aggregator",
}
RATES = [{"train.learning_rate": rate} for rate in ("0.0015", "0.003", "0.006", "0.012")]
JOINT_RATES = RATES[1:3]
WEIGHTS = [{f"tasks.{task}.weight": "3"} for task in ("cifar10_rows", "text8")]
AGGREGATORS = [{"train.combine": name} for name in ("upgrad", "pcgrad", "mgda", "aligned_mtl")]
COMPARED = [  # Δm of the first less Δm of the second; of networks for one task each it is 0
    (("thalnet", "weighted"), ("thalnet", "alone")),
    (("gru", "weighted"), ("gru", "alone")),
    (("thalnet", "aggregated"), ("thalnet", "weighted")),
    (("gru", "aggregated"), ("gru", "weighted")),
    (("thalnet", "weighted"), ("gru", "weighted")),
]


def names(body: str, way: str) -> dict[str, str]:
    """By task, what its run is called; one run has all tasks where they are trained jointly."""
    return {t: f"alone_{t}_{body}" if way == "alone" else f"{way}_{body}" for t in TASKS}


def command(body: str, way: str, task: str, seed: int, flags: Flags) -> list[str]:
    """Of ``thalnet train``; jointly the task does not matter."""
    recipe, last = f"{as_named(HERE)}/recipe.yaml", {"train.seed": str(seed)} | dict(flags)
    if way != "alone":
        return [JOINT[body], recipe, *trials.words(last)]
    own = {"task.name": task, "model.budget": "50000"}
    return [recipe, f"{as_named(HERE)}/{body}.yaml", *trials.words(own | last)]


def settings(body: str, way: str) -> list[Flags]:
    """What is tried; what depends on a rate only once the trials of joint rates are there."""
    if way == "alone":
        return RATES
    first = trials.reached(RESULTS, f"weighted_{body}", JOINT_RATES)
    rate = [chosen(RESULTS, f"weighted_{body}", JOINT_RATES)] if first else []
    if way == "weighted":
        return [*JOINT_RATES, *(one | more for one in rate for more in WEIGHTS)]
    return [one | more for one in rate for more in AGGREGATORS]


def tried() -> dict[str, list[str]]:
    """Trials of every network in every way, as far as they are known."""
    found = {}
    for body, way in product(BODIES, WAYS):
        for task, name in names(body, way).items():
            found |= trials.trials(name, settings(body, way), partial(command, body, way, task))
    return found


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """All commands by the name of their run, as its trials chose."""
    every = [(*pair, *item) for pair in product(BODIES, WAYS) for item in names(*pair).items()]
    best = {name: chosen(RESULTS, name, settings(body, way)) for body, way, _, name in every}
    return {
        f"{name}-seed{seed}": command(body, way, task, seed, best[name])
        for seed in seeds
        for body, way, task, name in every
    }


def add_lesions(runs: Path) -> None:
    """To the record of every joint ThalNet whose run is there: the scores without each module."""
    for path in RESULTS.glob("*ed_thalnet-seed*.json"):
        record, folder = json.loads(path.read_text()), runs / path.stem
        if "result" not in record or "lesions" in record or not folder.exists():
            continue
        run, found = load_run(folder), dict[str, dict[str, float]]()
        look, chunk = run.config.evaluate, run.config.train.chunk
        for name, task in run.tasks.items():
            data = task.to("cpu"), "test", look.batch, chunk, look.batches
            for module, values in lesions(run.network, *data).items():
                found.setdefault(module, {})[name] = values[task.metric.name]
        path.write_text(json.dumps(record | {"lesions": found}, indent=1) + "\n")


def done(found: Mapping[str, BySeed], body: str, way: str) -> dict[int, dict[str, Record]]:
    """By seed, then by task, the runs; of seeds of which all succeeded."""
    own = {task: found.get(name, {}) for task, name in names(body, way).items()}
    seeds = sorted(set.intersection(*(set(runs) for runs in own.values())))
    by = {seed: {task: own[task][seed] for task in TASKS} for seed in seeds}
    return {seed: runs for seed, runs in by.items() if all("result" in r for r in runs.values())}


def gains(found: Mapping[str, BySeed], body: str, way: str) -> dict[int, dict[str, float]]:
    """±(R − S) / S in percent, by seed, then by task; S is of the networks for one task each."""
    own, alone = done(found, body, way), done(found, body, "alone")
    return {
        seed: {
            t: 100 * relative_gain(score(own[seed][t], t), score(alone[seed][t], t), metric_of(t))
            for t in TASKS
        }
        for seed in own
        if seed in alone
    }


def report() -> str:
    """All results in Markdown: scores, what was gained, verdicts, lesions, and what was tried."""
    found, before = by_seed(RESULTS), by_seed(RESULTS / "untuned")
    parts = [scores(found), changes(found), verdicts(found), silenced(found), choices()]
    runs = [record for of in found.values() for record in of.values()]
    parts += [[commands(runs)]] if runs else []
    parts += [["Twice as long, a GRU of 4 layers, nothing tuned:"], scores(before), changes(before)]
    return "\n\n".join("\n".join(part) for part in parts if len(part) != len(head()))


def scores(found: Mapping[str, BySeed]) -> list[str]:
    """Test scores of every network in every way."""
    lines = head("network", "trained on", "parameters", "seeds", *TASKS.values())
    for (body, title), (way, words) in product(BODIES.items(), WAYS.items()):
        runs = done(found, body, way)
        if not runs:
            continue
        one = next(iter(runs.values()))
        sizes = {r["command"]: r["result"]["parameters"]["total"] for r in one.values()}
        own = {name: found[name] for name in names(body, way).values()}
        failed = sum("failed" in record for of in own.values() for record in of.values())
        count = f"{len(runs)}" + (f" ({failed} failed)" if failed else "")
        cells = [
            spread([unit(t) * score(r[t], t) for r in runs.values()], digits(t)) for t in TASKS
        ]
        lines.append(row(title, words, f"{sum(sizes.values()):,}", count, *cells))
    return lines


def digits(task: str) -> int:
    return 2 if metric_of(task).higher_is_better else 3


def changes(found: Mapping[str, BySeed]) -> list[str]:
    """What joint training gained, by task and as Δm."""
    lines = head("network", "against one each", "seeds", *map(short, TASKS), "Δm, %")
    for (body, title), (way, words) in product(BODIES.items(), WAYS.items()):
        own = gains(found, body, way)
        if way != "alone" and own:
            cells = [spread([gain[task] for gain in own.values()]) for task in TASKS]
            mean = spread([delta_m([*gain.values()]) for gain in own.values()])
            lines.append(row(title, words, str(len(own)), *cells, f"**{mean}**"))
    return lines


def short(task: str) -> str:
    return TASKS[task].partition(",")[0]


def verdicts(found: Mapping[str, BySeed]) -> list[str]:
    """Every comparison, of the same seeds, corrected for all of them."""
    by_way = {
        (body, way): {seed: delta_m([*g.values()]) for seed, g in gains(found, body, way).items()}
        for body, way in product(BODIES, WAYS)
    }
    differences = {}
    for ours, theirs in COMPARED:
        a, b = by_way[ours], by_way[theirs]
        if paired := [a[seed] - b[seed] for seed in sorted(a) if seed in b]:
            differences[ours, theirs] = paired
    corrected = holm({str(pair): sign_flip_test(of) for pair, of in differences.items()})
    lines = head("Δm of", "less Δm of", "points", "verdict")
    for pair, values in differences.items():
        said = verdict(values, corrected[str(pair)], True, len(differences))
        cells = (f"{BODIES[body]}, {WAYS[way]}" for body, way in pair)
        lines.append(row(*cells, spread(values), f"**{said.word}**: {said.line}"))
    return lines


def silenced(found: Mapping[str, BySeed]) -> list[str]:
    """What each task loses without each module of the joint ThalNets."""
    runs = [r for r in found.get("weighted_thalnet", {}).values() if "lesions" in r]
    lines = head(f"silent module, {len(runs)} seeds", *(f"{short(t)} loses" for t in TASKS))
    for module in runs[0]["lesions"] if runs else ():
        cells = [
            spread([lost(r, module, task) for r in runs], digits(task))
            if task in runs[0]["lesions"][module]
            else ""
            for task in TASKS
        ]
        lines.append(row(module, *cells))
    return lines


def lost(record: Record, module: str, task: str) -> float:
    """Percent points or bits; above 0 is a loss in either."""
    sign = 1 if metric_of(task).higher_is_better else -1
    return unit(task) * sign * (score(record, task) - record["lesions"][module][task])


def choices() -> list[str]:
    """What the trials chose."""
    lines = head("network", "trained on", "chosen, of four trials each")
    for (body, title), (way, words) in product(BODIES.items(), WAYS.items()):
        own, given = {name: short(t) for t, name in names(body, way).items()}, settings(body, way)
        if not all(trials.reached(RESULTS, name, given) for name in own):
            continue
        said = {name: " ".join(trials.words(chosen(RESULTS, name, given))) for name in own}
        text = (f"{own[name]} `{w}`" if len(own) > 1 else f"`{w}`" for name, w in said.items())
        lines.append(row(title, words, "; ".join(text)))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="the trials first")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/claim"))
    options = parser.parse_args()
    if options.tune:
        for _ in range(2):  # rates first, then what is tried at the rate found
            train_all(tried(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        train_all(jobs(options.seeds), options.runs, RESULTS, options.jobs)
        add_lesions(options.runs)
    README.write_text(with_table(README.read_text(), report()))


if __name__ == "__main__":
    main()
