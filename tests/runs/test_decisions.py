"""Decisions are counted against the answer key of a stream."""

from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.runs.decisions import DecisionCount, count_decisions
from thalnet_mtl.runs.topology_file import CandidateEntry


def candidate(experience, name, chosen=True):
    return CandidateEntry(experience, f"t{experience}", name, 9, 4, 0.5, chosen)


def test_decisions_are_right_by_their_name_or_by_their_kind():
    keys = [(), ("probe of t1",), ("probe", "alone"), ("bottom of t1", "all"), ("alone",), ()]
    stream = [ExperienceConfig((f"t{k}",), expect=key) for k, key in enumerate(keys, 1)]
    assert count_decisions(stream, []) is None
    candidates = [
        candidate(2, "probe of t1", chosen=False),
        candidate(2, "probe of t2"),  # of another task than expected
        candidate(3, "probe of t2"),
        candidate(3, "top of t2", chosen=False),
        candidate(4, "bottom of t1"),
        candidate(6, "all"),  # not scored
    ]
    assert count_decisions(stream, candidates) == DecisionCount(3, 2)  # the fifth is still to come
    assert count_decisions(stream[:1], candidates) is None
