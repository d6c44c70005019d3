"""Does a task learn faster beside a center that another task has trained?

    python -m benchmarks.attach.run --seeds 0 1 2 3 4 5 --jobs 2

A first task trains a ThalNet, which is frozen. Two others follow, each with a module of its own
that reads the frozen center. In one arm that center was trained, in the other it is as it was
drawn: as many new parameters, the same places to read. In a third the new module reads only
itself. Asked is how many steps it takes to nine tenths of what a network for that task alone
reaches, on validation; a task that never does counts as all of its steps.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.shared import Record, as_named, by_seed, commands, spread, train_all, with_table
from thalnet_mtl.metrics.significance import sign_flip_test, verdict

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
TASKS = ("permuted_mnist", "cifar10_rows", "mnist_rows")
STEPS = 1000  # of a task
PART = 0.9
ARMS = {
    "trained": "a center that the first task trained",
    "untrained": "a center as it was drawn",
    "cut": "no center, the module reads itself",
}
Scores = dict[tuple[str, str], float]  # by the first task and the later one


def orders() -> list[tuple[str, ...]]:
    """Each task once as the first."""
    return [TASKS[k:] + TASKS[:k] for k in range(len(TASKS))]


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """All commands by the name of their run."""
    found = {}
    for seed in seeds:
        last = ["--train.seed", str(seed)]
        for first, *_ in orders():
            for arm in ARMS:
                names = ["recipe", f"{'drawn' if arm == 'untrained' else 'first'}_{first}"]
                names += ["cut"] * (arm == "cut")
                files = [f"{as_named(HERE)}/{name}.yaml" for name in names]
                found[f"{arm}_{first}-seed{seed}"] = [*files, *last]
        for task in TASKS:
            alone = [
                f"{as_named(HERE)}/recipe.yaml",
                "--task.name",
                task,
                "--train.steps",
                str(STEPS),
            ]
            found[f"single_{task}-seed{seed}"] = [*alone, "--growth.when", "never", *last]
    return found


def record(name: str, seed: int) -> Record | None:
    """That of a run which succeeded."""
    path = RESULTS / f"{name}-seed{seed}.json"
    content: Record = json.loads(path.read_text()) if path.exists() else {}
    return content if "result" in content else None


def steps_needed(run: Record, task: str, target: float) -> int:
    """Steps since a task began until it reaches the target; all of them if it never does."""
    stages = run["result"]["continual"]
    number = next(k for k, tasks in enumerate(stages["trained"]) if task in tasks)
    begin, end = (stages["ends"][k] for k in (number - 1, number))
    curve = run["curves"][task]
    pairs = zip(curve["validation_step"], curve["validation_accuracy"], strict=True)
    reached = [step for step, score in pairs if begin < step <= end and score >= target]
    return min(reached, default=end) - begin


def seeds_of(arm: str) -> Iterator[tuple[int, Scores, Scores]]:
    """By seed, of which everything is there: steps needed, and last scores as parts of S."""
    for seed in range(100):
        singles = {task: record(f"single_{task}", seed) for task in TASKS}
        runs = {first: record(f"{arm}_{first}", seed) for first in TASKS}
        if not all([*singles.values(), *runs.values()]):
            continue
        steps, parts = Scores(), Scores()
        for first, *later in orders():
            for task in later:
                one, run = singles[task], runs[first]
                assert one and run
                alone = one["result"]["tasks"][task]["validation"]["accuracy"]
                steps[first, task] = steps_needed(run, task, PART * alone)
                parts[first, task] = run["result"]["tasks"][task]["validation"]["accuracy"] / alone
        yield seed, steps, parts


def table() -> str:
    """All in Markdown: steps by arm and pair of tasks, then arms against each other."""
    found = {arm: {seed: rest for seed, *rest in seeds_of(arm)} for arm in ARMS}
    seeds = sorted(set.intersection(*(set(of) for of in found.values())))
    if not seeds:
        return "No seed is complete yet."
    pairs = [(first, task) for first, *later in orders() for task in later]
    head = ["first → later task", *(f"steps: {words}" for words in ARMS.values()),
            *(f"% of S in the end: {arm}" for arm in ARMS)]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for pair in pairs:
        cells = [" → ".join(pair)]
        cells += [spread([found[arm][seed][0][pair] for seed in seeds], 0) for arm in ARMS]
        cells += [spread([100 * found[arm][seed][1][pair] for seed in seeds], 1) for arm in ARMS]
        lines.append(f"| {' | '.join(cells)} |")
    means = {arm: [mean(found[arm][seed][0].values()) for seed in seeds] for arm in ARMS}
    parts = {arm: [100 * mean(found[arm][seed][1].values()) for seed in seeds] for arm in ARMS}
    cells = [spread(means[arm], 0) for arm in ARMS] + [spread(parts[arm], 1) for arm in ARMS]
    lines.append(f"| **mean of all** | {' | '.join(cells)} |")
    differences = {
        arm: [a - b for a, b in zip(means["trained"], means[arm], strict=True)]
        for arm in ("untrained", "cut")
    }
    said = verdict(
        differences["untrained"],
        sign_flip_test(differences["untrained"]),
        higher_is_better=False,
        comparisons=1,
    )
    lines += ["", f"| trained against | steps, {len(seeds)} seeds | verdict |", "|---|---|---|"]
    cells = {arm: spread(values, 0) for arm, values in differences.items()}
    lines.append(f"| {ARMS['untrained']} | {cells['untrained']} | {said.word}: {said.line} |")
    lines.append(f"| {ARMS['cut']} | {cells['cut']} | not tested |")
    runs = (record for of in by_seed(RESULTS).values() for record in of.values())
    return "\n".join([*lines, "", commands(runs)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: table only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/attach"))
    options = parser.parse_args()
    todo = {
        name: job
        for name, job in jobs(options.seeds).items()
        if record(name.partition("-seed")[0], int(name.rpartition("-seed")[2])) is None
    }
    train_all(todo, options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), table()))


if __name__ == "__main__":
    main()
