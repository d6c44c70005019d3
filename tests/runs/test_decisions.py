"""Decisions are counted against the answer key of a stream."""

from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.runs.decisions import DecisionCount, count_decisions, right_decisions
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


def test_tasks_with_the_same_modules_stand_for_each_other():
    answers = ["", "probe of t1", "alone", "probe of t1", "bottom of t2", "top of t3", "top of t1"]
    stream = [ExperienceConfig((f"t{k}",), expect=(a,) * bool(a)) for k, a in enumerate(answers, 1)]
    chosen = [
        decision(2, "bottom of t1"),  # not the answer, but from now on t2 runs the modules of t1
        decision(3, "finetune of t2"),
        decision(4, "probe of t2"),
        decision(5, "bottom of t4"),
        decision(6, "top of t1"),
        decision(7, "top of t5"),
    ]
    right = right_decisions(stream, chosen)
    assert right == {2: False, 3: False, 4: True, 5: True, 6: False, 7: True}
    assert right_decisions(stream, chosen[::-1]) == right
