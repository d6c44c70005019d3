"""The minGRU against the parallel form of its paper, in which no step waits for another."""

import torch
from properties import assert_close, assert_same_gradients, drawn, gradients, normal

from thalnet_mtl.models.designs.min_gru import MinGRU


def parallel(weight, bias, xs, start):
    """Return h_1 … h_T: with A_t = Π_{k ≤ t} (1 − z_k), h_t = A_t (h_0 + Σ_{k ≤ t} z_k c_k / A_k).

    Feng et al., "Were RNNs all we needed?", 2024: a scan of h_t = a_t h_{t−1} + b_t.
    """
    update, candidate = (xs @ weight.T + bias).chunk(2, -1)
    kept = (1 - torch.sigmoid(update)).cumprod(1)
    return kept * (start[:, None] + (torch.sigmoid(update) * candidate / kept).cumsum(1))


def test_step_by_step_it_is_the_parallel_form_in_states_features_and_all_gradients():
    design = drawn(lambda: MinGRU(4, 3, 9))
    xs, start = normal(5, 8, 4).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    state, states, features = start, [], []
    for x in xs.unbind(1):
        phi, state = design(x, state)
        states.append(state)
        features.append(phi)
    expected = parallel(design.gates.weight, design.gates.bias, xs, start)
    assert_close(torch.stack(states, 1), expected)
    assert_close(torch.stack(features, 1), expected.tanh())
    leaves = dict(design.named_parameters()) | {"xs": xs, "start": start}
    weight = normal(5, 8, 3, seed=2)
    assert_same_gradients(
        gradients((torch.stack(features, 1) * weight).sum(), leaves),
        gradients((expected.tanh() * weight).sum(), leaves),
    )


def test_it_has_two_thirds_of_the_input_weights_of_a_gru_and_no_recurrent_ones():
    shapes = {name: tuple(p.shape) for name, p in MinGRU(4, 3, 9).named_parameters()}
    assert shapes == {"gates.weight": (6, 4), "gates.bias": (6,)}


def test_its_memory_is_linear_in_itself():
    design = drawn(lambda: MinGRU(4, 3, 9))
    x, one, two = normal(5, 4), normal(5, 3, seed=1), normal(5, 3, seed=2)
    middle = design(x, (one + two) / 2)[1]
    assert_close(middle, (design(x, one)[1] + design(x, two)[1]) / 2)
