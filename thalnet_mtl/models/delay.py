"""Delay of answers: inputs at the end of a sequence that cannot reach the answer in time."""

import torch
from torch import Tensor

from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.programs import Program
from thalnet_mtl.ops.inputs import inputs_by_name


@torch.no_grad()
def unseen_steps(network: Network, task: str) -> int:
    """Return on how many inputs at its end the answer to a sequence does not depend.

    A module reads what others have written in the step before. An input that is d modules away
    from the output needs d further steps: ``extra_steps``, or ``sub_steps`` of every input. Found
    by changing the end of a random sequence. 0 for a task with a target at every step, and where
    the answer does not depend on any input yet.

    >>> from thalnet_mtl import TaskSpec, ThalNet
    >>> network = Network(ThalNet(inputs=3, modules=4, features=8))
    >>> change = network.add_task("a", TaskSpec(inputs=3, outputs=2))
    >>> unseen_steps(network, "a")
    1
    """
    shape = network.adapter(task).task
    if shape.every_step or not network.body.recurrent:
        return 0
    longest = len(network.body.graph or ()) + 1
    steps = min(longest, shape.steps or longest)
    drawn = Program(network, task).draw(1, steps)

    def answer(kept: int) -> Tensor:
        """Return the answer to the sequence with other inputs behind so many."""
        changed = {}
        for name, part in inputs_by_name(drawn).items():
            other = (part + 1) % shape.input_width(name) if shape.tokens else part + 1
            changed[name] = torch.cat([part[:, :kept], other[:, kept:]], 1)
        return network(task, changed if shape.input_names else changed[""])[0]

    with evaluation_mode(network):
        usual = answer(steps)
        same = (torch.equal(answer(kept), usual) for kept in reversed(range(steps)))
        unseen = next((number for number, equal in enumerate(same) if not equal), 0)
    return unseen
