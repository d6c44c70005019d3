"""Strategies of Avalanche on every kind of target: each cell of the generated table."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from toy_tasks import knobs_of

from benchmarks.continual.strategy_table import KINDS, configuration, refusals
from thalnet_mtl import Network, ThalNet
from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.avalanche.model import Loss, as_avalanche
from thalnet_mtl.avalanche.names import STRATEGIES
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import first_input
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.setup import set_up

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]

STRENGTH = {"mas": 10.0, "rwalk": 1.0, "lwf": 10.0}


def trained(strategy, kind):
    """Return a run after its stream in Avalanche's loop, without log and evaluation."""
    name = f"avalanche:{strategy}"
    knobs = knobs_of(name, strength=STRENGTH.get(strategy, 1e3), memory=20)
    config = configuration(name, kind, strategy=knobs)
    run = set_up(config, fetch=print)
    losses = torch.stack(fit(run))
    assert run.step == run.total_steps == len(losses)
    assert losses[:, 0].isfinite().sum() == run.total_steps // 2
    return run


def fit(run):
    """Train a run in Avalanche's loop, and return the losses of every step."""
    losses = []

    def after_step(values):
        losses.append(values)
        run.state.step += 1

    run.state.strategy.fit(
        SimpleNamespace(
            run=run,
            begin_experience_or_grow=lambda: grow_if_due(run),
            after_step=after_step,
        )
    )
    return losses


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.network.parameters()])


@cache
def naive_weights(kind):
    return weights(trained("naive", kind))


@cache
def lines():
    return refusals()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cell_trains_as_its_strategy_says_or_is_refused_in_one_line(strategy, kind):
    line = lines()[f"avalanche:{strategy}", kind]
    if line:
        assert line.startswith(f"avalanche:{strategy} does not support task 'a': ")
        assert "\n" not in line and line.endswith("' instead.")
        with pytest.raises(UserError, match="does not support task 'a'"):
            set_up(configuration(f"avalanche:{strategy}", kind), fetch=print)
        return
    end = weights(trained(strategy, kind))
    assert end.isfinite().all()
    assert torch.equal(end, naive_weights(kind)) == (strategy == "naive")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "named inputs"])
def test_the_data_set_holds_the_sequences_with_their_targets(kind):
    task = set_up(configuration("naive", kind), fetch=print).tasks["a"]
    data = task.sequences("train", 4)
    batch = task.to_batch(data)
    present = task.target.present(batch.ys).reshape(len(data), -1).any(1)
    samples = list(benchmark({"a": task}, chunk=4).train_stream[0].dataset)
    assert len(samples) == int(present.sum())
    assert (len(samples) < len(data)) == (kind in ("labels", "numbers"))
    for (x, y, label), k in zip(samples, present.nonzero().flatten().tolist(), strict=True):
        steps = x.shape[0] if batch.lengths is None else int(batch.lengths[k])
        assert label == 0 and len(x) == steps
        assert torch.equal(x, first_input(batch.xs)[k, :steps])
        torch.testing.assert_close(torch.as_tensor(y), batch.ys[k], equal_nan=True)


def test_a_task_with_several_inputs_is_refused_in_programs_of_avalanche_too():
    tasks = set_up(configuration("naive", "named inputs"), fetch=print).tasks
    with pytest.raises(UserError, match="task 'a' has several inputs"):
        benchmark(tasks)


def test_a_norm_of_outputs_needs_one_shape_in_an_experience():
    config = configuration("avalanche:mas", "one class")
    other = {"b": {"name": KINDS["a class at every step"]}}
    stream = [{"tasks": ["a"], "steps": 11}, {"tasks": ["a", "b"], "steps": 11}]
    config = overlay(config, {"tasks": other, "stream": stream}, "test")
    with pytest.raises(UserError, match=r"avalanche:mas needs outputs of one shape.*Use 'si'"):
        set_up(config, fetch=print)


def test_the_rows_of_a_batch_get_the_losses_of_their_tasks():
    """One batch of a class, labels, numbers at every step, and sequences of unequal lengths."""
    kinds = ["one class", "labels", "numbers at every step", "unequal lengths"]
    tasks = {}
    for kind in kinds:
        name = KINDS[kind]
        tasks[name] = set_up(configuration("naive", kind), fetch=print).tasks["a"].named(name)
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=3, modules=2, features=5))
    for name, task in tasks.items():
        network.add_task(name, task.spec)
    model = as_avalanche(network, tasks)
    scenario = benchmark(tasks, [list(tasks)], chunk=4)
    dataset = scenario.train_stream[0].dataset
    places = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:40].tolist()
    samples = [dataset[k] for k in places]
    xs, ys, labels = dataset.collate_fn(samples)
    loss = Loss(model)(model(xs, labels), ys)
    expected = torch.zeros(())
    for label, kind in enumerate(kinds):
        losses, count = [], 0
        for x, y, _ in (sample for sample in samples if sample[2] == label):
            output, y = network(KINDS[kind], x[None])[0][0], torch.as_tensor(y)
            if kind in ("one class", "unequal lengths"):
                losses.append(F.cross_entropy(output, y, reduction="none").reshape(1))
            else:
                there = ~y.isnan()
                function = F.binary_cross_entropy_with_logits if kind == "labels" else F.mse_loss
                losses.append(function(output[there], y[there], reduction="none"))
            count += 1
        assert count > 3
        expected = expected + torch.cat(losses).mean() * count / 40
    torch.testing.assert_close(loss, expected)
    model.eval()
    assert {len(row) for row in xs} == {1, 2, 3, 4} and labels.unique().tolist() == [0, 1, 2, 3]


MIXED = {
    "tasks": {
        "a": {"name": KINDS["one class"]},
        "b": {"name": KINDS["numbers at every step"]},
        "c": {"name": KINDS["labels"]},
        "d": {"name": KINDS["unequal lengths"]},
    },
    "stream": [
        {"tasks": ["a"], "steps": 11},
        {"tasks": ["b"], "steps": 11},
        {"tasks": ["c", "d"], "steps": 11},
    ],
}


@pytest.mark.parametrize("strategy", [n for n in STRATEGIES if n not in ("lwf", "gem")])
def test_a_stream_of_four_kinds_of_target_trains(strategy):
    # GDumb keeps equally many of each class number, whatever the task: enough for some of each.
    knobs = knobs_of(f"avalanche:{strategy}", memory=60)
    config = configuration(f"avalanche:{strategy}", "one class", strategy=knobs)
    config = overlay(config, MIXED, "test")
    run = set_up(config, fetch=print)
    before = weights(run)
    fit(run)
    assert run.step == 33 and weights(run).isfinite().all()
    heads = [run.network.adapter(task).head.weight for task in "abcd"]
    start = set_up(config, fetch=print).network
    for task, head in zip("abcd", heads, strict=True):
        assert not torch.equal(head, start.adapter(task).head.weight)
    assert not torch.equal(before, weights(run))
