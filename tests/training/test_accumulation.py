"""A step in several passes is the step in a single one, and needs less memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stream_fixtures import make_run
from torch import Tensor
from toy_tasks import toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

KINDS: dict[str, dict[str, Any]] = {
    "rows": {"name": "toy_rows"},
    "text": {"name": "toy_text", "batch": 7},
    "class": {"name": "toy_kinds", "missing": 0.5, "lengths": True},
    "each": {"name": "toy_kinds", "answer": "each", "missing": 0.3, "lengths": True},
    "labels": {"name": "toy_kinds", "answer": "labels", "missing": 0.4},
    "numbers": {"name": "toy_kinds", "answer": "numbers"},
    "weighted": {"name": "toy_weighted"},
}


def steps(passes: int, tasks: list[str], count: int = 3, **train: Any) -> tuple[RunContext, list]:
    """The losses of a few steps in float64, of a ThalNet with carried states of text."""
    sections = {"tasks": {name: KINDS[name] for name in tasks}}
    config = toy(**sections, train={"accumulate": passes, "optimizer": "sgd"} | train)
    run = set_up(config, fetch=print)
    run.network.double()
    run.state.weighting.double()
    run.state.loss_log = run.state.loss_log.double()
    step, losses = TrainStep(run), []
    for _ in range(count):
        losses.append(step(StepInputs(next_batches(run), 0.05)))
        run.state.step += 1
    return run, losses


@pytest.fixture
def in_float64(monkeypatch):
    """Inputs of every batch in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_equal_runs(first: tuple[RunContext, list], second: tuple[RunContext, list]) -> None:
    for ours, theirs in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    other = dict(second[0].network.named_parameters())
    for name, parameter in first[0].network.named_parameters():
        torch.testing.assert_close(parameter, other[name], rtol=1e-11, atol=1e-12)
    for task, state in first[0].state.carried_states.items():
        for mine, its in zip(state, second[0].state.carried_states[task], strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("tasks", [[name] for name in KINDS] + [list(KINDS)])
def test_steps_in_several_passes_equal_steps_in_one(tasks):
    train = {"clip": 1.0, "combine": "uncertainty"}
    assert_equal_runs(steps(3, tasks, **train), steps(1, tasks, **train))


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("combine", ["upgrad", "pcgrad", "imtl_g"])
def test_aggregators_get_the_gradients_of_whole_batches(combine):
    pytest.importorskip("torchjd")
    tasks = ["rows", "class", "labels"]
    torch.manual_seed(0)  # PCGrad draws an order
    first = steps(4, tasks, combine=combine)
    torch.manual_seed(0)
    assert_equal_runs(first, steps(1, tasks, combine=combine))


@pytest.mark.parametrize("strategy", ["replay", "ewc", "si", "lwf", "agem"])
def test_strategies_see_the_whole_batch(strategy):
    from stream_fixtures import step_until

    runs = [make_run(strategy, accumulate=passes) for passes in (1, 3)]
    for run in runs:
        step_until(run, 20)
    other = dict(runs[1].network.named_parameters())
    for name, parameter in runs[0].network.named_parameters():
        torch.testing.assert_close(parameter, other[name], rtol=1e-5, atol=1e-6)


def saved_bytes(passes: int, act: Callable[[TrainStep, StepInputs], Any]) -> int:
    """The largest number of bytes that autograd keeps for a backward pass at any moment."""
    config = toy(
        tasks={"a": {"name": "toy_kinds", "answer": "each"}, "b": {"name": "toy_wide"}},
        model={"body": "gru", "layers": 1},
        train={"batch": 120, "accumulate": passes},
    )
    run = set_up(config, fetch=print)
    step, inputs = TrainStep(run), StepInputs(next_batches(run), 0.01)
    parameters = {p.data_ptr() for p in run.network.parameters()}
    kept: list[int] = [0, 0]  # now, and at most

    class Kept:
        def __init__(self, tensor: Tensor):
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            if tensor.data_ptr() in parameters:
                self.size = 0
            kept[0] += self.size
            kept[1] = max(kept)

        def __del__(self) -> None:
            kept[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda part: part.tensor):
        act(step, inputs)
    return kept[1]


def test_activations_of_one_part_are_in_memory_at_a_time():
    whole, parts = (saved_bytes(passes, TrainStep.__call__) for passes in (1, 4))
    assert parts < 0.3 * whole


class Watcher(Strategy):
    """A strategy that keeps the sizes of the batches that it sees."""

    def after_update(self, batches):
        self.sizes = {name: len(batch.ys) for name, batch in batches.items()}


def test_a_strategy_is_told_of_the_batch_and_not_of_its_parts():
    run, _ = steps(3, ["rows", "text"], count=0)
    run.state.strategy = watcher = Watcher(run)
    TrainStep(run)(StepInputs(next_batches(run), 0.01))
    assert watcher.sizes == {"rows": 10, "text": 7}


def test_more_passes_than_sequences_are_refused():
    tasks = {"a": {"name": "toy_rows"}, "b": {"name": "toy_text", "batch": 3}}
    message = "accumulate 4: a batch of task 'b' has only 3 sequences"
    with pytest.raises(UserError, match=message) as error:
        set_up(toy(tasks=tasks, train={"accumulate": 4}), fetch=print)
    assert "\n" not in str(error.value)
