"""Tasks on the same sequences take one batch, and one pass of the body."""

from typing import Any

import pytest
import torch
from run_fixtures import interrupt_at, lines
from toy_tasks import toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.state import NOT_TRAINED
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.trainer import train

KINDS = {"a": "class", "b": "labels", "c": "numbers", "d": "each"}


def tasks(shared: bool, **options: Any) -> dict[str, dict[str, Any]]:
    """Four kinds of target of the same sequences, some of them missing."""
    entries: dict[str, dict[str, Any]] = {
        name: {"name": "toy_kinds", "answer": answer, "lengths": True, "missing": 0.4} | options
        for name, answer in KINDS.items()
    }
    for name in "bcd" if shared else "":
        entries[name]["inputs_of"] = "a"
    return entries


def steps(shared: bool, count: int = 16, **train: Any):
    """A run after some steps, more than an epoch, and the number of passes of the body."""
    torch.set_default_dtype(torch.float64)
    try:
        config = toy(tasks=tasks(shared), train={"optimizer": "sgd", "clip": 1.0} | train)
        run = set_up(config, fetch=print)
        run.state.loss_log = run.state.loss_log.double()
        step, losses, passes = TrainStep(run), [], []
        run.network.body.register_forward_hook(lambda *args: passes.append(1))
        for _ in range(count):
            losses.append(step(StepInputs(next_batches(run), 0.05)))
            run.state.step += 1
    finally:
        torch.set_default_dtype(torch.float32)
    return run, losses, len(passes)


@pytest.mark.parametrize(
    "options",
    [{}, {"combine": "uncertainty"}, {"combine": "upgrad"}, {"accumulate": 3}],
    ids=lambda options: "-".join(map(str, options.values())) or "fixed",
)
def test_one_pass_of_the_body_gives_the_gradients_of_separate_passes(options):
    if options.get("combine") == "upgrad":
        pytest.importorskip("torchjd")
    (run, losses, passes), (other, expected, separate) = (
        steps(shared, **options) for shared in (True, False)
    )
    parts = options.get("accumulate", 1)
    assert passes == 16 * parts and separate == 4 * 16 * parts
    for ours, theirs in zip(losses, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    known = dict(other.network.named_parameters())
    for name, parameter in run.network.named_parameters():
        torch.testing.assert_close(parameter, known[name], rtol=1e-9, atol=1e-11)


def test_tasks_with_encoders_or_modules_of_their_own_run_alone():
    modules = {
        "eye": {"input": True, "output": True},
        "own": {"input": True, "output": True, "tasks": ["c"]},
    }
    run = set_up(toy(tasks=tasks(shared=True), modules=modules), fetch=print)
    passes: list[int] = []
    run.network.body.register_forward_hook(lambda *args: passes.append(1))
    TrainStep(run)(StepInputs(next_batches(run), 0.05))
    assert len(passes) == 2


def test_inputs_are_in_memory_once():
    run = set_up(toy(tasks=tasks(shared=True)), fetch=print)
    pointers = {
        task.split(split).xs.data_ptr()
        for task in run.tasks.values()
        for split in ("train", "validation", "test")
    }
    assert len(pointers) == 3
    batches = next_batches(run)
    assert all(batch.xs is batches["a"].xs for batch in batches.values())


def test_a_stream_shares_a_pass_where_tasks_meet_and_resumes_to_the_same_bits(
    tmp_path, monkeypatch
):
    stream = [{"tasks": names, "steps": 8} for names in (["a"], ["b", "c"], ["d", "a"])]
    sections = {"tasks": tasks(shared=True), "stream": stream}
    sections["evaluate"] = {"checkpoint_every": 5, "every": 8, "log_every": 4}
    config = toy(**sections, train={"strategy": "replay"})
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as context:
        interrupt_at(13, context)
        with pytest.raises(SystemExit):
            train(config, tmp_path / "killed")
    assert train(config, tmp_path / "killed").continual.scores == whole.continual.scores
    values = [[x["value"] for x in lines(tmp_path / name)] for name in ("whole", "killed")]
    assert values[0] == values[1]


def test_growth_with_shared_inputs_trains_every_task(tmp_path):
    stream = [{"tasks": ["a", "b"], "steps": 10}, {"tasks": ["c", "d"], "steps": 10}]
    growth = {"when": "per_task", "modules": {"in": {"input": True}, "out": {"output": True}}}
    config = toy(tasks=tasks(shared=True), stream=stream, growth=growth)
    assert list(train(config, tmp_path).tasks) == list(KINDS)


def test_a_batch_without_targets_of_a_task_is_no_loss_of_zero():
    entries = tasks(shared=True) | {"b": tasks(shared=True)["b"] | {"missing": 0.97}}
    run = set_up(toy(tasks=entries, train={"batch": 3}), fetch=print)
    step, empty = TrainStep(run), []
    for _ in range(25):
        inputs = StepInputs(next_batches(run), 0.01)
        loss = dict(zip(run.tasks, step(inputs).tolist(), strict=True))["b"]
        empty.append(bool(inputs.batches["b"].ys.isnan().all()))
        assert (loss == NOT_TRAINED) == empty[-1] and loss != 0
    assert {*empty} == {True, False}


@pytest.mark.parametrize(
    ("change", "train", "message"),
    [
        ({"inputs_of": "aa"}, {}, r"tasks\.b\.inputs_of: unknown task 'aa'.*Did you mean 'a'"),
        ({"inputs_of": "b"}, {}, r"tasks\.b\.inputs_of: unknown task 'b'"),
        ({"inputs_of": "c"}, {}, "has its inputs from 'a'; name 'a'"),
        ({"batch": 7}, {}, r"tasks\.b\.batch 7: .* 'a', of 10 sequences"),
        ({}, {"draw": 1.0}, "no pass serves two"),
        ({"rows": 210}, {}, "'b' cannot take .* 'a': they have 150 and 140 training sequences"),
        ({"lengths": False}, {}, "only one of them has sequences of unequal length"),
        ({"seed": 3}, {}, r"cannot take the inputs of 'a': sequence \d+ has \d and \d steps"),
        ({"name": "toy_text"}, {}, "'b' cannot share its inputs.*not a TextTask"),
    ],
)
def test_tasks_that_cannot_share_are_refused_in_one_line(change, train, message):
    entries = tasks(shared=True)
    if "name" in change:
        entries["b"] = {"inputs_of": "a"}
    entries["b"] |= change
    with pytest.raises(UserError, match=message) as error:
        set_up(toy(tasks=entries, train=train), fetch=print)
    assert "\n" not in str(error.value)


def test_the_first_sequence_with_other_inputs_is_named():
    run = set_up(toy(tasks=tasks(shared=False, missing=0.0)), fetch=print)
    first, second = run.tasks["a"], run.tasks["b"]
    second.split("train").xs[17, 0, 0] += 1
    with pytest.raises(
        UserError, match=r"'b' cannot take .* 'a': the inputs of sequence 17 differ"
    ):
        second.share_inputs(first)


def test_tasks_with_a_transform_do_not_share():
    run = set_up(toy(tasks=tasks(shared=False)), fetch=print)
    run.tasks["a"].transform = lambda batch, generator: batch
    with pytest.raises(UserError, match="a transform of batches may change inputs and targets"):
        run.tasks["b"].share_inputs(run.tasks["a"])
