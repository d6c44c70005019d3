"""Strategies against the formulas of their papers, written out again in plain PyTorch."""

import json
from copy import deepcopy
from functools import cache

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at
from stream_fixtures import (
    STRATEGIES,
    THREE,
    TWO,
    assert_same_weights,
    batches,
    follow_optimizer,
    go,
    made,
    plain,
    sgd,
)
from torch.nn import functional as F
from toy_tasks import GROWING, STREAM, toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.strategies.ewc import fisher_information
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training import growth
from thalnet_mtl.training.checkpoint import resume_run, save_run
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.topology_changes import on_topology_change
from thalnet_mtl.training.trainer import Trainer, train

# Elastic weight consolidation


def record_draws(monkeypatch):
    draws = []
    real = torch.multinomial

    def watching(odds, *args, **options):
        found = real(odds, *args, **options)
        draws.append((odds.double(), found.flatten()))
        return found

    monkeypatch.setattr(torch, "multinomial", watching)
    return draws


def test_the_fisher_information_of_softmax_regression_is_its_closed_form(monkeypatch):
    run = made("ewc")
    monkeypatch.setattr(ewc, "SAMPLES", 2100)  # every sequence seven times
    draws = record_draws(monkeypatch)
    found = fisher_information(run, "a")
    xs = torch.cat([xs[:, -1] for xs, _ in batches(run, "a", 210)]).double()
    head = run.network.adapter("a").head
    odds = (xs @ head.weight.T + head.bias).softmax(-1).detach()
    torch.testing.assert_close(torch.cat([odds for odds, _ in draws]), odds, rtol=1e-5, atol=1e-6)
    error = F.one_hot(torch.cat([drawn for _, drawn in draws]), 3) - odds
    # Of the very answers that were drawn it is exact,
    exact = {
        "adapters.a.head.bias": error.square().mean(0),
        "adapters.a.head.weight": (error[:, :, None] * xs[:, None]).square().mean(0),
        "body.scale": ((error @ head.weight.detach()) * xs).square().mean(0),
    }
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)
    # and on average over all answers p (1 - p) x², as in any book.
    closed = (odds * (1 - odds))[:, :, None] * xs.square()[:, None]
    sampled = (error[:, :, None] * xs[:, None]).square()
    sure = 4 * (sampled - closed).std(0) / 2100**0.5
    assert ((found["adapters.a.head.weight"] - closed.mean(0)).abs() < sure).all()
    assert (sure < 0.6 * closed.mean(0)).all()


def test_the_answers_of_a_fisher_information_are_the_networks_own(monkeypatch):
    run = made("ewc")
    with torch.no_grad():  # as good as never class 0, which a third of all sequences have
        run.network.adapter("a").head.bias[0] = -50
    assert fisher_information(run, "a")["adapters.a.head.bias"][0] < 1e-12


def test_the_fisher_information_of_a_text_is_that_of_whole_sequences(monkeypatch):
    sections = {"tasks": {"toy_text": {}}, "stream": [{"tasks": ["toy_text"], "steps": 5}]}
    run = made("ewc", sections)
    draws = record_draws(monkeypatch)
    found = fisher_information(run, "toy_text")["adapters.toy_text.head.weight"]
    squares = []
    xs = torch.cat([xs for xs, _ in batches(run, "toy_text", 20)])[:200]
    assert len(draws) == 200
    for tokens, (odds, drawn) in zip(xs, draws, strict=True):
        rows = F.one_hot(tokens, 5).double() * 5**0.5
        error = F.one_hot(drawn, 5) - odds
        squares.append((error.T @ rows).square())  # first the sum over time, then the square
    torch.testing.assert_close(found, torch.stack(squares).mean(0), rtol=1e-4, atol=1e-6)


def test_the_fisher_information_of_tasks_learned_together_is_their_sum():
    run = made("ewc", {"tasks": TWO["tasks"], "stream": [{"tasks": ["a", "b"], "steps": 3}]})
    parts = [fisher_information(run, task)["body.scale"] for task in "ab"]
    run.state.strategy.after_experience(run.experience)
    [(_, weight)] = run.state.strategy.anchors
    assert torch.equal(weight["body.scale"], parts[0] + parts[1])


