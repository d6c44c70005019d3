"""The tables of the claim, from the records of its runs."""

from collections.abc import Mapping, Sequence

from benchmarks import trials
from benchmarks.claim.plans import (
    BODIES,
    NETWORKS,
    RATES,
    RESULTS,
    SEEDS,
    TASKS,
    WAYS,
    names,
    settings,
)
from benchmarks.shared import BySeed, Record, by_seed, commands, head, row, spread
from benchmarks.trials import chosen, metric_of, score, unit
from thalnet_mtl.metrics.multitask import delta_m, relative_gain
from thalnet_mtl.metrics.significance import Verdict, holm, sign_flip_test, verdict

Pair = tuple[tuple[str, str], tuple[str, str]]
BETWEEN_BODIES: Pair = (("thalnet", "weighted"), ("gru", "weighted"))
# Δm of the first less Δm of the second, both against networks for one task each as of the second.
COMPARED: list[Pair] = [
    (("thalnet", "weighted"), ("thalnet", "alone")),
    (("gru", "weighted"), ("gru", "alone")),
    (("thalnet", "aggregated"), ("thalnet", "weighted")),
    (("gru", "aggregated"), ("gru", "weighted")),
    BETWEEN_BODIES,
    (("thalnet", "weighted"), ("thalnet", "wide")),
]


def done(found: Mapping[str, BySeed], body: str, way: str) -> dict[int, dict[str, Record]]:
    """By seed, then by task, the runs; of seeds of which all succeeded."""
    own = {task: found.get(name, {}) for task, name in names(body, way).items()}
    seeds = sorted(set.intersection(*(set(runs) for runs in own.values())))
    by = {seed: {task: own[task][seed] for task in TASKS} for seed in seeds}
    return {seed: runs for seed, runs in by.items() if all("result" in r for r in runs.values())}


def gains(
    found: Mapping[str, BySeed], body: str, way: str, base: str
) -> dict[int, dict[str, float]]:
    """±(R − S) / S in percent, by seed, then by task; S is of ``base`` for one task each."""
    own, alone = done(found, body, way), done(found, base, "alone")
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
    (found, later), before = parts_of(by_seed(RESULTS)), by_seed(RESULTS / "untuned")
    parts = [scores(found), changes(found), verdicts(found), apart(found), silenced(found)]
    if any(later.values()):
        parts += [
            ["New seeds, for one joint ThalNet against single ones:"],
            scores(later),
            verdicts(later),
            silenced(later),
        ]
    runs = [record for of in [*found.values(), *later.values()] for record in of.values()]
    parts += [choices(), [commands(runs)]]
    parts += [["Twice as long, a GRU of 4 layers, nothing tuned:"], scores(before), changes(before)]
    return "\n\n".join("\n".join(part) for part in parts if len(part) != len(head()))


def parts_of(found: Mapping[str, BySeed]) -> tuple[dict[str, BySeed], dict[str, BySeed]]:
    """Seeds that all comparisons are of, and later ones."""
    first, later = (
        {name: {s: r for s, r in of.items() if (s in SEEDS) is early} for name, of in found.items()}
        for early in (True, False)
    )
    return first, later


def scores(found: Mapping[str, BySeed]) -> list[str]:
    """Test scores of every network in every way."""
    lines = head("network", "trained on", "parameters", "seeds", *TASKS.values())
    for body, way in NETWORKS:
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
        lines.append(row(BODIES[body], WAYS[way], f"{sum(sizes.values()):,}", count, *cells))
    return lines


def digits(task: str) -> int:
    return 2 if metric_of(task).higher_is_better else 3


def changes(found: Mapping[str, BySeed]) -> list[str]:
    """What joint training gained, by task and as Δm."""
    lines = head("network", "against one each", "seeds", *map(short, TASKS), "Δm, %")
    for body, way in NETWORKS:
        own = gains(found, body, way, body)
        if way != "alone" and own:
            cells = [spread([gain[task] for gain in own.values()]) for task in TASKS]
            mean = spread([*mean_gains(found, body, way, body).values()])
            lines.append(row(BODIES[body], WAYS[way], str(len(own)), *cells, f"**{mean}**"))
    return lines


