"""The benchmark of criteria by which sequences choose a path: its scores and its table."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.markdown import with_table
from benchmarks.paths.criteria import CRITERIA
from benchmarks.paths.run import RESULTS, STREAMS, choices, report, tasks_of
from thalnet_mtl import Network, TaskSpec, ThalNet
from thalnet_mtl.tasks.batch import Batch

README = Path(__file__).parents[2] / "benchmarks" / "paths" / "README.md"


def test_the_table_is_made_from_the_raw_results():
    table = report(RESULTS)
    assert "–" not in table and table.count("\n") == 1 + len(CRITERIA)
    assert with_table(README.read_text(), table) == README.read_text()


@pytest.mark.parametrize("stream", STREAMS)
def test_the_tasks_of_a_stream_differ_from_seed_to_seed(stream):
    first, second = (tasks_of(stream, seed) for seed in (0, 1))
    assert len(first) == len(second) >= 3 and first != second


@torch.no_grad()
@pytest.mark.parametrize("title", CRITERIA)
def test_a_criterion_scores_each_path_for_each_sequence(title):
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=3, modules=2, features=6))
    fits = {}
    for task, shift in (("low", 0), ("high", 2)):
        network.add_task(task, TaskSpec(inputs=3, outputs=2))
        xs = torch.rand(60, 4, 3) + shift
        fits[task] = Batch(xs, torch.arange(60) % 2, True)
    test = Batch(torch.rand(9, 4, 3) + 2, torch.zeros(9).long(), True)
    scores = CRITERIA[title](network.eval(), fits, test)
    assert scores.shape == (2, 9) and np.isfinite(scores).all()
    if title.startswith("likelihood") or title.startswith("Mahalanobis"):
        assert (scores.argmax(0) == 1).all()


def test_choices_are_counted_by_sequence_and_by_batch():
    scores = np.zeros((2, 100))
    scores[0, :30] = 1  # of the first batch, and of no second one
    scores[1, 30:] = 2
    counted = choices(scores, ["a", "b"], "b")
    assert counted == {"chosen": {"a": 0.3, "b": 0.7}, "batches": 1.0}
    scores[0, :30] = 3
    assert choices(scores, ["a", "b"], "b")["batches"] == 0.5
