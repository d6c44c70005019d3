import math

import pytest
import torch
import torchmetrics
from torch.nn import functional as F

from thalnet_mtl.metrics import ACCURACY, BITS_PER_CHARACTER


def test_accuracy_and_bits_equal_torchmetrics():
    torch.manual_seed(0)
    logits, ys = torch.randn(200, 5, dtype=torch.float64), torch.randint(5, (200,))
    nats = F.cross_entropy(logits, ys, reduction="sum").item()
    correct = int((logits.argmax(-1) == ys).sum())
    expected = torchmetrics.functional.accuracy(logits, ys, task="multiclass", num_classes=5)
    assert ACCURACY.value(nats, correct, 200) == pytest.approx(expected.item(), abs=1e-7)
    perplexity = torchmetrics.functional.text.perplexity(logits[None], ys[None])
    assert BITS_PER_CHARACTER.value(nats, correct, 200) == pytest.approx(
        math.log2(perplexity.item()), abs=1e-9
    )


def test_guessing_among_256_bytes_costs_8_bits():
    assert BITS_PER_CHARACTER.value(100 * math.log(256), 0, 100) == pytest.approx(8, abs=1e-12)


def test_each_metric_knows_its_direction_and_how_people_read_it():
    assert ACCURACY.better(0.9, 0.8) and not ACCURACY.better(0.8, 0.8)
    assert BITS_PER_CHARACTER.better(1.3, 1.4) and not BITS_PER_CHARACTER.better(1.4, 1.4)
    assert ACCURACY.format(0.94321) == "94.32 %"
    assert BITS_PER_CHARACTER.format(1.40005) == "1.4001 bits"
