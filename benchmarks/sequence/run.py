"""Three tasks of different shapes one after another, in all six orders: what keeps, what learns?

    python -m benchmarks.sequence.run --tune --seeds 0 1 2 3 4 5 6 7 --jobs 2

Seed s takes the tasks in order s mod 6. Every run is one ``thalnet train``; a finished one is not
repeated, an interrupted one goes on where it stopped. Records go to ``results/``, and the table of
the README is made from those files alone (without arguments: only that).
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean

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
from thalnet_mtl.metrics.multitask import delta_m, relative_gain
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
TASKS = {
    "permuted_mnist": "permuted MNIST, %",
    "cifar10_rows": "CIFAR-10, %",
    "text8": "text8, bits",
}
ORDERS = 6
RATES = [{"train.learning_rate": rate} for rate in ("0.001", "0.003", "0.01", "0.03")]
STRENGTHS = [{"strategy.strength": x} for x in ("100", "1000", "10000", "100000")]
METHODS = {  # title and files, each with four trials
    "never": ("all modules from the start, naive", "never"),
    "ewc": ("the same, EWC", "never"),
    "replay": ("the same, replay of 500", "never"),
    "frozen": ("grows, old frozen", "frozen"),
    "shared": ("grows, all learn", "shared"),
    "through": ("grows, old frozen, fed by all", "through"),
}
# What all feed is wide if the first task is: features that stay within the budget, by order.
THINNER = {"through": {2: "31", 3: "31", 4: "30", 5: "30"}}
COMPARED = [("ewc", "never"), ("replay", "never"), ("frozen", "never"), ("shared", "never")]
COMPARED += [("frozen", "ewc"), ("frozen", "replay")]  # what the question asks besides
ADDED = [("through", "frozen"), ("through", "ewc")]  # when all others were known


def settings(name: str) -> list[Flags]:
    """What is tried: rates; of EWC, strengths at the rate that is best without it."""
    own = {"train.strategy": name} if name in ("ewc", "replay") else {}
    if name != "ewc":
        return [own | rate for rate in RATES]
    rates = trials.decided(RESULTS, "never", settings("never"))
    return [own | rate | strength for rate in rates for strength in STRENGTHS]


def command(files: Iterable[str], seed: int, flags: Flags) -> list[str]:
    """Of ``thalnet train``."""
    named = [f"{as_named(HERE)}/{name}.yaml" for name in files]
    return [*named, *trials.words({"train.seed": str(seed)} | dict(flags))]


def tried() -> dict[str, list[str]]:
    """Trials of each method, in the first order, and of every task alone, as far as known."""
    found = {}
    for name, (_, file) in METHODS.items():
        found |= trials.trials(name, settings(name), partial(command, ["recipe", "orders/0", file]))
    for task in TASKS:
        found |= trials.trials(f"single_{task}", RATES, partial(alone, task))
    return found


def alone(task: str, seed: int, flags: Flags) -> list[str]:
    """A net of its own for a task."""
    return command(["recipe", "single"], seed, {"task.name": task} | dict(flags))


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """Every method, and every task alone, by the name of the run."""
    best = {name: chosen(RESULTS, name, settings(name)) for name in METHODS}
    found = {}
    for seed in seeds:
        for name, (_, file) in METHODS.items():
            order = seed % ORDERS
            thin = THINNER.get(name, {}).get(order)
            flags = best[name] | ({"model.features": thin} if thin else {})
            found[f"{name}-seed{seed}"] = command(["recipe", f"orders/{order}", file], seed, flags)
        for task, k in product(TASKS, range(2)):
            rate = best_rates(task)[k]
            name = f"single_{task}_at_{rate['train.learning_rate']}"
            found[f"{name}-seed{seed}"] = alone(task, seed, rate)
    return found


def best_rates(task: str) -> list[Flags]:
    """For a task alone, the better in its trials first."""
    levels = trials.reached(RESULTS, f"single_{task}", RATES)
    return [RATES[k] for k in sorted(levels, key=levels.__getitem__, reverse=True)]


def singles(found: Mapping[str, BySeed], task: str) -> BySeed:
    """The runs of a task alone, at the one of two rates that validates better over all seeds."""
    both = [of for name, of in found.items() if name.startswith(f"single_{task}_at_")]
    done = [{s: r for s, r in of.items() if "result" in r} for of in both]
    levels = [mean(x for r in of.values() for x in trials.levels(r)) if of else 0 for of in done]
    return done[levels.index(max(levels))] if done else {}


def scores_alone(found: Mapping[str, BySeed], seed: int) -> dict[str, float]:
    """S, by task."""
    runs = {task: singles(found, task).get(seed) for task in TASKS}
    return {task: score(run, task) for task, run in runs.items() if run}


def gained(found: Mapping[str, BySeed], name: str) -> dict[int, float]:
    """Δm in percent by seed, where all that it needs has succeeded."""
    gains = {}
    for seed, record in found.get(name, {}).items():
        alone = scores_alone(found, seed)
        if "result" in record and len(alone) == len(TASKS):
            own = [relative_gain(score(record, t), alone[t], metric_of(t)) for t in TASKS]
            gains[seed] = 100 * delta_m(own)
    return gains


def on_the_way(record: Record, alone: Mapping[str, float]) -> dict[str, float]:
    """Forgetting of images, percent points, and of text, bits; transfer R[j, j] − S alike.

    Only what is learned later can be helped by what was before it.
    """
    content, found = record["result"]["continual"], dict[str, float]()
    for name, keys in {"image": ("permuted_mnist", "cifar10_rows"), "text": ("text8",)}.items():
        scale = unit(keys[0])
        forgot = content["measures"]["forgetting"]["values"]
        own = [scale * forgot[task] for task in keys if task in forgot]
        found |= {f"{name} forgetting": mean(own)} if own else {}
        learned = []
        for task in keys:
            stage = next(k for k, tasks in enumerate(content["trained"], 1) if task in tasks)
            reached = content["scores"][stage][list(record["result"]["tasks"]).index(task)]
            sign = 1 if metric_of(task).higher_is_better else -1
            if task in alone and stage > 1:
                learned.append(scale * sign * (reached - alone[task]))
        found |= {f"{name} transfer": mean(learned)} if learned else {}
    return found


def table() -> str:
    """Everything in Markdown: what each method came to, and what that says of it."""
    found = by_seed(RESULTS)
    kinds = ("image forgetting", "text forgetting", "image transfer", "text transfer")
    ways = ("forgetting, images, points", "text, bits", "transfer, images, points", "text, bits")
    lines = head("ThalNet", "parameters", "seeds", *TASKS.values(), "Δm, %", *ways)
    for name, (title, _) in METHODS.items():
        runs = {seed: r for seed, r in found.get(name, {}).items() if "result" in r}
        failed = len(found.get(name, {})) - len(runs)
        if not runs:
            continue
        sizes = [record["result"]["parameters"]["total"] for record in runs.values()]
        size = " to ".join(dict.fromkeys(f"{n:,}" for n in (min(sizes), max(sizes))))
        cells = [title, size, f"{len(runs)}" + (f" ({failed} failed)" if failed else "")]
        cells += [spread([unit(t) * score(r, t) for r in runs.values()]) for t in TASKS]
        cells.append(f"**{spread([*gained(found, name).values()], 1)}**")
        paths = [on_the_way(record, scores_alone(found, seed)) for seed, record in runs.items()]
        cells += [spread([way[kind] for way in paths if kind in way]) for kind in kinds]
        lines.append(row(*cells))
    alone = {task: [score(r, task) for r in singles(found, task).values()] for task in TASKS}
    cells = [spread([unit(task) * x for x in of]) for task, of in alone.items()]
    count = str(min(map(len, alone.values())))
    lines.append(f"| one net for each task | 3 times | {count} | {' | '.join(cells)} | 0 |||||")
    runs = (record for of in found.values() for record in of.values())
    parts = [lines, verdicts(found, COMPARED), verdicts(found, ADDED), [commands(runs)]]
    return "\n\n".join("\n".join(part) for part in parts if part)


def verdicts(found: Mapping[str, BySeed], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Δm of a method less that of another in the same order with the same seed."""
    gains, differences = {name: gained(found, name) for name in METHODS}, dict[str, list[float]]()
    for one, other in pairs:
        seeds = sorted(gains[one].keys() & gains[other].keys())
        if len(seeds) > 1:
            differences[row(METHODS[one][0], METHODS[other][0])] = [
                gains[one][seed] - gains[other][seed] for seed in seeds
            ]
    corrected = holm({pair: sign_flip_test(values) for pair, values in differences.items()})
    lines = head("Δm of", "less Δm of", "points", "verdict")
    for pair, values in differences.items():
        said = verdict(values, corrected[pair], True, len(differences))
        lines.append(pair + row(spread(values, 1), f"**{said.word}**: {said.line}")[1:])
    return lines if differences else []


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="the trials first")
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/sequence"))
    options = parser.parse_args()
    if options.tune:
        for _ in range(2):  # rates first, then what is tried at the rate found
            train_all(tried(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        train_all(jobs(options.seeds), options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), table()))


if __name__ == "__main__":
    main()
