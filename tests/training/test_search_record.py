"""A decision is recorded with what its report needs: scores, errors, changes, and a reason."""

from math import nan

import pytest
from search_streams import FIRST, SMALL, stream_of

from thalnet_mtl import train
from thalnet_mtl.report.stages import stages
from thalnet_mtl.runs.topology_file import CandidateEntry, read_topology
from thalnet_mtl.training.search.reason import reason
from thalnet_mtl.training.search.rule import Search


def candidate(name, score, parameters=100, error=0.01, rounds=2):
    scores = [score] * rounds
    return CandidateEntry(
        candidate=name, parameters=parameters, score=score, scores=scores, error=error,
        chosen=name == "probe of digits",
    )  # fmt: skip


CASES = {
    "probe of digits: 0.212 against 0.350 for alone": [
        candidate("alone", 0.35),
        candidate("all", 0.3, rounds=1),  # dropped out before
    ],
    "probe of digits: 0.212 against 0.209 for alone, within the standard error of 0.010; "
    "ties go to fewer new parameters (100 against 5,132)": [candidate("alone", 0.209, 5132)],
    "probe of digits: 0.212, and the loss of alone is not finite": [candidate("alone", nan)],
    "probe of digits: 0.212 against 0.300 for all": [
        candidate("alone", nan),
        candidate("all", 0.3),
    ],
    "probe of digits: 0.212, the only candidate of the last round": [
        candidate("alone", 0.1, rounds=1)
    ],
}


@pytest.mark.parametrize("sentence", CASES)
def test_the_reason_is_what_decided_the_last_round(sentence):
    chosen = candidate("probe of digits", 0.212, error=None)
    assert reason([CASES[sentence][0], chosen, *CASES[sentence][1:]]) == sentence


def test_a_run_records_what_its_decisions_need(tmp_path, monkeypatch):
    monkeypatch.setattr(Search, "orders", 0)  # all candidates race
    config = stream_of(FIRST, SMALL, SMALL | {"steps_joined": 2}, steps=32)
    train(config, tmp_path / "run")
    topology = read_topology(tmp_path / "run")
    first, second = topology.decisions
    assert (first.step, first.experience, first.task, first.about) == (32, 2, "t2", "task")
    assert (second.step, second.experience, second.task) == (64, 3, "t3")
    assert set(first.prior) == {"t1"} and 0 < first.prior["t1"] < 1
    assert set(second.prior) == {"t1", "t2"}
    for decision, number in zip(topology.decisions, (3, 2), strict=True):
        assert decision.reason == reason(decision.candidates)
        rivals = [e for e in decision.candidates if len(e.scores) == 2 and not e.chosen]
        assert len(rivals) == number and all(rival.error > 0 for rival in rivals)
        for entry in decision.candidates:
            assert entry.score == entry.scores[-1] > entry.price > 0
            assert entry.error is None or entry in rivals
        before = topology.history[: decision.changes]
        assert [change.verb for change in before][-1] == "freeze"
    _, second_stage, third_stage = stages(topology)
    assert second_stage.new_tasks == ["t2"] and third_stage.new_tasks == ["t3"]
    assert all(third_stage.after[name].frozen for name in third_stage.before)
    assert set(third_stage.after) == {module.name for module in topology.modules}
    added = {change.about for change in topology.history[second.changes :]}
    assert set(third_stage.new) == {n.name for n in topology.modules if n.name in added}
