"""Strategies of Avalanche with our networks, in programs of Avalanche."""

import pytest
import torch
from avalanche_fixtures import network_for, silent, strategy_of, tasks
from toy_tasks import toy_rows, toy_text, toy_turned, toy_wide

from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.avalanche.model import as_avalanche
from thalnet_mtl.avalanche.plugins import StreamMetrics
from thalnet_mtl.avalanche.strategies import PLUGINS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]


@pytest.mark.parametrize("strength", [1.0, 1e6])
def test_their_synaptic_intelligence_does_nothing(strength):
    from avalanche.training import SynapticIntelligence

    loaded, ends = tasks(a=toy_rows, b=toy_turned), []
    for factor in (0.0, strength):
        torch.manual_seed(0)
        model = as_avalanche(network_for(loaded), loaded)
        strategy = strategy_of(SynapticIntelligence, model, si_lambda=factor)
        for experience in benchmark(loaded).train_stream:
            strategy.train(experience)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        importances = strategy.plugins[0].ewc_data[1].values()
        assert all(bool((importance.data == 0).all()) for importance in importances)
    assert torch.equal(*ends)


def test_their_dark_experience_replay_asks_without_a_label():
    from avalanche.training.supervised import DER

    loaded = tasks(a=toy_rows, b=toy_turned)
    strategy = strategy_of(DER, as_avalanche(network_for(loaded), loaded))
    with pytest.raises(TypeError, match="task_labels"):
        strategy.train(benchmark(loaded).train_stream[0])


def test_joint_training_carries_three_shapes():
    from avalanche.training import JointTraining

    loaded = tasks(a=toy_rows, b=toy_wide, c=toy_text)
    stream, network = benchmark(loaded, chunk=7), network_for(loaded)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    metrics = StreamMetrics(loaded)
    strategy = strategy_of(
        JointTraining,
        as_avalanche(network, loaded),
        optimizer=optimizer,
        train_epochs=5,
        evaluator=silent(metrics),
    )
    strategy.eval(stream.test_stream)
    before = dict(metrics.rows["test"][0])
    strategy.train(stream.train_stream)
    strategy.eval(stream.test_stream)
    after = metrics.rows["test"][-1]
    assert after["a"] > before["a"] and after["b"] > before["b"] and after["c"] < before["c"]


def test_a_memory_is_shared_by_the_experiences():
    plugin, *_ = PLUGINS["gem"](10, 3, memory=30)
    assert plugin.patterns_per_experience == 10
