"""Decisions are counted against the answer key of a stream."""

from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.runs.decisions import DecisionCount, count_decisions
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry


def decision(experience, name, *others, about="task"):
    entries = [
        CandidateEntry(candidate=each, parameters=9, score=0.5, chosen=each == name)
        for each in (*others, name)
    ]
    return DecisionEntry(step=4, changes=0, experience=experience, task=f"t{experience}",
                         about=about, reason="", candidates=entries)  # fmt: skip


def test_decisions_are_right_by_their_name_or_by_their_kind():
    keys = [(), ("probe of t1",), ("probe", "alone"), ("bottom of t1", "all"), ("alone",), ()]
    stream = [ExperienceConfig((f"t{k}",), expect=key) for k, key in enumerate(keys, 1)]
    assert count_decisions(stream, []) is None
    decisions = [
        decision(2, "probe of t2", "probe of t1"),  # of another task than expected
        decision(3, "probe of t2", "top of t2"),
        decision(3, "keep", about="growth"),  # not on what the task gets
        decision(4, "bottom of t1"),
        decision(6, "all"),  # not scored
    ]
    assert count_decisions(stream, decisions) == DecisionCount(3, 2)  # the fifth is still to come
    assert count_decisions(stream[:1], decisions) is None