def random_anchors(run: RunContext, count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(
            {n: torch.rand(p.shape, generator=generator).double()
             for n, p in trainable_parameters(run.network).items()}
            for _ in range(2)
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", ["ewc", "online_ewc", "si"])
def test_the_penalty_and_its_gradient_are_the_quadratic_of_every_anchor(strategy):
    run = made(strategy)
    run.state.strategy.anchors = random_anchors(run, 2)
    loss = run.state.strategy.penalty({})
    value, expected = 0.0, {}
    for anchor, weight in run.state.strategy.anchors:
        for name, p in run.network.named_parameters():
            far = p.detach() - anchor[name]
            value += 3 / 2 * (weight[name] * far**2).sum().item()
            expected[name] = expected.get(name, 0) + 3 * weight[name] * far
    assert loss.item() == pytest.approx(value, rel=1e-12)
    loss.backward()
    for name, p in run.network.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("body", ["toy_scale", "gru"])
def test_ewc_keeps_an_anchor_for_every_experience_and_trains_as_a_plain_loop(body):
    run = made("ewc", THREE, body)
    go(run, 12)
    network = deepcopy(run.network)
    first = deepcopy(run.state.strategy.anchors[0])
    optimizer = follow_optimizer(run, network)
    for name, p in network.named_parameters():
        torch.testing.assert_close(first[0][name], p.detach(), rtol=0, atol=0)

    def penalty(network, xs):
        now = dict(network.named_parameters())
        return (
            3
            / 2
            * sum(
                (weight[n] * (now[n] - anchor[n]) ** 2).sum()
                for anchor, weight in run.state.strategy.anchors[:1]
                for n in weight
            )
        )

    # What no task of the step uses has no gradient and does not move.
    network.adapters["a"].requires_grad_(False)
    go(run, 24)
    plain(network, "b", batches(run, "b", 12), penalty, optimizer=optimizer)
    assert_same_weights(run, network)
    assert len(run.state.strategy.anchors) == 2
    for one, other in zip(first, run.state.strategy.anchors[0], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_online_ewc_has_one_anchor_and_forgets_by_its_decay(monkeypatch):
    run = made("online_ewc", THREE, knobs={"decay": 0.7})
    found = []
    real = fisher_information

    def watching(run, task):
        found.append({n: v.clone() for n, v in real(run, task).items()})
        return real(run, task)

    monkeypatch.setattr(ewc, "fisher_information", watching)
    go(run, 36)
    [(anchor, weight)] = run.state.strategy.anchors
    for name, p in run.network.named_parameters():
        assert torch.equal(anchor[name], p.detach())
        terms = [f.get(name, torch.zeros(())) for f in found]
        expected = 0.7 * (0.7 * terms[0] + terms[1]) + terms[2]
        torch.testing.assert_close(weight[name], expected.expand_as(p), rtol=1e-12, atol=0)


# Synaptic intelligence


def test_synaptic_intelligence_is_the_path_integral_of_a_plain_loop():
    run = made("si", THREE, "gru")
    network = deepcopy(run.network)
    omega: dict = {}  # Ω
    anchor: dict = {}
    optimizer = sgd(network)
    for number, task in enumerate("abc"):
        go(run, 12 * (number + 1))
        start = {n: p.detach().clone() for n, p in network.named_parameters()}
        path = {n: torch.zeros_like(p) for n, p in start.items()}
        # Heads of other tasks have no gradient and do not move.
        users = {n: f"adapters.{task}." in n or n.startswith("body.") for n in start}
        for name, p in network.named_parameters():
            p.requires_grad_(users[name])

        def after(gradients, moved, path=path):
            for name in gradients:
                path[name] -= gradients[name] * moved[name]

        def penalty(network, xs):
            now = dict(network.named_parameters())
            return 3 * sum((omega[n] * (now[n] - anchor[n]) ** 2).sum() for n in omega)

        def learned(network, xs):
            return penalty(network, xs) if omega else 0

        plain(network, task, batches(run, task, 12), learned, after, optimizer)
        for name, p in network.named_parameters():
            far = p.detach() - start[name]
            omega[name] = omega.get(name, 0) + path[name].clamp(min=0) / (far**2 + 0.1)
            anchor[name] = p.detach().clone()
        assert_same_weights(run, network)
        [(theirs, weight)] = run.state.strategy.anchors
        for name in omega:
            torch.testing.assert_close(weight[name] / 2, omega[name], rtol=1e-3, atol=1e-9)
            torch.testing.assert_close(theirs[name], anchor[name], rtol=2e-5, atol=2e-6)
    assert max(value.max() for value in omega.values()) > 1e-3  # there was something to compare


# Learning without forgetting


def test_learning_without_forgetting_is_hintons_distance_at_temperature_two():
    run = made("lwf", body="gru")
    go(run, 12)
    teacher = deepcopy(run.network)
    network = deepcopy(run.network)
    optimizer = follow_optimizer(run, network)

    def distance(network, xs):
        p = (teacher("a", xs)[0] / 2).softmax(-1).detach()
        q = (network("a", xs)[0] / 2).softmax(-1)
        return 3.0 * 4 * (p * (p.log() - q.log())).sum(-1).mean()

    go(run, 24)
    plain(network, "b", batches(run, "b", 12), distance, optimizer=optimizer)
    assert_same_weights(run, network)
    head = run.network.adapter("a").head.weight
    assert not torch.equal(head, teacher.adapter("a").head.weight)  # old heads learn to stay right


def test_the_old_answers_are_those_from_before_the_experience():
    run = made("lwf", THREE, body="gru")
    go(run, 24)
    teacher = run.state.strategy.teacher
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    assert all(torch.equal(before[n], w) for n, w in run.network.state_dict().items())
    go(run, 30)
    assert all(torch.equal(before[n], w) for n, w in teacher.state_dict().items())
    assert not torch.equal(before["adapters.c.head.weight"], run.network.adapters["c"].head.weight)


def test_what_a_network_knew_is_asked_without_dropout():
    run = made("lwf", body="gru", dropout=0.5)
    go(run, 12)
    before = fisher_information(run, "a"), run.network.dropout
    (xs, _), teacher = batches(run, "b", 12)[0], run.state.strategy.teacher
    assert torch.equal(teacher("a", xs)[0], teacher("a", xs)[0])
    resumed = run.state.strategy.state_dict()
    run.state.strategy.load_state_dict(resumed)
    read = run.state.strategy.teacher.double()
    torch.testing.assert_close(read("a", xs)[0], teacher("a", xs)[0], rtol=1e-5, atol=1e-6)
    again = fisher_information(run, "a")
    assert all(torch.equal(before[0][name], again[name]) for name in again) and before[1] == 0.5


def test_old_answers_of_a_text_are_compared_at_every_step():
    text = {"a": {"name": "toy_text"}, "b": {"name": "toy_text"}}
    run = made("lwf", TWO | {"tasks": text}, body="gru")
    go(run, 15)
    batch = run.tasks["b"].training_batch(7, 10, 7, 0)
    p = (run.state.strategy.teacher("a", batch.xs)[0] / 2).softmax(-1)
    q = (run.network("a", batch.xs)[0] / 2).softmax(-1)
    expected = 3.0 * 4 * (p * (p / q).log()).sum(-1).mean()
    found = run.state.strategy.penalty({"b": batch})
    assert found.item() == pytest.approx(expected.item(), rel=1e-4) and found.item() > 0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_old_tasks_that_cannot_take_the_new_inputs_are_left_alone(optimizer):
    run = made("lwf", STREAM, "gru", optimizer=optimizer, weight_decay=0.1)
    go(run, 20)
    before = {n: p.detach().clone() for n, p in run.network.adapters["toy_rows"].named_parameters()}
    go(run, 60)
    for name, parameter in run.network.adapters["toy_rows"].named_parameters():
        assert torch.equal(parameter, before[name]), name


# All of them


def interrupt_end(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop when an experience is over and nothing of that is saved yet."""
    real = Trainer.save

    def failing(self):
        if self.run.step == step:
            raise SystemExit
        return real(self)

    monkeypatch.setattr(Trainer, "save", failing)


# Before the step of a growth, after an experience but before that is saved, and anywhere.
MOMENTS = [(interrupt_at, 6), (interrupt_end, 12), (interrupt_at, 15)]


SHORT = STREAM | {"stream": [{"tasks": [task], "steps": 6} for task in STREAM["tasks"]]}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("growing", GROWING)
def test_every_strategy_goes_on_to_the_same_bits_however_the_net_grows(
    tmp_path, monkeypatch, strategy, growing
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    options = {"strategy": strategy, "optimizer": "adam", "weight_decay": 0.1, "clip": 1.0}
    config = toy(**SHORT, growth=GROWING[growing], strategy={"memory": 12}, train=options)
    for name, stops in (("whole", [9, 18]), ("cut", [6, 9, 18])):  # at a boundary, and in between
        run, path = set_up(config, fetch=print), tmp_path / name
        for stop in stops:
            if run.step:
                save_run(path, run, 0)
                if name == "cut":
                    run = set_up(config, fetch=print)
                    resume_run(path, run)
            if growing == "plateau" and run.step == 9:
                run.state.scores.best_by_task["toy_wide"] = {"step": 0, "value": 0.0, "since": 1}
            go(run, stop)
        save_run(path, run, 0)
    whole, cut = (
        kill_and_resume.flatten(torch.load(tmp_path / name, weights_only=True))
        for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    assert [key for key in whole if not kill_and_resume.equal(whole[key], cut[key])] == []
    modules = run.network.body.graph
    assert len(modules) == 3 + {"never": 0, "plateau": 1}.get(growing, 4)


@pytest.mark.parametrize(
    ("growing", "strategy"),
    [
        ("never", "agem"),
        ("frozen", "si"),
        ("shared", "lwf"),
        ("plateau", "online_ewc"),
    ],
)
def test_a_stream_that_was_stopped_in_the_worst_moments_ends_with_the_same_bits(
    tmp_path, monkeypatch, strategy, growing
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    config = toy(
        **SHORT,
        growth=GROWING[growing],
        strategy={"memory": 12},
        evaluate={"every": 2, "batches": 2, "checkpoint_every": 4, "log_every": 4},
        train={"strategy": strategy, "optimizer": "adam", "learning_rate": 0.003, "clip": 1.0},
    )
    train(config, tmp_path / "whole")
    history = json.loads((tmp_path / "whole" / "topology.json").read_text())["history"]
    assert any(x["verb"] == "attach" for x in history) == (growing != "never")
    for cut, step in MOMENTS:
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            cut(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_changes_nothing_before_the_second_experience(strategy):
    run, naive = made(strategy, body="gru"), made("naive", body="gru")
    go(run, 12)
    go(naive, 12)
    for name, weight in naive.network.state_dict().items():
        assert torch.equal(run.network.state_dict()[name], weight), name
    go(run, 24)
    go(naive, 24)
    same = [
        torch.equal(run.network.state_dict()[name], weight)
        for name, weight in naive.network.state_dict().items()
    ]
    assert all(same) == (strategy == "naive")


@cache
def rise(strategy: str) -> float:
    """How far the loss of a task rises while its opposite is learned in the same small layer."""
    tasks = {"a": {"name": "toy_rows"}, "b": {"name": "toy_turned"}}
    sections = {"tasks": tasks, "stream": [{"tasks": [name], "steps": 60} for name in tasks]}
    knobs = {"strength": 3.0 if strategy == "lwf" else 300.0, "memory": 100}
    run = made(strategy, sections, "gru", knobs, optimizer="adam", learning_rate=0.03)
    go(run, 60)
    before = run.score("a", "test")["loss"]
    go(run, 120)
    return run.score("a", "test")["loss"] - before


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_what_keeps_old_tasks_keeps_them(strategy):
    assert rise("naive") > 0.1
    assert rise(strategy) < 0.3 * rise("naive")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_goes_on_where_the_run_is_and_by_its_ops(tmp_path, monkeypatch, strategy):
    """A checkpoint is read to the CPU, wherever the run is."""
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    sections = TWO | {"train": {"strategy": strategy, "ops": "batched", "optimizer": "sgd"}}
    run = set_up(toy(**sections), fetch=print)
    go(run, 15)
    save_run(tmp_path / "last.pt", run, 0)
    other = set_up(toy(**sections), fetch=print)
    other.device, other.state.loss_log = torch.device("meta"), other.state.loss_log.to("meta")
    resume_run(tmp_path / "last.pt", other)
    kept = other.state.strategy
    tensors = [v for anchor in getattr(kept, "anchors", []) for d in anchor for v in d.values()]
    tensors += [*getattr(kept, "start", {}).values(), *getattr(kept, "path", {}).values()]
    tensors += [part for parts in getattr(kept, "stored", {}).values() for part in parts[:2]]
    if teacher := getattr(kept, "teacher", None):
        tensors += teacher.parameters()
        assert teacher.body.ops == "batched"
    assert all(tensor.is_meta for tensor in tensors)
    assert tensors or strategy == "naive"


def test_old_answers_of_a_frozen_task_are_not_asked_for():
    run = made("lwf", TWO | {"growth": GROWING["frozen"]}, "thalnet")
    go(run, 13)
    assert not run.network.adapter("a").head.weight.requires_grad
    assert run.state.strategy.penalty({"b": run.tasks["b"].training_batch(0, 10, 7, 0)}) is None


@pytest.mark.parametrize("strategy", ["ewc", "online_ewc", "si"])
def test_anchors_follow_a_net_that_grows_and_new_weights_are_free(strategy):
    # The shared modules read what is attached: their readings get columns.
    run = made(strategy, STREAM | {"growth": GROWING["shared"]}, "thalnet")
    go(run, 20)
    small = deepcopy(run.state.strategy.anchors[0])
    name = next(n for n in small[1] if n.startswith("body.cells.output.reading"))
    growth.grow_if_due(run)
    now = trainable_parameters(run.network)
    grown = {n for n in small[1] if now[n].shape != small[1][n].shape}
    assert name in grown
    anchor, weight = run.state.strategy.anchors[0]
    for n in grown:
        assert anchor[n].shape == weight[n].shape == now[n].shape
        width = small[1][n].shape[1]
        assert torch.equal(anchor[n][:, :width], small[0][n])
        assert torch.equal(weight[n][:, :width], small[1][n])
        assert not weight[n][:, width:].any()
    assert not any("toy_wide" in n for n in weight)
    penalty = run.state.strategy.penalty({})
    assert penalty.item() == pytest.approx(0, abs=1e-12)  # at the anchor still


def test_a_module_that_comes_back_under_its_name_is_a_new_one():
    run = made("ewc", {"tasks": TWO["tasks"], "stream": TWO["stream"]}, "thalnet")
    extra = ModuleSpec("extra", features=4, context=4)
    on_topology_change(run, run.network.attach(extra, read_by=["output"]))
    go(run, 12)
    on_topology_change(run, run.network.detach("extra"))
    on_topology_change(
        run, run.network.attach(ModuleSpec("extra", features=3, context=5), read_by=["output"])
    )
    assert run.state.strategy.penalty({}).item() == pytest.approx(0, abs=1e-12)


def test_an_unknown_strategy_is_named_with_its_closest_match():
    with pytest.raises(UserError, match=r"unknown strategy 'ewcc'.*Did you mean 'ewc'"):
        set_up(toy(**TWO, train={"strategy": "ewcc"}), fetch=print)
