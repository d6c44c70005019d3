"""The reason of a decision names the rival of the last round, and what decided between the two."""

from math import nan

import pytest

from thalnet_mtl.runs.topology_file import CandidateEntry
from thalnet_mtl.training.search.reason import reason


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
