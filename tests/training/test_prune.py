"""Pruning takes out what does no good, keeps what does, and never touches what others use."""

import pytest
from random_networks import assert_same
from switching_runs import snapshot, switching, trained

from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.search import prune as pruning
from thalnet_mtl.training.search.edges import growing_modules
from thalnet_mtl.training.search.prune import prune_modules
from thalnet_mtl.training.search.within import attach_and_connect
from thalnet_mtl.training.topology_changes import on_topology_change

TASK = "switching_dynamics"


def with_idle_module():
    """Return a run with two modules that are needed, and a new one that the head hardly reads."""
    run = trained(switching(modules=2), 200)
    for change in attach_and_connect(run.network, run, TASK):
        on_topology_change(run, change)
    return trained(run, 1)


def test_an_idle_module_is_taken_out():
    run = with_idle_module()
    before, size = snapshot(run), count_parameters(run.network)
    winner, decision = prune_modules(run, TASK, harm=0.01, steps=10)
    assert decision.about == "pruning" and decision.chosen.candidate == f"without {TASK}_m2"
    assert decision.chosen.p_value <= 0.05 and decision.extra_steps == 10
    assert set(winner.state.network.body.graph) == {"m1", "m2"}
    assert count_parameters(winner.state.network) == size + decision.chosen.parameters < size
    held = {id(p) for group in winner.state.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in winner.state.network.parameters()}
    assert not any(f"{TASK}_m2" in name for name in winner.state.state_dict()["optimizer"]["state"])
    assert_same(snapshot(run), before)


def test_modules_that_are_needed_stay():
    run = trained(switching(modules=2), 200)
    winner, decision = prune_modules(run, TASK, harm=0.01, steps=10)
    assert [c.candidate for c in decision.candidates] == ["keep"] and decision.extra_steps == 0
    assert "the loss may rise by more than the harm of 0.010" in decision.reason
    assert winner.state.step == run.step and set(winner.state.network.body.graph) == {"m1", "m2"}


def test_what_is_worse_after_all_is_rolled_back(monkeypatch):
    run = trained(switching(modules=2), 200)
    monkeypatch.setattr(pruning, "harmless_modules", lambda *_: (["m1"], ""))
    winner, decision = prune_modules(run, TASK, harm=0.01, steps=10)
    assert decision.chosen.candidate == "keep" and decision.candidates[1].p_value > 0.05
    assert winner.changes == [] and set(winner.state.network.body.graph) == {"m1", "m2"}
    assert winner.state.step == run.step + 10


def test_the_last_path_from_input_to_head_stays():
    run = trained(switching(rules=1, modules=2), 1)
    winner, decision = prune_modules(run, TASK, harm=10.0, steps=1)
    (left,) = winner.state.network.body.graph
    assert left in ("m1", "m2") and decision.chosen.candidate != "keep"


@pytest.mark.parametrize("frozen", [True, False])
def test_modules_of_other_tasks_are_no_candidates(frozen):
    run = switching(modules=2)
    network, task = run.network, run.tasks[TASK].spec
    network.attach(ModuleSpec("m3", 3, 3, inputs=task.inputs, output=True, reads=("m3", "m1")))
    network.add_task("other", task, input_modules=["m1", "m3"], output_modules=["m3"])
    if frozen:
        network.freeze(task="other")
    assert growing_modules(network, TASK) == ["m2"]
    network.remove_task("other")
    assert growing_modules(network, TASK) == ([] if frozen else ["m1"]) + ["m2"]
    network.freeze(task=TASK)
    assert prune_modules(run, TASK, harm=0.01, steps=1) is None
