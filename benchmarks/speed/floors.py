"""The least arithmetic of a training step with a dynamic reading, relative to the linear one.

Counted are multiplications, for one module at one step and for one sequence. A weight matrix is
multiplied with three times: forward, for the gradient of its input, and for its own. An exponential
counts as 8 multiplications, those of its polynomial and of its scale.
"""

from benchmarks.speed.cases import CASES

EXPONENTIAL = 8
# For a weight R_jk of a context: forward, for the gradient of what is read, for its own gradient.
SOFTMAX = EXPONENTIAL + 3
# Two multiplications lead from a density to its neighbor; sixteen need three exponentials.
GAUSSIAN = 2 + 3 * EXPONENTIAL / 16 + 4  # of its own, the gradients w.r.t. mean and variance


def multiplications(reading: str, features: int, modules: int) -> float:
    """Return the count for modules whose context and layers are as wide as their features."""
    center, square = modules * features, features**2
    rest = 3 * 6 * square + EXPONENTIAL * 4 * features  # a GRU, and tanh and sigmoid
    if reading == "linear":  # composed with the dense layer that reads the context
        return rest + 3 * center * features
    weights = features * center
    if reading == "fast_softmax":
        return rest + 3 * square + 3 * weights * features + SOFTMAX * weights
    if reading == "fast_gaussian":
        return rest + 3 * square + 3 * 2 * square + GAUSSIAN * weights
    raise ValueError(reading)


def floor(config: str) -> float:
    """Return the multiplications of a config of readings relative to those of the linear one."""
    net = CASES[config].net
    sizes = net["features"], net["modules"]
    return multiplications(net["reading"], *sizes) / multiplications("linear", *sizes)
