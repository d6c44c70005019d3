"""Every strategy on every kind of target: resuming, and what it remembers, by the formula of each.

Losses are computed by hand, with functions of PyTorch on the targets that are there.
"""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import kill_and_resume
import pytest
import torch
from stream_fixtures import STRATEGIES, save_scored, step_until
from torch.nn import functional as F
from toy_tasks import STREAM, knobs_of, toy

from benchmarks.continual.strategy_table import FILE, KINDS, configuration, table
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries, register
from thalnet_mtl.strategies import ewc, gem
from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.strategies.ewc import fisher_information, training_sequences
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.losses import make_loss
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.training.checkpoint import resume_run
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import make_strategy, set_up
from thalnet_mtl.training.state import NOT_TRAINED
from thalnet_mtl.training.step import StepInputs, TrainStep

OURS = [name for name in STRATEGIES if not name.startswith("toy_")]
STEPS = 4  # of an experience
every_kind = pytest.mark.parametrize("kind", KINDS)


def run_of(strategy, kind, stop=0, choice="reservoir", **options):
    """A run of a cell, with plain SGD, after some steps."""
    knobs = knobs_of(strategy, strength=3.0, memory=12, choice=choice)
    options = {"optimizer": "sgd", "learning_rate": 0.1} | options
    run = set_up(configuration(strategy, kind, STEPS, strategy=knobs, train=options), fetch=print)
    step_until(run, stop)
    return run


def hand_loss(kind, outputs, ys, reduction="mean"):
    """The loss of outputs by PyTorch, over the targets that are there."""
    if kind in ("labels", "numbers", "numbers at every step"):
        there = ~ys.isnan()
        function = F.binary_cross_entropy_with_logits if kind == "labels" else F.mse_loss
        return function(outputs[there], ys[there], reduction=reduction)
    return F.cross_entropy(outputs.flatten(0, -2), ys.flatten(), reduction=reduction)


def gradients(loss, run):
    named = trainable_parameters(run.network)
    values = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return dict(zip(named, values, strict=True))


def batch_of(run, task, step=0):
    return run.tasks[task].training_batch(step, 10, 4, 0)


def outputs_of(network, task, batch):
    return network(task, batch.xs, None, batch.lengths)[0]


