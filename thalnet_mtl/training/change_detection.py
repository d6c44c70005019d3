"""Detection of a change of the data by the losses of training steps."""

import math
from typing import Any

from thalnet_mtl.json_fields import require, typed

LARGEST = 4.0  # a standardized loss counts at most so much, as single batches may be odd
NUMBERS = {"count": int, "mean": float, "variance": float, "sum": float, "rise": int}  # the state
WARMUP = 30  # losses from which mean and deviation are known well enough


class Cusum:
    """A cumulative sum that rises when losses are higher than those before, by one-sided CUSUM.

    With mean μ and variance σ² of earlier losses, a loss x counts z = min((x − μ) / σ, 4), and::

        S ← max(0, S + z − allowance)       a change is detected once S > threshold

    Page, "Continuous Inspection Schemes", Biometrika 1954. μ and σ² are exponentially weighted:
    δ = x − μ, μ ← μ + a δ, σ² ← (1 − a)(σ² + a δ²), with a = 1 / min(n, window) for the n-th loss.
    So they follow losses that fall slowly while a network learns. After a change all begins anew.
    Falling losses are no change: a new task that is easier is not detected.

    >>> detector = Cusum()
    >>> [step for step in range(200) if detector.update(1.0 + step % 2 * 0.1 + (step > 150))]
    [153]

    Args:
        allowance: k, the standard deviations of a rise that are not worth a detection.
        threshold: h, in standard deviations; the higher, the fewer false alarms.
        window: losses over which mean and variance are taken.

    Attributes:
        rise: the losses since S was last 0, the last one included; after a detection, an estimate
            of how many are of the changed data.
    """

    def __init__(self, allowance: float = 0.5, threshold: float = 8.0, window: int = 50):
        self.allowance, self.threshold, self.window = allowance, threshold, window
        self.rise = 0
        self.restart()

    def restart(self) -> None:
        """Forget all losses."""
        self.count, self.mean, self.variance, self.sum = 0, 0.0, 0.0, 0.0

    def update(self, loss: float) -> bool:
        """Count the loss of a step. Returns whether a change is detected, and then begins anew."""
        difference = loss - self.mean
        if self.count >= WARMUP and self.variance > 0:
            standardized = min(difference / math.sqrt(self.variance), LARGEST)
            self.sum = max(0.0, self.sum + standardized - self.allowance)
            self.rise = self.rise + 1 if self.sum else 0
            if self.sum > self.threshold:
                self.restart()
                return True
        self.count += 1
        weight = 1 / min(self.count, self.window)
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference**2)
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, enough to go on from."""
        return {n: getattr(self, n) for n in NUMBERS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        require(state, self.state_dict(), "change detection")
        for name, kind in NUMBERS.items():
            setattr(self, name, typed(state[name], kind, f"change detection: {name}"))
