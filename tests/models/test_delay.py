"""The delay of answers is the number of modules between the input and the output, less settling."""

import pytest
import torch

from thalnet_mtl import ModuleSpec, Network, TaskSpec, ThalNet
from thalnet_mtl.models.delay import unseen_steps


def chain(length: int, **options) -> ThalNet:
    """Return modules each of which reads only the one before it."""
    names = [f"m{k}" for k in range(length)]
    return ThalNet(modules=[
        ModuleSpec(name, features=4, context=4, inputs=3 if k == 0 else 0,
                   output=k == length - 1, reads=names[k - 1:k] or names[-1:])
        for k, name in enumerate(names)
    ], **options)  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize(("sub_steps", "extra_steps"), [(1, 0), (1, 1), (2, 0), (3, 1)])
def test_a_chain_delays_by_its_modules(length, sub_steps, extra_steps):
    network = Network(chain(length))
    spec = TaskSpec(inputs=3, outputs=2)
    network.add_task("a", spec, sub_steps=sub_steps, extra_steps=extra_steps)
    # Input t is there in the sub-steps from t·n on, and the answer is that of the last one.
    late = length - 1 - (sub_steps - 1) - extra_steps
    assert unseen_steps(network, "a") == max(0, -(-late // sub_steps))


def test_modules_that_read_in_the_same_step_delay_less():
    for same_step, unseen in ((False, 1), (True, 0)):
        network = Network(ThalNet(inputs=3, modules=3, features=4, same_step=same_step))
        network.add_task("a", TaskSpec(inputs=3, outputs=2))
        assert unseen_steps(network, "a") == unseen


def test_other_bodies_and_targets_at_every_step_have_none():
    from thalnet_mtl import RecurrentBody

    network = Network(RecurrentBody(torch.nn.GRU(3, 4, 2, batch_first=True)))
    network.add_task("a", TaskSpec(inputs=3, outputs=2))
    assert unseen_steps(network, "a") == 0
    network = Network(chain(3))
    network.add_task("b", TaskSpec(inputs=3, outputs=2, every_step=True))
    assert unseen_steps(network, "b") == 0


def test_tokens_and_named_inputs_are_changed_as_well():
    network = Network(ThalNet(modules=[
        ModuleSpec("x", features=4, context=4, inputs=5),
        ModuleSpec("z", features=4, context=4, inputs=5),
        ModuleSpec("out", features=4, context=4, output=True),
    ]))  # fmt: skip
    network.add_task("tokens", TaskSpec(inputs=2, outputs=2, tokens=True))
    network.add_task("named", TaskSpec(inputs={"x": 2, "z": 1}, outputs=2))
    state = torch.get_rng_state()
    assert unseen_steps(network, "tokens") == unseen_steps(network, "named") == 1
    assert torch.equal(torch.get_rng_state(), state)
