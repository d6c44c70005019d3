"""Buffers that are used again, and what must not be kept."""

import resource

import pytest
import torch
from backend_checks import every_level

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.ops import buffers as memory


def test_large_buffers_are_used_again_only_when_nothing_looks_at_them():
    like = torch.zeros(1)
    first = memory.empty([512, 1024], like)
    place, part = first.data_ptr(), first[3:]
    del first
    second = memory.empty([512, 1024], like)
    assert second.data_ptr() != place and place % 64 == 0
    del part
    assert memory.empty([512, 1024], like).data_ptr() == place
    assert memory.empty([3], like).shape == (3,)


@every_level
def test_memory_comes_back_with_and_without_a_way_back(ops):
    net, xs = ThalNet(2, 4, 16), torch.rand(64, 10, 2)
    net.ops = ops

    def steps():
        for k in range(100):
            ys, _ = net(xs)
            if k % 3 == 0:
                ys.sum().backward()
            elif k % 3 == 1:
                with pytest.raises(UserError):
                    net(xs, State(xs[:, 0], xs[:, 0]))

    steps()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps()  # keeps more than a mebibyte a step for the way back
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10
