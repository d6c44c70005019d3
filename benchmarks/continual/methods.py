"""The methods of the table, each with its knobs: as many trials for every one of them."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Knobs = dict[str, str]
RATES = ("0.0003", "0.001", "0.003", "0.01")


@dataclass(frozen=True)
class Method:
    """A network, a strategy, and what is tried for it."""

    title: str
    body: str  # a file of ``methods/``
    strategy: str = "naive"
    strengths: tuple[str, ...] = ()

    @property
    def flags(self) -> Knobs:
        """Of every one of its runs."""
        return {} if self.strategy == "naive" else {"train.strategy": self.strategy}

    @property
    def trials(self) -> list[Knobs]:
        """Four: learning rates, or two of them with two strengths."""
        if not self.strengths:
            return [{"train.learning_rate": rate} for rate in RATES]
        return [
            {"train.learning_rate": rate, "strategy.strength": strength}
            for rate, strength in product(RATES[1:3], self.strengths)
        ]


SHARED = "thalnet_never"  # one ThalNet for all tasks, on which the strategies are
METHODS = {
    "naive": Method("ThalNet, naive", SHARED),
    "ewc": Method("ThalNet, EWC", SHARED, "ewc", ("100", "10000")),
    "online_ewc": Method("ThalNet, online EWC", SHARED, "online_ewc", ("100", "10000")),
    "si": Method("ThalNet, SI", SHARED, "si", ("1", "10")),
    "lwf": Method("ThalNet, LwF", SHARED, "lwf", ("1", "10")),
    "replay": Method("ThalNet, replay of 500", SHARED, "replay"),
    "agem": Method("ThalNet, A-GEM with 500", SHARED, "agem"),
    "gru": Method("GRU, naive", "gru"),
    "gru_replay": Method("GRU, replay of 500", "gru", "replay"),
    "frozen_backbone": Method("ThalNet, new heads only", "frozen_backbone"),
    "pnn": Method("PNN-style GRU", "pnn"),
    "frozen": Method("ThalNet, grows, old frozen", "thalnet_frozen"),
    "shared": Method("ThalNet, grows, all learn", "thalnet_shared"),
    "center_cut": Method("ThalNet, grows, center cut", "center_cut"),
    "joint": Method("ThalNet, all jointly", SHARED),
    "independent": Method("ThalNet, one for each task", SHARED),
}
STREAMS = [name for name in METHODS if name not in ("joint", "independent")]


def chosen(name: str) -> Knobs:
    """The knobs of the trial with the best mean validation score; the least rate of equal ones."""
    if name in ("joint", "independent"):
        name = "naive"
    scores = {}
    for number in range(len(METHODS[name].trials)):
        path = RESULTS / f"trial_{name}-{number}.json"
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if "result" in record:
            scores[number] = validation(record)
    if not scores:
        raise SystemExit(f"no trial of {name} has succeeded: run with --tune first.")
    return METHODS[name].trials[max(scores, key=lambda number: scores[number])]


def validation(record: dict[str, Any]) -> float:
    """The mean over the tasks after the last experience."""
    tasks = record["result"]["tasks"].values()
    return sum(task["validation"]["accuracy"] for task in tasks) / len(tasks)
