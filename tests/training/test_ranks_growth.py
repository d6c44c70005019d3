"""Growth on several ranks: the same decisions and the same networks as on a single one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import assert_alike, on_ranks
from run_fixtures import interrupt_at
from torch import distributed
from toy_tasks import GROWTH, JOINT, OWN, toy

from thalnet_mtl import Network, TaskSpec, ThalNet, search, train
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import registered
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.growth.base import GrowthRule
from thalnet_mtl.training.ranks import Ranks
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search import prior
from thalnet_mtl.training.search.edges import edge_evidence
from thalnet_mtl.training.search.prune import prune_modules
from thalnet_mtl.training.search.within import grow_within
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

SGD = {"optimizer": "sgd", "learning_rate": 0.1, "batch": 10, "steps": 0}
TOLERANCE = 1e-9  # of double precision
QUIET = Console.silent()
SHAPES = ("toy_rows", "toy_wide", "toy_text")
ALIKE = ("toy_rows", "toy_turned")
PATH = {"low": {"input": True, "output": True}}
# Of a search. L-BFGS stops where the loss is flat, at weights that rounding decides.
DECIDED = ("topology", "decisions", "changes")
PAIR = {"low": {"input": True}, "high": {"output": True}}


def stream(*tasks: str, steps: int = 10, growth: dict[str, Any], **sections: Any) -> Config:
    """Tasks one after another, which share a head if boundaries are hidden."""
    options = SGD | sections.pop("train", {})
    head = {"head": "path1"} if "boundaries" in options else {}
    return toy(
        tasks={name: {"name": name} | head for name in tasks},
        stream=[{"tasks": [name], "steps": steps} for name in tasks],
        growth=growth,
        train=options,
        evaluate={"every": 5, "log_every": 5, "batches": 1, "checkpoint_every": 4},
        **sections,
    )


CASES = {
    "per_task, frozen": stream(*SHAPES, growth={"when": "per_task", "modules": OWN}),
    "per_task, shared": stream(
        *SHAPES,
        growth={"when": "per_task", "policy": "shared", "modules": OWN},
        train={"strategy": "si"},
    ),
    "on_plateau": stream(
        *SHAPES,
        growth={"when": "on_plateau", "policy": "shared", "patience": 1, "modules": {"more": {}}},
    ),
    "search": stream(
        *ALIKE,
        steps=32,
        growth={"when": "search", "prune": True, "cost": 2.0, "modules": PAIR},
    ),
    "paths": stream(
        *ALIKE,
        steps=40,
        modules=PATH,
        growth={"when": "paths", "recent": 3, "window": 4, "threshold": 0.5, "modules": PATH},
        train={"boundaries": "hidden", "batch": 7},
    ),
    "early stopping": stream(
        *ALIKE,
        steps=40,
        growth={"when": "per_task", "policy": "shared", "modules": OWN},
        train={"strategy": "replay", "patience": 1},
    ),
    "changes": toy(**JOINT, changes=GROWTH, train=SGD | {"steps": 45}),
}


def left_by(folder: Path) -> dict[str, Any]:
    """Return weights, moments, decisions and changes of a finished run."""
    last = load_checkpoint(folder / "checkpoint" / "last.pt")
    topology = json.loads((folder / "topology.json").read_text())
    decisions = [
        (d["step"], d["about"], c["candidate"], c["chosen"], c["steps"], torch.tensor(c["score"]))
        for d in topology["decisions"]
        for c in d["candidates"]
    ]
    changes = [(change["step"], change["verb"], change["about"]) for change in topology["history"]]
    parts = {n: last[n] for n in ("step", "network", "optimizer", "strategy", "topology")}
    return parts | {"decisions": decisions, "changes": changes}


@pytest.fixture(autouse=True)
def _few_sequences(monkeypatch):
    monkeypatch.setattr(prior, "SAMPLES", 60)
    monkeypatch.setattr(prior, "ITERATIONS", 10)


def left_by_ranks(size: int, config: Config, folder: Path) -> dict[str, Any]:
    """Train on some ranks, and return what the run leaves."""
    on_ranks(size, lambda ranks: train(config, folder, QUIET) and None)
    return left_by(folder)


@pytest.mark.parametrize("case", CASES)
def test_growth_on_several_ranks_is_that_on_one(case, tmp_path):
    alone = left_by_ranks(1, CASES[case], tmp_path / "1")
    assert len(alone["changes"]) > 1 and bool(alone["decisions"]) == (case in ("search", "paths"))
    for size in (2, 3) if case == "paths" else (3,):
        shared = left_by_ranks(size, CASES[case], tmp_path / f"{size}")
        for part in DECIDED if case == "search" else alone:
            assert_alike(shared[part], alone[part], TOLERANCE)


@pytest.mark.parametrize("size", [1, 3])
def test_a_stream_goes_on_with_another_number_of_ranks(size, tmp_path):
    """Saved by two ranks, between growth and a text whose states are carried."""
    config, out = CASES["per_task, shared"], tmp_path / "run"

    def stopped(ranks: Ranks) -> None:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(27, patch)
            train(config, out, QUIET)

    on_ranks(2, stopped)
    assert load_checkpoint(out / "checkpoint" / "last.pt")["step"] == 25
    alone = left_by_ranks(1, config, tmp_path / "alone")
    assert_alike(left_by_ranks(size, config, out), alone, TOLERANCE)


def decided(ranks: Ranks, **training: Any) -> list[Any]:
    """Return what gradients, a race and pruning say between two steps of a run."""
    config = stream(
        *ALIKE,
        steps=80,
        modules={"low": {"input": True, "reads": ["low"]}, "high": {"output": True}},
        growth={"when": "search", "modules": PAIR},
        train=training,
    )
    run = set_up(config, print, ranks=ranks)
    train_step = TrainStep(run)
    for _ in range(4):
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1
    outcomes = [
        grow_within(run, "toy_rows", 0.1, 20),
        prune_modules(run, "toy_rows", 0.5, 3),
    ]
    evidence = [
        [str(edge), edge.accepted, torch.tensor(edge.p_value), torch.tensor(edge.norm)]
        for edge in edge_evidence(run, "toy_rows")
    ]
    assert len(evidence) == 1
    return evidence + [
        [entry.candidate, entry.chosen, torch.tensor(entry.score)]
        for outcome in outcomes
        for entry in outcome.record.candidates
    ]


@pytest.mark.parametrize(("combine", "size"), [("fixed", 3), ("upgrad", 2)])
def test_tests_within_an_experience_say_the_same_on_several_ranks(combine, size):
    (alone,) = on_ranks(1, lambda ranks: decided(ranks, combine=combine))
    for shared in on_ranks(size, lambda ranks: decided(ranks, combine=combine)):
        assert_alike(shared, alone, TOLERANCE)


class OfItsRank(Strategy):
    """A strategy that is not the same on all ranks."""

    def penalty(self, batches) -> torch.Tensor:
        weight = next(iter(self.context.network.parameters()))
        return weight.square().sum() * 1e-3 * distributed.get_rank()


class DrawsOfItsRank(Strategy):
    """A strategy that draws other numbers on one rank than on the other."""

    def after_update(self, batches) -> None:
        torch.rand(distributed.get_rank() + 1)


class GrowsByRank(GrowthRule):
    """A rule that lets the network grow on one rank only."""

    def begin_experience(self):
        attach = self.experience.number == 2 and distributed.get_rank() == 1
        return self.add_tasks(attach=attach)


@pytest.mark.parametrize(
    ("kind", "entry", "difference"),
    [
        ("strategy", OfItsRank, "rank 1 has weights at step 4 with checksum"),
        ("strategy", DrawsOfItsRank, "rank 1 has a random state at step 4 with checksum"),
        ("growth", GrowsByRank, "rank 1 has parameter "),
    ],
)
def test_ranks_that_differ_end_with_an_error(kind, entry, difference, tmp_path):
    strategy = {"strategy": "differs"} if kind == "strategy" else {}
    growth = {"when": "differs" if kind == "growth" else "per_task", "modules": OWN}

    def work(ranks: Ranks) -> str:
        with registered(kind, {"differs": entry}), pytest.raises(UserError) as error:
            config = stream(*ALIKE, growth=growth, train=strategy)
            train(config, tmp_path / "run", QUIET)
        return str(error.value)

    for text in on_ranks(2, work):
        assert difference in text and "rank 0" in text
    saved = load_checkpoint(tmp_path / "run" / "checkpoint" / "last.pt")["step"]
    assert saved == (10 if kind == "growth" else 0)  # the last time that they agreed


def test_a_search_by_hand_says_the_same_in_every_process():
    def decision(ranks: Ranks) -> list[Any]:
        torch.manual_seed(0)
        network = Network(ThalNet(inputs=3, modules=2, features=4))
        network.add_task("first", TaskSpec(inputs=3, outputs=2))
        xs = torch.rand(90, 5, 3)
        ys = (xs[:, -1, 0] > 0.5).long()
        data = (xs[:60], ys[:60]), (xs[60:], ys[60:])
        found = search(network, "second", data, budget=32, train={"batch": 20})
        found.apply(network)
        return [found.reason, network.state_dict(), network.describe()]

    (alone,) = on_ranks(1, decision)
    for shared in on_ranks(2, decision):
        assert_alike(shared, alone, 0)
