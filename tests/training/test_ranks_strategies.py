"""Strategies on several ranks: the same as on a single one, on every rank to the same bits."""

from typing import Any

import pytest
import torch
from rank_processes import assert_alike, on_ranks
from torch import Tensor
from toy_tasks import knobs_of, toy

from thalnet_mtl import Network, StrategyLoop, ThalNet
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries, lookup, registered
from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.ranks import Ranks
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

SGD = {"optimizer": "sgd", "learning_rate": 0.1, "batch": 10, "steps": 0}  # 3 ranks: 3, 3, 4 rows
TOLERANCE = 1e-9  # of double precision
PARTS = ("network", "optimizer", "strategy", "loss_log")


class ByHooks(Strategy):
    """What a user may write: every hook does something with the batches or the gradients."""

    needs_boundaries = ""

    def __init__(self, context):
        super().__init__(context)
        self.means, self.norms, self.noise = [], [], []

    def after_backward(self) -> None:
        parameters = self.context.network.parameters()
        self.norms.append(sum(p.grad.square().sum() for p in parameters if p.grad is not None))

    def penalty(self, batches) -> Tensor:
        spread = torch.stack([batch.xs.float().std() for batch in batches.values()]).sum()
        weights = [p.square().sum() for p in self.context.network.parameters() if p.requires_grad]
        self.noise.append(torch.rand(()))
        return 0.01 * spread * self.noise[-1] * torch.stack(weights).sum()

    def before_update(self) -> None:
        for parameter in self.context.network.parameters():
            if parameter.grad is not None:
                parameter.grad.clamp_(-0.02, 0.02)

    def after_update(self, batches) -> None:
        self.means += [batch.xs.float().mean() for batch in batches.values()]


USERS = {"by_hooks": ByHooks}
with registered("strategy", USERS):
    STRATEGIES = [name for name in entries("strategy") if ":" not in name]  # of our own loop
    BY_STEP = [name for name in STRATEGIES if not lookup("strategy", name).needs_boundaries]


def configured(strategy: str, boundaries: str, **training: float) -> Config:
    tasks: dict[str, Any] = {"a": {"name": "toy_rows"}, "b": {"name": "toy_turned"}}
    options = {"strength": 30.0, "memory": 12}
    if boundaries == "hidden":
        tasks = {name: task | {"head": "h"} for name, task in tasks.items()}
        options["interval"] = 4
    return toy(
        tasks=tasks,
        stream=[{"tasks": [name], "steps": 8} for name in tasks],
        strategy=knobs_of(strategy, **options),
        train={"strategy": strategy, "boundaries": boundaries, **SGD, **training},
    )


with registered("strategy", USERS):
    CASES = {name: configured(name, "announced") for name in STRATEGIES}
    CASES |= {f"{name}, hidden boundaries": configured(name, "hidden") for name in BY_STEP}
    CASES["lwf, dropout"] = configured("lwf", "announced", dropout=0.3)


def trained(config: Config, ranks: Ranks) -> dict[str, Any]:
    """Return parts of the state of a run after its last step."""
    run = set_up(config, fetch=print, ranks=ranks)
    train_step = TrainStep(run)
    while run.step < run.total_steps:
        grow_if_due(run)
        experience = run.experience
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1
        if run.announced and run.step == experience.stop:
            run.state.strategy.after_experience(experience)
    state = run.state.state_dict()
    return {name: state[name] for name in PARTS}


def test_a_strategy_by_hand_is_refused_in_several_processes():
    def refused(ranks: Ranks) -> str:
        with pytest.raises(UserError) as error:
            StrategyLoop("naive", Network(ThalNet(3, modules=2, features=4)), {})
        return str(error.value)

    for text in on_ranks(2, refused):
        assert text.startswith("StrategyLoop: this is one of 2 processes")


@pytest.fixture(scope="module")
def states():
    """Return the states after all cases, by number of ranks, for every rank."""
    with pytest.MonkeyPatch.context() as patch, registered("strategy", USERS):
        patch.setattr(ewc, "SAMPLES", 20)
        return {
            size: on_ranks(size, lambda ranks: {n: trained(c, ranks) for n, c in CASES.items()})
            for size in (1, 2, 3)
        }


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_strategy_on_several_ranks_does_what_it_does_on_one(states, case, size):
    (alone,), (first, *others) = states[1], states[size]
    for other in others:
        assert_alike(other[case], first[case], tolerance=0)
    assert_alike(first[case], alone[case], TOLERANCE)
