"""Text: nets of 1 M parameters on a processor, and of 12 and 14 M on a GPU, as far as they came."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from math import log
from statistics import mean

from benchmarks.quality.plans import HERE, RESULTS, Jobs
from benchmarks.shared import (
    Record,
    as_named,
    by_seed,
    commands,
    head,
    load_records,
    row,
    spread,
)
from benchmarks.trials import Flags, chosen, trials, words
from thalnet_mtl.statistics import sign_flip_test, verdict

BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
SHORT = "400"  # steps of a trial
RATES = "0.0015", "0.003", "0.006"
HIGHER = ("0.012",)  # as the highest of those was the best for either body
ENDS = {f"modules.m{k}.{end}": "true" for k in range(3) for end in ("input", "output")}
SHAPES: dict[str, dict[str, Flags]] = {  # two of each body
    "thalnet": {
        "4 modules, 1 input, 2 outputs": {  # the paper's, but that the head reads the input module
            "modules.m0.input": "true",
            "modules.m0.output": "true",
            "modules.m1.input": "false",
            "modules.m2.input": "false",
            "modules.m3.output": "true",
        },
        "3 modules, 3 inputs, 3 outputs, `gru`, `linear`": {
            "model.module": "gru",
            "model.reading": "linear",
            **ENDS,
        },
    },
    "gru": {"1 layer": {"model.layers": "1"}, "2 layers": {"model.layers": "2"}},
}
LARGE = {"gru": "14,060,256", "thalnet": "11,897,540"}  # of paper/text8_gru and text8.yaml
PASS = (2_800, 3_300)  # steps of their first pass over the text, on bytes not seen before


def grid(body: str) -> list[tuple[str, str]]:
    """Shapes and rates that are tried, as many of either body."""
    return [*product(SHAPES[body], RATES), *product(SHAPES[body], HIGHER)]


def settings(body: str) -> list[Flags]:
    """The same as flags."""
    return [{**SHAPES[body][shape], "train.learning_rate": rate} for shape, rate in grid(body)]


def command(body: str, more: Sequence[str], seed: int, flags: Flags) -> list[str]:
    """Of ``thalnet train``."""
    last = {"model.body": body, "train.seed": str(seed)} | dict(flags)
    return [f"{as_named(HERE)}/text.yaml", *words(last), *more]


def search(seeds: Sequence[int] = (), more: Sequence[str] = ()) -> Jobs:
    """Every shape at every rate, with fewer steps."""
    short = ("--train.steps", SHORT, *more)
    return {
        name: line
        for body in BODIES
        for name, line in trials(body, settings(body), partial(command, body, short)).items()
    }


def best(seeds: Sequence[int], more: Sequence[str] = ()) -> Jobs:
    """What validated best, with other seeds."""
    found = {body: chosen(RESULTS / "text_search", body, settings(body)) for body in BODIES}
    return {
        f"{body}-seed{seed}": command(body, more, seed, flags)
        for seed, (body, flags) in product(seeds, found.items())
    }


def bits(record: Record, split: str) -> float:
    """Per byte, in the end."""
    return record["result"]["tasks"]["text8"][split]["bits_per_character"]


def pairs() -> dict[int, tuple[Record, Record]]:
    """By seed, the runs of ThalNet and of the GRU that were both finished."""
    ours, theirs = (by_seed(RESULTS / "text_best").get(body, {}) for body in BODIES)
    both = {seed: (ours[seed], theirs[seed]) for seed in sorted(ours) if seed in theirs}
    return {s: pair for s, pair in both.items() if all("result" in one for one in pair)}


def cells() -> list[str]:
    """ThalNet, GRU, seeds, difference and the word for it; nothing before there are two seeds."""
    ours, theirs = ([bits(pair[k], "test") for pair in pairs().values()] for k in (0, 1))
    if len(ours) < 2:
        return []
    less = [a - b for a, b in zip(ours, theirs, strict=True)]
    said = verdict(less, sign_flip_test(less), higher_is_better=False)
    shown = [spread(values, 3) for values in (ours, theirs, less)]
    return [*shown[:2], str(len(less)), shown[2], f"**{said.word}**: {said.line}"]


def small() -> str:
    """All trials, and the best of each with other seeds."""
    tried, best = load_records(RESULTS / "text_search"), by_seed(RESULTS / "text_best")
    lines = head("model", "shape", "learning rate", "parameters", "validation, bits", "test, bits")
    for body, title in BODIES.items():
        for k, (shape, rate) in enumerate(grid(body)):
            if record := tried.get(f"trial_{body}-{k}"):
                lines.append(row(title, shape, rate, *scores([record])))
    lines += ["", *head("best of eight trials", "seeds", "parameters", "validation, bits",
                        "test, bits")]  # fmt: skip
    for body, title in BODIES.items():
        records = [*best.get(body, {}).values()]
        lines.append(row(title, str(len(records)), *scores(records)))
    if found := cells():
        lines += ["", *head("ThalNet − GRU, bits", "seeds", "ThalNet is")]
        lines.append(row(found[3], found[2], found[4]))
    runs = [record for of in best.values() for record in of.values()]
    return "\n".join([*lines, "", commands([*tried.values(), *runs])])


def scores(records: Sequence[Record]) -> list[str]:
    """Parameters, validation and test of those that were finished, or why there is none."""
    done = [record for record in records if "result" in record]
    if not done:
        return ["–", "–", records[0]["failed"] if records else "–"]
    size = done[0]["result"]["parameters"]["total"]
    return [f"{size:,}", *(spread([bits(r, s) for r in done], 3) for s in ("validation", "test"))]


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
