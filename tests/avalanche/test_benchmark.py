"""Tasks as a benchmark: what the experiences of its streams hold."""

import pytest
import torch
from avalanche_fixtures import tasks
from torch.utils.data import TensorDataset
from toy_tasks import toy_rows, toy_text

from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.registry import lookup

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]


def test_an_experience_holds_the_parts_of_its_tasks_labelled_by_their_order():
    loaded = tasks(a=toy_rows, b=toy_text)
    scenario = benchmark(loaded, [["b"], ["a", "b"]], chunk=7)
    assert [experience.task_labels for experience in scenario.train_stream] == [[1], [0, 1]]
    assert [len(experience.dataset) for experience in scenario.train_stream] == [285, 300 + 285]
    assert [len(experience.dataset) for experience in scenario.test_stream] == [71, 100 + 71]
    assert [len(experience.dataset) for experience in scenario.valid_stream] == [71, 60 + 71]
    assert scenario.train_stream[1].classes_in_this_experience == [0, 1, 2]
    x, y, label = scenario.train_stream[0].dataset[3]
    tokens = loaded["b"].split("train")
    assert x.tolist() == tokens[21:28].tolist() and y.tolist() == tokens[22:29].tolist()
    assert label == 1
    x, y, label = scenario.train_stream[1].dataset[4]
    assert torch.equal(x, loaded["a"].split("train").xs[4] / 255) and label == 0
    assert int(y) == int(loaded["a"].split("train").ys[4])


def test_a_limit_draws_among_training_sequences_only():
    scenario = benchmark(tasks(a=toy_rows), limit=40)
    assert (
        len(scenario.train_stream[0].dataset) == 40 and len(scenario.test_stream[0].dataset) == 100
    )
    whole = {
        tuple(x.flatten().tolist())
        for x, *_ in benchmark(tasks(a=toy_rows)).train_stream[0].dataset
    }
    drawn = {tuple(x.flatten().tolist()) for x, *_ in scenario.train_stream[0].dataset}
    assert len(drawn) == 40 and drawn < whole


@pytest.mark.parametrize("options", [{"seed": 3}, {"fixed_class_order": [*range(9, -1, -1)]}])
def test_our_split_has_the_class_order_of_theirs(options):
    from avalanche.benchmarks import nc_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset

    data = TensorDataset(torch.zeros(20, 1), torch.arange(10).repeat(2))
    data.targets = [*range(10)] * 2
    theirs = nc_benchmark(
        *(as_classification_dataset(data) for _ in range(2)),
        n_experiences=5,
        task_labels=False,
        **options,
    )
    ours = lookup("stream", "split_mnist")(5, **options)
    parts = [entry["classes"] for experience in ours for entry in experience.values()]
    assert [set(classes) for classes in parts] == [
        set(experience.classes_in_this_experience) for experience in theirs.train_stream
    ]
