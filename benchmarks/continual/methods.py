"""Methods of the table, each with the settings that its trials try: four for every method."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks import tuning

RESULTS = Path(__file__).parent / "results"
Setting = dict[str, str]
RATES = ("0.0003", "0.001", "0.003", "0.01")


@dataclass(frozen=True)
class Method:
    """A network, a strategy and the strengths of the strategy to try."""

    title: str
    body: str  # a file of ``methods/``
    strategy: str = "naive"
    strengths: tuple[str, ...] = ()

    @property
    def flags(self) -> Setting:
        """Flags of all runs of the method."""
        return {} if self.strategy == "naive" else {"train.strategy": self.strategy}

    @property
    def settings(self) -> list[Setting]:
        """Four settings: learning rates, or two learning rates with two strengths each."""
        if not self.strengths:
            return [{"train.learning_rate": rate} for rate in RATES]
        return [
            {"train.learning_rate": rate, "strategy.strength": strength}
            for rate, strength in product(RATES[1:3], self.strengths)
        ]


SHARED = "thalnet_never"  # one ThalNet of fixed size for all tasks: the network of the strategies
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
    "pnn": Method("PNN-style GRU columns", "pnn"),
    "frozen": Method("growing ThalNet, old modules frozen", "thalnet_frozen"),
    "shared": Method("growing ThalNet, all modules train", "thalnet_shared"),
    "center_cut": Method("growing ThalNet, no reading of other modules", "center_cut"),
    "joint": Method("ThalNet, joint training", SHARED),
    "independent": Method("ThalNet, single-task", SHARED),
}
STREAMS = [name for name in METHODS if name not in ("joint", "independent")]


def best_setting(name: str) -> Setting:
    """Return the setting with the best mean validation accuracy; on a tie the first one."""
    name = "naive" if name in ("joint", "independent") else name
    return dict(tuning.best_setting(RESULTS, name, METHODS[name].settings))
