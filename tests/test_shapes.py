import jaxtyping
import pytest
import torch

from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import reference


def test_shapes_are_checked_while_tests_run():
    net, state = ThalNet(2, 3, 4), torch.zeros(1, 12)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'xs'"):
        reference.sequence(net.placement(), {"input": torch.zeros(1, 5)}, state, state, ())