def assert_near(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_the_table_is_current():
    assert FILE.read_text() == table()


@cache
def naive_weights(kind, stop):
    return dict(run_of("naive", kind, stop).network.named_parameters())


@every_kind
@pytest.mark.parametrize("strategy", OURS)
def test_a_strategy_acts_from_the_second_experience_on_and_resumes_to_the_same_bits(
    tmp_path, monkeypatch, strategy, kind
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    whole = run_of(strategy, kind, STEPS)
    first = {name: p.detach().clone() for name, p in whole.network.named_parameters()}
    save_scored(tmp_path / "run", whole)
    cut = run_of(strategy, kind)
    resume_run(tmp_path / "run", cut)
    step_until(cut, STEPS + 2)
    save_scored(tmp_path / "run", cut)
    cut = run_of(strategy, kind)
    resume_run(tmp_path / "run", cut)
    leaves = []
    for run in (whole, cut):
        step_until(run, 2 * STEPS)
        save_scored(tmp_path / "end", run)
        leaves.append(kill_and_resume.flatten(torch.load(tmp_path / "end", weights_only=True)))
    assert leaves[0].keys() == leaves[1].keys()
    different = [k for k, v in leaves[0].items() if not kill_and_resume.equal(v, leaves[1][k])]
    assert different == []
    naive = naive_weights(kind, 2 * STEPS)
    same = [torch.equal(naive[name], p) for name, p in whole.network.named_parameters()]
    assert all(same) == (strategy == "naive")
    naive = naive_weights(kind, STEPS)
    assert all(torch.equal(naive[name], p) for name, p in first.items())


@every_kind
def test_a_plain_step_follows_the_gradient_of_the_loss(kind):
    run = run_of("naive", kind)
    batch = batch_of(run, "a")
    expected = gradients(hand_loss(kind, outputs_of(run.network, "a", batch), batch.ys), run)
    before = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    step_until(run, 1)
    moved = {n: (before[n] - p.detach()) / 0.1 for n, p in run.network.named_parameters()}
    assert_near(moved, expected)
    assert any(value.any() for value in expected.values())


@every_kind
def test_fisher_information_is_that_of_targets_sampled_from_the_answers(monkeypatch, kind):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run, drawn = run_of("ewc", kind, 2), []
    real = Task.sample

    def watching(self, outputs, batch, generator):
        sampled = real(self, outputs, batch, generator)
        drawn.append(sampled.ys)
        return sampled

    monkeypatch.setattr(Task, "sample", watching)
    found = fisher_information(run, "a")
    assert len(drawn) == 10
    squares = []
    for ys, batch in zip(drawn, training_sequences(run, "a"), strict=True):
        steps = None if batch.lengths is None else int(batch.lengths[0])
        xs = batch.map(lambda part, steps=steps: part[:, :steps] if part.ndim > 1 else part).xs
        loss = hand_loss(kind, run.network("a", xs)[0], ys, "sum")
        squares.append({n: g.square() for n, g in gradients(loss, run).items()})
    assert_near(found, {n: sum(part[n] for part in squares) / 10 for n in found})
    assert sum(value.sum() for value in found.values()) > 0


@pytest.mark.parametrize("kind", ["labels", "numbers", "numbers at every step"])
def test_the_fisher_information_of_a_head_is_its_closed_form_on_average(monkeypatch, kind):
    """With features x: σ (1 - σ) x² of a label, 2 x² of a number."""
    monkeypatch.setattr(ewc, "SAMPLES", 600)
    run = run_of("ewc", kind, 2)
    head, features = run.network.adapter("a").head, []
    hook = head.register_forward_hook(lambda module, args, output: features.append(args[0]))
    data = run.tasks["a"].sequences("train", 4)
    outputs = outputs_of(run.network, "a", run.tasks["a"].to_batch(data))
    hook.remove()
    xs = features[0].detach()
    if kind == "labels":
        information = outputs.sigmoid() * (1 - outputs.sigmoid())
    else:
        information = torch.full_like(outputs, 2.0)
    terms = information[..., None] * xs[..., None, :].square()
    # Noise of one step is independent of that of the others: the steps of a sequence add up.
    expected = (terms.sum(1) if run.tasks["a"].spec.every_step else terms).mean(0).detach()
    found = fisher_information(run, "a")["adapters.a.head.weight"]
    torch.testing.assert_close(found.sum(0), expected.sum(0), rtol=0.15, atol=0.0)


@every_kind
def test_the_importance_of_synaptic_intelligence_is_that_of_the_loss(kind):
    run = run_of("si", kind)
    batch = batch_of(run, "a")
    slope = gradients(hand_loss(kind, outputs_of(run.network, "a", batch), batch.ys), run)
    step_until(run, 1)
    # A step of plain gradient descent moves by -0.1 g, so that ω = 0.1 g².
    assert_near(run.state.strategy.path, {n: 0.1 * g.square() for n, g in slope.items()})


def distance(kind, student, teacher):
    """The distance of answers by hand: T² KL of classes and labels, the squared one of numbers."""
    if kind.startswith("numbers"):
        return (student - teacher).square().mean()
    if kind == "labels":
        pairs = [torch.stack([z / 2, torch.zeros_like(z)], -1) for z in (student, teacher)]
        q, p = (pair.softmax(-1) for pair in pairs)
    else:
        q, p = (student / 2).softmax(-1), (teacher / 2).softmax(-1)
    return 4 * (p * (p / q).log()).sum(-1).mean()


@every_kind
def test_distillation_is_zero_for_the_old_network_and_the_distance_to_it_later(kind):
    run = run_of("lwf", kind, STEPS)
    batch = batch_of(run, "b")
    run.network.zero_grad()
    penalty = run.state.strategy.penalty({"b": batch})
    penalty.backward()
    assert abs(penalty.item()) < 1e-6
    assert all(p.grad.abs().max() < 1e-6 for p in run.network.parameters() if p.grad is not None)
    teacher = deepcopy(run.network)
    step_until(run, STEPS + 2)
    student, old = (outputs_of(network, "a", batch) for network in (run.network, teacher))
    found = run.state.strategy.penalty({"b": batch}).item()
    assert found == pytest.approx(3 * distance(kind, student, old).item(), rel=1e-3, abs=1e-7)
    assert found > 1e-6


@every_kind
@pytest.mark.parametrize("choice", ["reservoir", "per_class"])
def test_replay_adds_the_loss_of_what_is_stored(kind, choice):
    run = run_of("replay", kind, STEPS + 1, choice, batch=12)
    stored = run.state.strategy.stored["a"].data
    assert len(stored.ys) == 12 and list(run.state.strategy.stored) == ["a"]
    assert run.tasks["a"].target.present(stored.ys).reshape(12, -1).any(1).all()
    if choice == "per_class" and stored.ys.ndim == 1:
        assert stored.ys.unique(return_counts=True)[1].tolist() == [4, 4, 4]
    expected = hand_loss(kind, outputs_of(run.network, "a", stored), stored.ys)
    assert run.state.strategy.penalty({}).item() == pytest.approx(expected.item(), rel=1e-5)


@every_kind
@pytest.mark.parametrize("strategy", ["agem", "gem"])
def test_a_projected_gradient_does_not_raise_the_loss_of_what_is_stored(
    monkeypatch, strategy, kind
):
    monkeypatch.setattr(gem, "MARGIN", 0.0)
    run = run_of(strategy, kind, STEPS + 1, batch=12)
    stored = run.state.strategy.stored["a"].data
    reference = gradients(hand_loss(kind, outputs_of(run.network, "a", stored), stored.ys), run)
    TrainStep(run).flat_optimizer()
    generator = torch.Generator().manual_seed(0)
    before = {}
    for name, p in trainable_parameters(run.network).items():
        before[name] = 0.01 * torch.randn(p.shape, generator=generator) - reference[name]
        p.grad.copy_(before[name])
    along = sum((before[name] * reference[name]).sum() for name in before)
    square = sum(g.square().sum() for g in reference.values())
    assert along < 0
    run.state.strategy.before_update()
    expected = {name: before[name] - along / square * reference[name] for name in before}
    assert_near({n: p.grad for n, p in trainable_parameters(run.network).items()}, expected)


def logarithmic(outputs, targets):
    """Poisson's loss of a rate exp(ŷ), for counts; here of the logarithm of a positive number."""
    return (outputs - targets.log()).square()


@pytest.mark.parametrize("strategy", ["ewc", "online_ewc"])
def test_a_loss_without_gradient_at_sampled_numbers_is_refused_before_training(
    monkeypatch, strategy
):
    run = run_of("naive", "numbers")
    for task in run.tasks.values():
        task.loss_function = make_loss(logarithmic)
    run.config = replace(run.config, train=replace(run.config.train, strategy=strategy))
    with pytest.raises(UserError, match="task 'a': its loss has no gradient at some numbers"):
        make_strategy(run)


def test_distillation_that_cannot_happen_is_announced():
    run = set_up(toy(**STREAM, train={"strategy": "lwf"}), fetch=print)
    assert run.state.strategy.notice.startswith("lwf has no effect, because no two tasks")
    assert not run_of("lwf", "labels").state.strategy.notice


def test_sequences_without_any_target_are_never_stored():
    for strategy in ("replay", "gem"):
        run = run_of(strategy, "numbers", 2 * STEPS)
        stored = run.state.strategy.stored
        assert sum(len(part.keys) for part in stored.values()) == 12
        assert all((~part.data.ys.isnan()).any(1).all() for part in stored.values())


@pytest.mark.parametrize("name", list(entries("weighting")))
def test_joint_steps_with_rows_that_lack_the_targets_of_a_task_train_with_every_weighting(name):
    """Two of three batches of a single row have no target for the first task."""
    sections = {"tasks": {"a": {"name": "toy_sparse"}, "b": {"name": "toy_full"}}, "stream": []}
    options = {"combine": name, "batch": 1, "optimizer": "sgd", "steps": 12}
    run = set_up(toy(**sections, train=options), fetch=print)
    losses, step = [], TrainStep(run)
    for run.state.step in range(12):
        losses.append(step(StepInputs(next_batches(run), 0.01)))
    rows = torch.stack(losses)
    absent = rows[:, 0] == NOT_TRAINED
    assert 4 <= absent.sum() < 12 and rows[:, 1].isfinite().all() and rows[~absent].isfinite().all()
    assert all(p.isfinite().all() for p in run.state.named_parameters().values())


def sparse(name, missing):
    def make():
        xs = torch.rand(60, 4, 3, generator=torch.Generator().manual_seed(0))
        ys = xs[:, -1, :1].clone()
        ys[torch.arange(60) % 3 < missing] = torch.nan
        data = dict.fromkeys(("train", "validation", "test"), (xs, ys))
        return SequenceTask(name, data, target="numbers")

    register("task", name)(make)


sparse("toy_sparse", 2)
sparse("toy_full", 0)


FOUR = ["one class", "labels", "numbers at every step", "unequal lengths"]
OWN = {"own": {"input": True, "output": True, "features": 3, "context": 3}}


@pytest.mark.parametrize(
    ("strategy", "policy"),
    [*((name, "shared") for name in OURS), *((name, "frozen") for name in ("ewc", "lwf", "gem")),
     ("replay", "never")],
)  # fmt: skip
def test_a_stream_of_four_kinds_of_target_grows_and_resumes_to_the_same_bits(
    tmp_path, monkeypatch, strategy, policy
):
    monkeypatch.setattr(ewc, "SAMPLES", 5)
    names = [KINDS[kind] for kind in FOUR]
    grows = {"when": "per_task", "policy": policy, "modules": OWN}
    config = toy(
        tasks={name: {} for name in names},
        stream=[{"tasks": [name], "steps": 3} for name in names],
        growth={} if policy == "never" else grows,
        strategy=knobs_of(strategy, memory=12, choice="per_class"),
        train={"strategy": strategy, "learning_rate": 0.003},
    )
    leaves = []
    for cuts in ((), (5, 9)):
        run = set_up(config, fetch=print)
        for stop in (*cuts, 12):
            step_until(run, stop)
            save_scored(tmp_path / "run", run)
            if stop in cuts:
                run = set_up(config, fetch=print)
                resume_run(tmp_path / "run", run)
        leaves.append(kill_and_resume.flatten(torch.load(tmp_path / "run", weights_only=True)))
    assert leaves[0].keys() == leaves[1].keys()
    different = [k for k, v in leaves[0].items() if not kill_and_resume.equal(v, leaves[1][k])]
    assert different == [] and all(p.isfinite().all() for p in run.network.parameters())
    if hasattr(run.state.strategy, "stored"):  # 12 // (3 + 4 + 1 + 3), labels also without any
        counts = [len(part.keys) for part in run.state.strategy.stored.values()]
        assert counts == [3, 4, 1, 3]
