"""Tables of the search benchmark, made from the records of its runs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import mean

from benchmarks.markdown import header, row
from benchmarks.records import Record, RunsBySeed, load_by_seed, seed_count, succeeded
from benchmarks.search import scoring
from benchmarks.search.experiments import ARMS, RESULTS, STREAMS, recipe_config
from thalnet_mtl.metrics.significance import holm, sign_flip_test, verdict
from thalnet_mtl.report.cells import spread

Arms = Mapping[str, RunsBySeed]  # the runs of a stream
Measure = Callable[[Record], float]

OURS = "search"
# Compared with the search. With eight seeds, the exact test can decide six comparisons at most.
BASELINES = ("independent", "random", "never", "per_task", "on_plateau", "columns")
ABLATIONS = ("oracle", "exhaustive", "prior_alone", "race_alone", "any_path", "price_0")
COLUMNS = ("chooser", "seeds", "right decisions, %", "right for the last task, %", "T, points",
           "A, %", "forgetting, points", "modules", "of the oracle's", "parameters", "cost",
           "training, s")  # fmt: skip


def report(streams: Iterable[str] = STREAMS, results: Path = RESULTS) -> str:
    """Return all tables in Markdown: one over all streams, then those of each."""
    runs = {stream: load_by_seed(results / Path(stream).stem) for stream in streams}
    finished = {
        stream: {name: succeeded(by_seed) for name, by_seed in arms.items()}
        for stream, arms in runs.items()
        if any(succeeded(by_seed) for by_seed in arms.values())
    }
    if not finished:
        return "No run has finished yet."
    parts = [overview(finished)]
    for stream, arms in finished.items():
        failed = {name: len(runs[stream][name]) - len(arms[name]) for name in arms}
        parts += [[f"### {Path(stream).stem}"], stream_table(stream, arms, failed)]
        parts += [kind_table(stream, arms), verdict_table(arms)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def overview(runs: Mapping[str, Arms]) -> list[str]:
    """Return a row a stream: the search, with the random chooser and the oracle beside it."""
    lines = header("stream", "seeds", "right decisions, %", "of the random chooser, %",
                   "T, points", "T of the oracle", "A, %", "A of the oracle", "modules of the "
                   "oracle's", "cost")  # fmt: skip
    for stream, arms in runs.items():
        ours, oracle = arms.get(OURS, {}), arms.get("oracle", {})
        lines.append(row(
            Path(stream).stem, str(len(ours)),
            f"**{percent(map(right_share, ours.values()))}**",
            percent(map(right_share, arms.get("random", {}).values())),
            *(transfers(arms, name) for name in (OURS, "oracle")),
            *(percent(map(scoring.accuracy, each.values()), 1) for each in (ours, oracle)),
            module_ratio(arms, OURS),
            spread([cost(stream, record) for record in ours.values()]),
        ))  # fmt: skip
    shares = {
        name: [right_share(r) for arms in runs.values() for r in arms.get(name, {}).values()]
        for name in (OURS, "random")
    }
    decided = [f"{percent(values)}" for values in shares.values()]
    return [*lines, row("all", "", f"**{decided[0]}**", decided[1], *[""] * 6)]


def stream_table(stream: str, arms: Arms, failed: Mapping[str, int]) -> list[str]:
    """Return a row an arm: decisions, transfer, accuracy, forgetting, size and cost."""
    lines = header(*COLUMNS)
    for name, arm in ARMS.items():
        records = [*arms.get(name, {}).values()]
        if not records:
            continue
        results = [record["result"] for record in records]
        lines.append(row(
            arm.title,
            seed_count(len(records), failed[name]),
            percent(map(right_share, records)),
            percent(map(last_is_right, records)),
            transfers(arms, name) if name != "independent" else "0",
            percent(map(scoring.accuracy, records), 1),
            percent((result["forgetting"] for result in results), 1),
            spread([result["modules"] for result in results], 1),
            module_ratio(arms, name),
            spread([result["parameters"] for result in results], 0),
            spread([cost(stream, record) for record in records]),
            spread([result["train_seconds"] for result in results], 0),
        ))  # fmt: skip
    return lines


def kind_table(stream: str, arms: Arms) -> list[str]:
    """Return the decisions of the search and of the random chooser, a row a task."""
    chosen = {name: scoring.chosen_kinds(arms.get(name, {})) for name in (OURS, "random")}
    if not chosen[OURS]:
        return []
    lines = ["<details><summary>Decisions by task</summary>", ""]
    lines += header("task", "right", OURS, "random")
    for number, experience in enumerate(recipe_config(stream).stream, 1):
        cells = [
            ", ".join(f"{kind} {count}" for kind, count in kinds.get(number, {}).items())
            for kinds in chosen.values()
        ]
        if any(cells):
            lines.append(row(", ".join(experience.tasks), ", ".join(experience.expect), *cells))
    return [*lines, "", "</details>"]


def verdict_table(arms: Arms) -> list[str]:
    """Return how the search compares with other arms, over pairs of the same seed.

    Holm's correction is over the comparisons of one measure with the ``BASELINES``, and over those
    with the ``ABLATIONS``.
    """
    measures = {"last task": scoring.last_accuracy, "A": scoring.accuracy}
    lines = header("search minus", *(f"{name}, points" for name in measures), *measures)
    for group in (BASELINES, ABLATIONS):
        columns = [compared(arms, group, measure) for measure in measures.values()]
        for name in group:
            if name in columns[0]:
                lines.append(row(ARMS[name].title, *(column[name][0] for column in columns),
                                 *(column[name][1] for column in columns)))  # fmt: skip
    return lines if len(lines) > 2 else []


def compared(arms: Arms, against: Iterable[str], measure: Measure) -> dict[str, tuple[str, str]]:
    """Return by arm the mean difference of the search to it in points, and the verdict."""
    differences = {}
    for name in against:
        pairs = scoring.by_seed(arms.get(OURS, {}), arms.get(name, {}))
        if len(pairs) > 1:
            differences[name] = [100 * (measure(a) - measure(b)) for a, b in pairs.values()]
    corrected = holm({name: sign_flip_test(values) for name, values in differences.items()})
    cells = {}
    for name, values in differences.items():
        result = verdict(values, corrected[name], True, len(differences))
        cells[name] = spread(values, 1), f"**{result.word}**, p = {corrected[name]:.3g}"
    return cells


def searches(stream: str) -> RunsBySeed:
    """Return the finished runs of the search on a stream."""
    return succeeded(load_by_seed(RESULTS / stream).get(OURS, {}))


def rights(record: Record) -> list[bool]:
    """Return whether each decision with an answer is right."""
    return [d["right"] for d in record["result"]["decisions"] if d["right"] is not None]


def right_share(record: Record) -> float | None:
    """Return the share of decisions that are right; None without decisions."""
    right = rights(record)
    return mean(right) if right else None


def last_is_right(record: Record) -> float | None:
    """Return 1 if the decision for the last task is right, 0 if not; None without decisions."""
    decisions = record["result"]["decisions"]
    return float(decisions[-1]["right"]) if decisions else None


def transfers(arms: Arms, name: str) -> str:
    """Return the mean of T over the seeds, against independent networks."""
    pairs = scoring.by_seed(arms.get(name, {}), arms.get("independent", {}))
    return percent((scoring.transfer(*pair) for pair in pairs.values()), 1)


def module_ratio(arms: Arms, name: str) -> str:
    """Return the mean ratio of the numbers of modules to those of the oracle."""
    pairs = scoring.by_seed(arms.get(name, {}), arms.get("oracle", {})).values()
    return spread([ours["result"]["modules"] / its["result"]["modules"] for ours, its in pairs])


def cost(stream: str, record: Record) -> float:
    """Return the cost of a run; see ``scoring.cost``."""
    config = recipe_config(stream)
    return scoring.cost(record, config.train.steps * len(config.stream))


def percent(values: Iterable[float | None], digits: int = 0) -> str:
    """Return mean and interval in percent of the values that are not None."""
    return spread([100 * value for value in values if value is not None], digits)
