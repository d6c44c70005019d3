"""The stages of a search are those that the network went through."""

import pytest
from random_networks import Case
from search_fixtures import SearchedTopology

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.snapshot import topology_snapshot
from thalnet_mtl.report.figures.growth import Layout
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


def test_a_stage_knows_what_is_new_reused_and_removed():
    first, probe, own, last = stages(grown())
    assert [stage.name for stage in (first, probe, own, last)] == ["a", "b", "c", "d"]
    assert (first.new, first.reused, first.decision) == (["low", "high"], [], None)
    assert (probe.new, probe.reused) == ([], ["low", "high"])
    assert own.new == ["c_low", "c_high", "c_side"] and own.reused == ["low", "high"]
    assert list(own.removed) == ["c_spare"]
    assert [d.about for d in own.decisions] == ["task", "growth", "growth", "pruning"]
    assert own.decision.chosen.candidate == "all"
    assert last.new == [] and not last.removed
    assert [probe.begin[name].frozen for name in ("low", "high")] == [True, True]


def test_readings_of_a_stage_are_new_or_earlier_ones():
    first, probe, own, _ = stages(grown())
    assert set(first.edges()) == {("low", "high", True), ("high", "low", True)}
    assert set(probe.edges()) == {("low", "high", False), ("high", "low", False)}
    edges = {(source, reader): new for source, reader, new in own.edges()}
    assert edges["high", "c_side"] and edges["c_low", "c_high"] and edges["low", "c_low"]
    assert not edges["low", "high"] and not any("c_spare" in pair for pair in edges)


def test_readings_of_modules_that_no_new_task_runs_are_left_out():
    topology = SearchedTopology("a")
    topology.add("b", "alone")
    *_, last = stages(read(topology))
    assert set(last.edges()) == {("b_low", "b_high", True), ("b_high", "b_low", True)}


def test_a_slot_that_is_opened_between_earlier_modules_is_a_new_reading():
    topology = SearchedTopology("a")
    topology.add("b", "alone")
    topology.add("c", "all")
    topology.route("low", "b_high")
    *_, last = stages(read(topology))
    assert ("b_high", "low", True) in set(last.edges())


def test_without_new_tasks_a_stage_begins_with_a_decision_that_changed_the_network():
    topology = SearchedTopology("a")
    topology.decide("growth", "keep it")
    topology.decide("growth", "new module")
    topology.attach("side", read_by=["high"])
    topology.decide("growth", "keep it")
    first, second = stages(read(topology))
    assert (first.name, first.decision, first.new) == ("a", None, ["low", "high"])
    assert (second.name, second.new, second.reused) == ("a, step 40", ["side"], ["low", "high"])
    assert [len(stage.decisions) for stage in (first, second)] == [1, 2]
    assert not any(module.frozen for module in second.begin.values())
    layout = Layout([first, second], {})
    before, after = layout.picture(0), layout.picture(1)
    assert before.new.count("M") == 4 and not before.reused  # two readings, the data and the head
    assert after.new.count("M") == 2 and after.reused.count("M") == 4  # to and from the new module
    assert [mark.kind for mark in after.marks].count("head") == 1


def test_a_summary_names_modules_with_their_sizes():
    topology = grown()
    _, probe, own, _ = stages(topology)
    assert sizes(topology)["c_spare"] == 1000
    assert summary(probe, sizes(topology)) == "Reused: low, high (frozen)."
    assert summary(own, sizes(topology)) == (
        "New: c_low (1,000), c_high (1,000), c_side (1,000). Reused: low, high (frozen). "
        "Removed: c_spare."
    )


def test_a_run_without_decisions_has_no_stages():
    topology = SearchedTopology("a")
    assert stages(read(topology)) == []
