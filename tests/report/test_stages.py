"""The stages of a search are those that the network went through."""

import pytest
from random_networks import Case
from search_fixtures import SearchedTopology

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.snapshot import topology_snapshot
from thalnet_mtl.report.stages import sizes, stages, states_of, summary
from thalnet_mtl.runs.topology_file import ChangeEntry, EarlierModule, TopologySnapshot
from thalnet_mtl.training.topology_changes import earlier_modules


@pytest.mark.parametrize("seed", range(12))
def test_the_history_leads_back_to_every_earlier_graph(seed):
    case = Case(seed)
    graphs, history = [case.network.body.graph], []
    while len(history) < 8:
        verb, arguments, options = case.proposal()
        try:
            change = case.change(verb, *arguments, **options)
        except UserError:
            continue
        graphs.append(case.network.body.graph)
        history.append(ChangeEntry(0, 0.0, 0, verb, change.about, earlier_modules(change)))
    snapshot = topology_snapshot(case.network, 0, history)
    assert [dict(state) for state in states_of(snapshot)] == [
        {n: EarlierModule(m.reads, m.inputs, m.output, m.frozen) for n, m in graph.items()}
        for graph in graphs
    ]


def read(topology):
    return TopologySnapshot.from_json(topology.content, "topology.json")


def grown():
    """Return a topology after a probe, modules of their own, growth and pruning within a task."""
    topology = SearchedTopology("a")
    topology.add("b", "probe")
    topology.add("c", "all")
    topology.decide("growth", "new module")
    topology.attach("c_side", read_by=["c_high"])
    topology.attach("c_spare", read_by=["c_high"])
    topology.decide("growth", "edge high → c_side")
    topology.route("c_side", "high")
    topology.decide("pruning", "without c_spare")
    topology.detach("c_spare")
    topology.add("d", "probe")
    return read(topology)


def test_a_stage_knows_what_is_new():
    first, probe, own, within, last = stages(grown())
    assert [stage.new_tasks for stage in (probe, own, within, last)] == [["b"], ["c"], [], ["d"]]
    assert [stage.tasks for stage in (first, within)] == [["a"], ["a", "b", "c"]]
    assert (first.new, first.before, first.decisions) == (["low", "high"], {}, [])
    assert probe.new == [] and own.new == ["c_low", "c_high"] and within.new == ["c_side"]
    assert [d.about for d in own.decisions] == ["task"]
    assert [d.about for d in within.decisions] == ["growth", "growth", "pruning"]
    assert [probe.after[name].frozen for name in ("low", "high")] == [True, True]
    assert last.new == [] and last.removed == []


def test_changes_of_other_steps_are_other_stages_and_so_are_scores():
    topology = SearchedTopology("a")
    topology.attach("side", read_by=["high"])
    for change in topology.history:
        change["step"] = 10
    topology.detach("side")
    every = stages(read(topology), scored=[5, 10, 20, 40])
    assert [stage.step for stage in every] == [0, 5, 10, 20, 30, 40]
    assert [len(stage.changes) for stage in every] == [0, 0, 1, 0, 1, 0]
    assert ["side" in stage.after for stage in every] == [False, False, True, True, False, False]
    assert every[2].new == ["side"] and every[4].removed == ["side"]


def test_a_decision_that_changes_nothing_has_a_stage():
    topology = SearchedTopology("a")
    topology.decide("growth", "nothing")
    first, kept = stages(read(topology))
    assert [d.chosen.candidate for d in kept.decisions] == ["nothing"] and kept.after == first.after


def test_a_removed_task_is_gone():
    topology = SearchedTopology("a")
    topology.add("b", "probe")
    topology._change("remove_task", "a", topology.modules)
    assert stages(read(topology))[-1].tasks == ["b"]


def test_a_summary_names_modules_with_their_sizes():
    topology = grown()
    _, probe, own, within, _ = stages(topology)
    assert sizes(topology)["c_spare"] == 1000
    assert summary(probe, topology) == "Frozen: low, high. Reused: low, high."
    assert summary(own, topology) == "New: c_low (1,000), c_high (1,000). Reused: low, high."
    assert summary(within, topology) == (
        "New: c_side (1,000). Frozen: c_low, c_high, c_side."  # for the task that comes next
    )


def test_a_network_that_nothing_changed_has_the_stage_of_its_start():
    [start] = stages(read(SearchedTopology("a")))
    assert (start.step, start.tasks, list(start.after)) == (0, ["a"], ["low", "high"])