def short(task: str) -> str:
    return TASKS[task].partition(",")[0]


def mean_gains(found: Mapping[str, BySeed], body: str, way: str, base: str) -> dict[int, float]:
    """Δm in percent by seed."""
    return {seed: delta_m([*g.values()]) for seed, g in gains(found, body, way, base).items()}


def judged(found: Mapping[str, BySeed]) -> dict[Pair, tuple[list[float], Verdict]]:
    """Differences of every comparison on the same seeds, and what they say after Holm over all."""
    differences = {}
    for pair in COMPARED:
        ours, theirs = (mean_gains(found, *one, pair[1][0]) for one in pair)
        if paired := [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]:
            differences[pair] = paired
    corrected = holm({str(pair): sign_flip_test(of) for pair, of in differences.items()})
    return {
        pair: (values, verdict(values, corrected[str(pair)], True, len(differences)))
        for pair, values in differences.items()
    }


def verdicts(found: Mapping[str, BySeed]) -> list[str]:
    """Every comparison in words."""
    lines = head("Δm of", "less Δm of", "both against one each of", "points", "verdict")
    for pair, (values, said) in judged(found).items():
        words = f"**{said.word}**: {said.line}"
        cells = (f"{BODIES[body]}, {WAYS[way]}" for body, way in pair)
        lines.append(row(*cells, BODIES[pair[1][0]], spread(values), words))
    return lines


def between_bodies() -> list[str]:
    """Δm of ThalNet and of GRU against the same GRUs, seeds, difference and the word for it."""
    found, _ = parts_of(by_seed(RESULTS))
    if BETWEEN_BODIES not in (said := judged(found)):
        return []
    values, word = said[BETWEEN_BODIES]
    both = [spread([*mean_gains(found, *one, "gru").values()]) for one in BETWEEN_BODIES]
    return [*both, str(len(values)), spread(values), f"**{word.word}**"]


def single(found: Mapping[str, BySeed]) -> dict[str, tuple[list[list[float]], Verdict]]:
    """By task the scores of ThalNets and of GRUs for it alone, and what they say, after Holm."""
    runs = [done(found, body, "alone") for body in BODIES]
    seeds = sorted(set.intersection(*map(set, runs)))
    values = {
        task: [[unit(task) * score(own[seed][task], task) for seed in seeds] for own in runs]
        for task in TASKS
    }
    differences = {task: less(*both) for task, both in values.items() if seeds}
    corrected = holm({task: sign_flip_test(of) for task, of in differences.items()})
    return {
        task: (
            values[task],
            verdict(of, corrected[task], metric_of(task).higher_is_better, len(differences)),
        )
        for task, of in differences.items()
    }


def less(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def apart(found: Mapping[str, BySeed]) -> list[str]:
    """Nets for one task each, task by task."""
    lines = head("one each, a third", "seeds", "ThalNet − GRU", "ThalNet is")
    for task, (both, said) in single(found).items():
        difference = spread(less(*both), digits(task))
        lines.append(
            row(TASKS[task], str(len(both[0])), difference, f"**{said.word}**: {said.line}")
        )
    return lines


def text_alone() -> list[str]:
    """Of nets for the text alone: ThalNet, GRU, seeds, difference and the word for it."""
    said = single(parts_of(by_seed(RESULTS))[0])
    if "text8" not in said:
        return []
    both, word = said["text8"]
    cells = [spread(values, digits("text8")) for values in (*both, less(*both))]
    return [*cells[:2], str(len(both[0])), cells[2], f"**{word.word}**"]


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
    for body, way in NETWORKS:
        own, given = {name: short(t) for t, name in names(body, way).items()}, settings(body, way)
        if any(len(trials.reached(RESULTS, name, given)) < len(RATES) for name in own):
            continue
        said = {name: " ".join(trials.words(chosen(RESULTS, name, given))) for name in own}
        text = (f"{own[name]} `{w}`" if len(own) > 1 else f"`{w}`" for name, w in said.items())
        lines.append(row(BODIES[body], WAYS[way], "; ".join(text)))
    return lines
