"""Switching linear dynamics: data with a known number of independent rules.

A network of modules should have a module for each rule. The idea, with a state that the rules
share, is that of Mittal, Bengio and Lajoie, "Is a Modular Architecture Enough?", NeurIPS 2022.
"""

import numpy as np

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec

SIZES = {"train": 8_000, "validation": 1_000, "test": 2_000}  # sequences of a split
FORCES, OUTPUTS = 2, 2  # numbers that push a state, and numbers to be predicted
DECAY = 0.9  # of a state that nothing pushes, in a step in which its rule is on


@register("task", "switching_dynamics")
def switching_dynamics(
    rules: int = 4, state: int = 2, steps: int = 10, seed: int = 0
) -> SequenceTask:
    """The sum of linear systems, of which one moves at a step; which one is part of the input.

    Rule r has a state s_r, zero at first. At step t the rule c_t is on, drawn by chance::

        s_r ← 0.9 Q_r s_r + B_r x_t   if r = c_t, else s_r      y_t = Σ_r C_r s_r

    with x_t from N(0, I). The input of a step is x_t and the number c_t as one of ``rules`` zeros
    and ones; the target is y_t, divided by its standard deviation. A network that follows k of the
    rules has a mean squared error of 1 − k / rules, as all rules contribute alike.

    A module that is too small for two states must not follow two rules. B_r and C_r are random,
    with orthonormal columns and rows, so that all directions of a state of two count alike. Q_r is
    a random rotation by 90 to 180 degrees: of states that hardly turn, their sum alone would tell
    nearly as much as each of them.

    Args:
        rules: number of rules.
        state: width of the state of a rule.
        steps: length of a sequence.
        seed: of the matrices and of the sequences.
    """
    for name, value, most in (("rules", rules, 64), ("state", state, 64), ("steps", steps, 1000)):
        if not 1 <= value <= most:
            raise UserError(f"switching_dynamics: {name} is {value}; expected 1 … {most}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"switching_dynamics: seed is {seed}; expected 0 … {2**32 - 1}.")

    def read_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        generator = np.random.RandomState(seed)
        matrices = [_matrices(generator, state) for _ in range(rules)]
        splits = {name: _sequences(generator, matrices, n, steps) for name, n in SIZES.items()}
        deviation = splits["train"][1].std()
        return {name: (xs, ys / deviation) for name, (xs, ys) in splits.items()}

    spec = TaskSpec(FORCES + rules, OUTPUTS, every_step=True, steps=steps)
    return SequenceTask("switching_dynamics", read_splits, spec, target="numbers")


def _matrices(
    generator: np.random.RandomState, state: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the matrices of a rule: of its state, of what pushes it, and of its output."""
    rotation, size = _rotation(generator, state), max(state, FORCES, OUTPUTS)
    force, output = (np.linalg.qr(generator.randn(size, size))[0] for _ in range(2))
    return DECAY * rotation, force[:state, :FORCES], output[:OUTPUTS, :state]


def _rotation(generator: np.random.RandomState, state: int) -> np.ndarray:
    """Draw a rotation Q = −(I − A)(I + A)⁻¹ with A = −Aᵀ and a norm of A up to 1.

    A is random, and so is its norm: its eigenvalue ai turns a plane by 180° − 2 arctan a.
    """
    random = generator.randn(state, state)
    skew = random - random.T
    if state > 1:  # of one number, −1 is all that is left
        skew *= generator.rand() / np.linalg.norm(skew, 2)
    identity = np.eye(state)
    return -(identity - skew) @ np.linalg.inv(identity + skew)


def _sequences(
    generator: np.random.RandomState,
    matrices: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    count: int,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs (count, steps, inputs), and return them with their targets."""
    rules = len(matrices)
    xs = generator.randn(count, steps, FORCES)
    active = generator.randint(rules, size=(count, steps))
    states = np.zeros((rules, count, matrices[0][0].shape[0]))
    ys = np.zeros((count, steps, OUTPUTS))
    for t in range(steps):
        for rule, (rotation, force, output) in enumerate(matrices):
            on = active[:, t] == rule
            states[rule, on] = states[rule, on] @ rotation.T + xs[on, t] @ force.T
            ys[:, t] += states[rule] @ output.T
    inputs = np.concatenate([xs, np.eye(rules)[active]], axis=-1)
    return inputs.astype(np.float32), ys.astype(np.float32)
