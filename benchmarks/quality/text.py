"""Text: nets of 1 M parameters on a processor, and of 12 and 14 M on a GPU, as far as they came."""

from collections.abc import Sequence
from functools import partial
from itertools import product

from benchmarks.quality.plans import HERE, RESULTS, Jobs
from benchmarks.shared import as_named
from benchmarks.trials import Flags, chosen, trials, words

BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
SHORT = "400"  # steps of a trial
RATES = [{"train.learning_rate": rate} for rate in ("0.0015", "0.003", "0.006")]
ENDS = {f"modules.m{k}.{end}": "true" for k in range(3) for end in ("input", "output")}
SHAPES: dict[str, list[Flags]] = {  # two of each body
    "thalnet": [  # the paper's, but that the head reads the first module too; and three like GRUs
        {"modules.m0.input": "true", "modules.m0.output": "true"}
        | {"modules.m1.input": "false", "modules.m2.input": "false", "modules.m3.output": "true"},
        {"model.module": "gru", "model.reading": "linear"} | ENDS,
    ],
    "gru": [{"model.layers": "1"}, {"model.layers": "2"}],
}


def settings(body: str) -> list[Flags]:
    """What is tried, as much for either body."""
    return [{**shape, **rate} for shape, rate in product(SHAPES[body], RATES)]


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
