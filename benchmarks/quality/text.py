"""Text: nets of 1 M parameters on a processor, and of 12 and 14 M on a GPU, as far as they came."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf, log
from operator import methodcaller
from pathlib import Path
from statistics import mean

from benchmarks.quality.plans import HERE, RESULTS, Jobs
from benchmarks.shared import (
    BySeed,
    Record,
    as_named,
    by_seed,
    commands,
    head,
    load_records,
    row,
    spread,
)
from benchmarks.trials import TRIAL_SEED, Flags, words
from thalnet_mtl.metrics.significance import sign_flip_test, verdict

BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
SHORT = "400"  # steps of a trial
SEEDS = 6  # of what a round chose; with fewer it is not compared
LARGE = {"gru": "14,060,256", "thalnet": "11,897,540"}  # of paper/text8_gru and text8.yaml
PASS = (2_800, 3_300)  # steps of their first pass over the text, on bytes not seen before


def alike(count: int) -> dict[str, str]:
    """So many plain GRUs as modules, each of which takes the input and feeds the head."""
    ends = product(range(count), ("input", "output"))
    return {"model.module": "gru", "model.reading": "linear"} | {
        f"modules.m{k}.{end}": "true" for k, end in ends
    }


LAYERS: dict[str, Flags] = {"1 layer": {"model.layers": "1"}, "2 layers": {"model.layers": "2"}}
SHAPES: dict[str, dict[str, Flags]] = {
    "thalnet": {
        "4 modules, 1 input, 2 outputs": {  # the paper's, but that the head reads the input module
            "modules.m0.input": "true",
            "modules.m0.output": "true",
            "modules.m1.input": "false",
            "modules.m2.input": "false",
            "modules.m3.output": "true",
        },
        "3 modules, 3 inputs, 3 outputs, `gru`, `linear`": alike(3),
    },
    "gru": LAYERS,
}
AGAIN: dict[str, dict[str, Flags]] = {
    "thalnet": {
        f"{count} modules, {count} inputs, {count} outputs, `gru`, `linear`": alike(count)
        for count in (2, 3)
    },
    "gru": LAYERS,
}


@dataclass(frozen=True)
class Round:
    """As many trials of either body, and the one that validates best with other seeds."""

    name: str  # of its folders in ``results/``: NAME_search and NAME_best
    shapes: dict[str, dict[str, Flags]]
    rates: Sequence[str]
    seeds: Sequence[int] = (TRIAL_SEED,)  # of every trial, in no other table
    shared: Flags = field(default_factory=dict)  # of all its runs

    def grid(self, body: str) -> list[tuple[str, str]]:
        """Shapes and rates."""
        return list(product(self.shapes[body], self.rates))

    def command(self, body: str, shape: str, rate: str, seed: int) -> list[str]:
        """Of ``thalnet train``."""
        first = {"model.body": body, "train.seed": str(seed)}
        tried = {**self.shared, **self.shapes[body][shape], "train.learning_rate": rate}
        return [f"{as_named(HERE)}/text.yaml", *words(first | tried)]

    def search(self, seeds: Sequence[int] = (), more: Sequence[str] = ()) -> Jobs:
        """Every shape at every rate, with fewer steps."""
        return {
            f"{body}-{k}-seed{seed}": [
                *self.command(body, *tried, seed),
                *("--train.steps", SHORT, *more),
            ]
            for body in BODIES
            for k, tried in enumerate(self.grid(body))
            for seed in self.seeds
        }

    def best(self, seeds: Sequence[int], more: Sequence[str] = ()) -> Jobs:
        """What validated best, on the mean of its seeds."""
        found = {body: self.chosen(body) for body in BODIES}
        return {
            f"{body}-seed{seed}": [*self.command(body, *tried, seed), *more]
            for seed, (body, tried) in product(seeds, found.items())
        }

    def chosen(self, body: str) -> tuple[str, str]:
        """Shape and rate."""
        found = by_seed(self.folder("search"))
        runs = [found.get(f"{body}-{k}", {}) for k in range(len(self.grid(body)))]
        means = {
            k: mean(bits(of[seed], "validation") for seed in self.seeds)
            for k, of in enumerate(runs)
            if all("result" in of.get(seed, {}) for seed in self.seeds)
        }
        if not means:
            raise SystemExit(f"no trial of {body} has succeeded: run {self.name}_search first.")
        return self.grid(body)[min(means, key=means.__getitem__)]

    def folder(self, part: str) -> Path:
        """Of its records."""
        return RESULTS / f"{self.name}_{part}"

    def finished(self, body: str) -> BySeed:
        """Records of its best, by seed."""
        runs = by_seed(self.folder("best")).get(body, {})
        return {seed: runs[seed] for seed in sorted(runs) if "result" in runs[seed]}

    def reached(self, body: str) -> float:
        """Its bits on the validation part, the mean; infinite before all seeds are there."""
        found = [bits(run, "validation") for run in self.finished(body).values()]
        return mean(found) if len(found) >= SEEDS else inf

    def table(self) -> list[str]:
        """All trials, and what they chose."""
        found, best = by_seed(self.folder("search")), by_seed(self.folder("best"))
        lines = head("trials of", "shape", "learning rate", "seeds", *SCORES)
        for body, title in BODIES.items():
            for k, tried in enumerate(self.grid(body)):
                lines.append(row(title, *tried, *scores(found.get(f"{body}-{k}", {}))))
        lines += ["", *head("best of its trials", "seeds", *SCORES)]
        lines += [row(title, *scores(best.get(body, {}))) for body, title in BODIES.items()]
        return lines

    def records(self) -> list[Record]:
        """Of its trials, then of what they chose."""
        parts = (load_records(self.folder(part)).values() for part in ("search", "best"))
        return [record for part in parts for record in part]


ROUNDS = [
    Round("text", SHAPES, ("0.0015", "0.003", "0.006", "0.012")),
    # Fixed when the first was known, whose ThalNet one lucky seed had chosen near its highest rate
    Round("text_again", AGAIN, ("0.003", "0.006"), (102, 103), {"train.warmup": "40"}),
]
PARTS = {f"{r.name}_search": r.search for r in ROUNDS} | {f"{r.name}_best": r.best for r in ROUNDS}
SCORES = "parameters", "validation, bits", "test, bits"


def bits(record: Record, split: str) -> float:
    """Per byte, in the end."""
    return record["result"]["tasks"]["text8"][split]["bits_per_character"]


def scores(runs: BySeed) -> list[str]:
    """How many were finished, parameters, validation and test; or why none was."""
    done = [record for record in runs.values() if "result" in record]
    if not done:
        failed = (record["failed"] for record in runs.values())
        return ["0", "–", "–", next(failed, "–")]
    size = done[0]["result"]["parameters"]["total"]
    shown = (
        spread([bits(record, split) for record in done], 3) for split in ("validation", "test")
    )
    return [str(len(done)), f"{size:,}", *shown]


def over() -> list[Round]:
    """The rounds that count: those with all seeds of one body at least."""
    return [r for r in ROUNDS if any(r.reached(body) < inf for body in BODIES)]


def finalists() -> dict[str, Round]:
    """For each body the round whose choice validates best with its seeds."""
    return {body: min(ROUNDS, key=methodcaller("reached", body)) for body in BODIES}


def compared() -> list[str]:
    """ThalNet, GRU, seeds that both finished, difference and the word for it; one comparison."""
    ours, theirs = (r.finished(body) for body, r in finalists().items())
    pairs = [
        (bits(one, "test"), bits(theirs[seed], "test"))
        for seed, one in ours.items()
        if seed in theirs
    ]
    if len(pairs) < SEEDS:
        return []
    less = [one - other for one, other in pairs]
    said = verdict(less, sign_flip_test(less), False, 1)
    us, them, difference = (spread(values, 3) for values in (*zip(*pairs, strict=True), less))
    return [us, them, str(len(pairs)), difference, f"**{said.word}**: {said.line}"]


def small() -> str:
    """All rounds, then what came of them."""
    lines = [line for r in ROUNDS for line in (*r.table(), "", commands(r.records()), "")]
    if found := compared():
        places = {body: ROUNDS.index(r) + 1 for body, r in finalists().items()}
        titles = (f"{BODIES[body]} of round {place}, test, bits" for body, place in places.items())
        lines += [*head(*titles, "seeds", "ThalNet − GRU, bits", "ThalNet is"), row(*found), ""]
    return "\n".join(lines[:-1])


def large() -> str:
    """Loss on bytes of the first pass, not seen before, and scores after all."""
    lines = head("model", "parameters", "bytes", "loss in the first pass, bits", "validation, bits",
                 "test, bits")  # fmt: skip
    records = load_records(RESULTS / "text8")
    for name, record in records.items():
        curve = record["curves"]["text8"]
        losses = zip(curve["train_step"], curve["train_loss"], strict=True)
        fresh = mean(loss for step, loss in losses if PASS[0] < step <= PASS[1]) / log(2)
        validation = curve["validation_bits_per_character"][-1]
        tested = f"– ({record['failed']})" if "failed" in record else f"{bits(record, 'test'):.3f}"
        body = "gru" if "_gru" in name else "thalnet"
        seen = f"{validation:.3f} at step {curve['validation_step'][-1]:,}"
        lines.append(row(BODIES[body], LARGE[body], "80 M", f"**{fresh:.3f}**", seen, tested))
    return "\n".join([*lines, "", commands(records.values())])
