"""Tables of the attach benchmark, made from the records of its runs."""

from collections.abc import Iterator, Mapping
from statistics import mean

from benchmarks.attach.experiments import ARMS, RESULTS, TASKS, orders
from benchmarks.markdown import commands, header, row, spread
from benchmarks.records import Record, RunsBySeed, load_by_seed
from thalnet_mtl.metrics.significance import sign_flip_test, verdict

TARGET = 0.9  # of the score of a single-task network
Scores = dict[tuple[str, str], float]  # by the first task and the later one


def steps_needed(record: Record, task: str, target: float) -> int:
    """Return the steps from the start of a task to the target, or all if it is never reached."""
    content = record["result"]["continual"]
    number = next(k for k, tasks in enumerate(content["trained"]) if task in tasks)
    start, end = (content["ends"][k] for k in (number - 1, number))
    curve = record["curves"][task]
    pairs = zip(curve["validation_step"], curve["validation_accuracy"], strict=True)
    reached = [step for step, score in pairs if start < step <= end and score >= target]
    return min(reached, default=end) - start


def scores_by_seed(
    runs: Mapping[str, RunsBySeed], arm: str
) -> Iterator[tuple[int, Scores, Scores]]:
    """Yield seed, steps needed and final score relative to S, of the seeds that are complete."""
    for seed in range(100):
        singles = {task: runs.get(f"single_{task}", {}).get(seed, {}) for task in TASKS}
        records = {first: runs.get(f"{arm}_{first}", {}).get(seed, {}) for first in TASKS}
        if not all("result" in record for record in [*singles.values(), *records.values()]):
            continue
        steps, ratios = Scores(), Scores()
        for first, *later in orders():
            for task in later:
                single, record = singles[task]["result"], records[first]
                s = single["tasks"][task]["validation"]["accuracy"]
                steps[first, task] = steps_needed(record, task, TARGET * s)
                final = record["result"]["tasks"][task]["validation"]["accuracy"]
                ratios[first, task] = final / s
        yield seed, steps, ratios


def report() -> str:
    """Return all tables in Markdown: steps by arm and pair of tasks, then the comparisons."""
    runs = load_by_seed(RESULTS)
    by_arm = {
        arm: {seed: (steps, ratios) for seed, steps, ratios in scores_by_seed(runs, arm)}
        for arm in ARMS
    }
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in by_arm.values())))
    if not seeds:
        return "No seed is complete yet."
    steps = {arm: [by_arm[arm][seed][0] for seed in seeds] for arm in ARMS}
    ratios = {arm: [by_arm[arm][seed][1] for seed in seeds] for arm in ARMS}
    lines = header("first → later task", *(f"steps: {title}" for title in ARMS.values()),
                   *(f"% of S at the end: {arm}" for arm in ARMS))  # fmt: skip
    for pair in [(first, task) for first, *later in orders() for task in later]:
        cells = [spread([scores[pair] for scores in steps[arm]], 0) for arm in ARMS]
        cells += [spread([100 * scores[pair] for scores in ratios[arm]], 1) for arm in ARMS]
        lines.append(row(" → ".join(pair), *cells))
    mean_steps = {arm: [mean(scores.values()) for scores in steps[arm]] for arm in ARMS}
    mean_ratios = {arm: [100 * mean(scores.values()) for scores in ratios[arm]] for arm in ARMS}
    cells = [spread(mean_steps[arm], 0) for arm in ARMS]
    cells += [spread(mean_ratios[arm], 1) for arm in ARMS]
    lines += [row("**mean over all pairs**", *cells), "", *comparison_table(mean_steps)]
    records = (record for by_seed in runs.values() for record in by_seed.values())
    return "\n".join([*lines, "", commands(records)])


def comparison_table(steps: Mapping[str, list[float]]) -> list[str]:
    """Return the comparisons of the trained center with the other arms; one is tested."""
    differences = {
        arm: [a - b for a, b in zip(steps["trained"], steps[arm], strict=True)]
        for arm in ("untrained", "cut")
    }
    p = sign_flip_test(differences["untrained"])
    result = verdict(differences["untrained"], p, higher_is_better=False, comparisons=1)
    words = {"untrained": f"{result.word}: {result.line}", "cut": "not tested"}
    lines = header(
        "trained center compared with", f"steps, {len(steps['trained'])} seeds", "verdict"
    )
    lines += [row(ARMS[arm], spread(d, 0), words[arm]) for arm, d in differences.items()]
    return lines
