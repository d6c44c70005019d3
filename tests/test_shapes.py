import jaxtyping
import pytest
import torch

from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import reference


def test_shapes_are_checked_while_tests_run():
    net, state = ThalNet(2, 3, 4), torch.zeros(1, 12)
    errors = []
    for _ in range(10):  # of ten calls in a row at least one is checked
        with pytest.raises((jaxtyping.TypeCheckError, RuntimeError, ValueError)) as error:
            reference.sequence(net.placement(), {"input": torch.zeros(1, 5)}, state, state, ())
        errors.append(error.value)
    checked = [str(e) for e in errors if isinstance(e, jaxtyping.TypeCheckError)]
    assert any("ops.reference.sequence" in text and "parameter 'xs'" in text for text in checked)
