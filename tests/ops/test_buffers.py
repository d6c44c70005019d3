"""Large buffers are reused, and memory is freed."""

import resource

import pytest
import torch
from backend_checks import every_backend

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.ops import buffers


def test_large_buffers_are_reused_once_no_tensor_views_them():
    like = torch.zeros(1)
    first = buffers.empty([512, 1024], like)
    address, view = first.data_ptr(), first[3:]
    del first
    second = buffers.empty([512, 1024], like)
    assert second.data_ptr() != address and address % 64 == 0
    del view
    assert buffers.empty([512, 1024], like).data_ptr() == address
    assert buffers.empty([3], like).shape == (3,)


@every_backend
def test_memory_is_freed_with_and_without_a_backward_pass(backend):
    net, xs = ThalNet(2, 4, 16), torch.rand(64, 10, 2)
    net.ops = backend

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
    steps()  # saves more than a mebibyte a step for the backward pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10
