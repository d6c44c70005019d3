"""Runs on text with networks of 1 M parameters: two rounds of a search, and the best of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf
from operator import methodcaller
from pathlib import Path
from statistics import mean

from benchmarks.launch import arguments, config_path
from benchmarks.quality.experiments import FOLDER, RESULTS, Jobs
from benchmarks.records import Record, RunsBySeed, load_by_seed, load_records, succeeded
from benchmarks.tuning import TRIAL_SEED, Setting

BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
TRIAL_STEPS = "400"
SEEDS = 6  # of the selected setting; with fewer it is not compared


def equal_modules(count: int) -> dict[str, str]:
    """Return flags for plain GRU modules that all take the input and feed the head."""
    ends = product(range(count), ("input", "output"))
    return {"model.module": "gru", "model.reading": "linear"} | {
        f"modules.m{k}.{end}": "true" for k, end in ends
    }


LAYERS: dict[str, Setting] = {"1 layer": {"model.layers": "1"}, "2 layers": {"model.layers": "2"}}
SHAPES: dict[str, dict[str, Setting]] = {
    "thalnet": {
        "4 modules, 1 input, 2 outputs": {  # as in the paper, but the head also reads the input
            "modules.m0.input": "true",
            "modules.m0.output": "true",
            "modules.m1.input": "false",
            "modules.m2.input": "false",
            "modules.m3.output": "true",
        },
        "3 modules, 3 inputs, 3 outputs, `gru`, `linear`": equal_modules(3),
    },
    "gru": LAYERS,
}
LATER_SHAPES: dict[str, dict[str, Setting]] = {
    "thalnet": {
        f"{count} modules, {count} inputs, {count} outputs, `gru`, `linear`": equal_modules(count)
        for count in (2, 3)
    },
    "gru": LAYERS,
}


@dataclass(frozen=True)
class Round:
    """A round of the search: a grid for each body, and its best setting with other seeds."""

    name: str  # records are in ``results/NAME_search`` and ``results/NAME_best``
    shapes: dict[str, dict[str, Setting]]
    rates: Sequence[str]
    trial_seeds: Sequence[int] = (TRIAL_SEED,)  # of every trial, in no other table
    common: Setting = field(default_factory=dict)  # flags of all runs

    def grid(self, body: str) -> list[tuple[str, str]]:
        """Return all pairs of a shape and a learning rate."""
        return list(product(self.shapes[body], self.rates))

    def command(self, body: str, shape: str, rate: str, seed: int) -> list[str]:
        """Return the arguments of ``thalnet train``."""
        flags = {"model.body": body, "train.seed": str(seed), **self.common}
        flags |= {**self.shapes[body][shape], "train.learning_rate": rate}
        return [config_path(FOLDER / "text.yaml"), *arguments(flags)]

    def search(self, seeds: Sequence[int] = (), flags: Sequence[str] = ()) -> Jobs:
        """Return the trials: every setting of the grid with fewer steps."""
        return {
            f"{body}-{k}-seed{seed}": [
                *self.command(body, *setting, seed),
                *("--train.steps", TRIAL_STEPS, *flags),
            ]
            for body in BODIES
            for k, setting in enumerate(self.grid(body))
            for seed in self.trial_seeds
        }

    def best(self, seeds: Sequence[int], flags: Sequence[str] = ()) -> Jobs:
        """Return full runs of the setting that validated best on the mean of its trial seeds."""
        selected = {body: self.best_setting(body) for body in BODIES}
        return {
            f"{body}-seed{seed}": [*self.command(body, *setting, seed), *flags]
            for seed, (body, setting) in product(seeds, selected.items())
        }

    def best_setting(self, body: str) -> tuple[str, str]:
        """Return the shape and the learning rate that validated best."""
        runs = load_by_seed(self.folder("search"))
        trials = [runs.get(f"{body}-{k}", {}) for k in range(len(self.grid(body)))]
        means = {
            k: mean(bits(records[seed], "validation") for seed in self.trial_seeds)
            for k, records in enumerate(trials)
            if all("result" in records.get(seed, {}) for seed in self.trial_seeds)
        }
        if not means:
            raise SystemExit(f"no trial of {body} has succeeded: run {self.name}_search first.")
        return self.grid(body)[min(means, key=means.__getitem__)]

    def folder(self, part: str) -> Path:
        """Return the folder of the records of the part ``search`` or ``best``."""
        return RESULTS / f"{self.name}_{part}"

    def finished(self, body: str) -> RunsBySeed:
        """Return the records of the selected setting by seed."""
        runs = load_by_seed(self.folder("best")).get(body, {})
        return succeeded({seed: runs[seed] for seed in sorted(runs)})

    def validation_bits(self, body: str) -> float:
        """Return the mean validation bits of the selected setting; infinite without all seeds."""
        values = [bits(record, "validation") for record in self.finished(body).values()]
        return mean(values) if len(values) >= SEEDS else inf

    def records(self) -> list[Record]:
        """Return the records of the trials, then those of the selected settings."""
        parts = (load_records(self.folder(part)).values() for part in ("search", "best"))
        return [record for part in parts for record in part]


ROUNDS = [
    Round("text", SHAPES, ("0.0015", "0.003", "0.006", "0.012")),
    # Fixed after the results of the first round, where a single lucky seed had selected the
    # ThalNet, close to the highest learning rate at which it trains.
    Round("text_again", LATER_SHAPES, ("0.003", "0.006"), (102, 103), {"train.warmup": "40"}),
]
PARTS = {f"{r.name}_search": r.search for r in ROUNDS} | {f"{r.name}_best": r.best for r in ROUNDS}


def bits(record: Record, split: str) -> float:
    """Return the final bits per byte."""
    return record["result"]["tasks"]["text8"][split]["bits_per_character"]


def complete_rounds() -> list[Round]:
    """Return the rounds in which at least one body has all seeds."""
    return [r for r in ROUNDS if any(r.validation_bits(body) < inf for body in BODIES)]


def finalists() -> dict[str, Round]:
    """Return for each body the round whose selected setting validates best over its seeds."""
    return {body: min(ROUNDS, key=methodcaller("validation_bits", body)) for body in BODIES}
