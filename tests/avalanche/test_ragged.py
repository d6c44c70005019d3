"""Batches of sequences of different shapes."""

import pytest
import torch

from thalnet_mtl.avalanche.ragged import RaggedBatch, collate, stack

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]


def test_a_batch_of_several_shapes_is_a_list_that_can_be_moved_and_indexed():
    parts = [torch.zeros(2, 3), torch.ones(4), 2 * torch.ones(2, 3)]
    batch = stack(parts)
    assert isinstance(batch, RaggedBatch) and len(batch) == 3
    assert batch[1] is parts[1] and torch.equal(batch[[0, 2]], torch.stack(parts[::2]))
    assert torch.equal(batch[torch.tensor([True, False, True])], torch.stack(parts[::2]))
    assert isinstance(batch[:2], RaggedBatch) and batch.to(torch.float64)[1].dtype == torch.float64
    assert torch.equal(stack(parts[::2]), torch.stack(parts[::2]))
    xs, ys, labels = collate([(parts[0], 1, 0), (parts[1], torch.tensor([2, 3]), 1)])
    assert isinstance(xs, RaggedBatch) and isinstance(ys, RaggedBatch) and labels.tolist() == [0, 1]
