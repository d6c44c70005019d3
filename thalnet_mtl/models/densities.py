"""Densities of sequences: how likely inputs are, by those on which a task was trained.

A density is fitted in one pass, has a few numbers for each number of a sequence, and knows nothing
of the network. ``RowDensity`` is for rows of numbers, ``TokenDensity`` for tokens.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from thalnet_mtl.ops.lengths import Lengths, past_end

COMPONENTS = 16  # of a density of rows; measured on digits, MNIST by pairs and permutations
SAMPLES_PER_COMPONENT = 4  # fewer sequences than that determine fewer components
MOST_PAIRED = 1_000  # tokens of a vocabulary whose pairs are counted: a table of a million numbers
NUMBERS = 20_000_000  # of all sequences in a fit; of longer sequences fewer are used
NOISE = 1e-3  # the least variance of the noise, as a share of the mean variance
TINY = 1e-8  # the same where nothing varies


class RowDensity(NamedTuple):
    """A Gaussian of whole sequences of rows, with few components: probabilistic PCA.

    x ~ N(μ, W Wᵀ + σ² I), for x the T · inputs numbers of a sequence. With λ and U the largest
    eigenvalues of their covariance and its eigenvectors, σ² is the mean of the other eigenvalues
    and W = U (λ − σ²)^½, the maximum of the likelihood. A sequence that ends early has the density
    of its steps. Source: Tipping, Bishop, "Probabilistic principal component analysis", 1999.

    Args:
        mean: (time, inputs).
        factor: (time, inputs, components), W.
        noise: scalar, σ².
    """

    mean: Float[Tensor, "time inputs"]
    factor: Float[Tensor, "time inputs components"]
    noise: Float[Tensor, ""]

    @classmethod
    def fit(
        cls, xs: Float[Tensor, "batch time inputs"], lengths: Lengths | None = None
    ) -> "RowDensity":
        """Return the density of some sequences, on the CPU.

        A step that not all sequences reach has the mean and variance of those that do.
        """
        count = max(1, min(len(xs), NUMBERS // xs[0].numel()))
        xs = xs[:count].detach().cpu().double()
        present = torch.ones(xs.shape[:2], dtype=torch.float64)
        if lengths is not None:
            present[past_end(lengths[:count].cpu(), xs.shape[1])] = 0
        reached = present.sum(0).clamp(min=1)
        mean = (xs * present[..., None]).sum(0) / reached[:, None]
        weight = present * (count / reached).sqrt()
        rows = ((xs - mean) * weight[..., None]).flatten(1) / max(1, count - 1) ** 0.5
        size = rows.shape[1]
        k = max(1, min(COMPONENTS, count // SAMPLES_PER_COMPONENT, size - 1))
        _, roots, directions = torch.linalg.svd(rows, full_matrices=False)
        values, total = roots[:k].square(), rows.square().sum()
        least = NOISE * total / size + TINY
        noise = ((total - values.sum()) / max(1, size - k)).clamp(min=least)
        factor = directions[:k].T * (values - noise).clamp(min=0).sqrt()
        return cls(mean.float(), factor.unflatten(0, mean.shape).float(), noise.float())

    @property
    def steps(self) -> int:
        """The number of steps that the density knows; 0 for any."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """The numbers in a row."""
        return self.mean.shape[1]

    @property
    def expected(self) -> str:
        """The inputs of a sequence, in words."""
        return f"(batch, time, {self.width}) finite numbers"

    def accepts(self, xs: Tensor) -> bool:
        """Return whether inputs have the kind and the width of those of the fit."""
        return are_rows(xs, self.width)

    def log_likelihood(
        self, xs: Float[Tensor, "batch time inputs"], lengths: Lengths | None = None
    ) -> Float[Tensor, " batch"]:
        """Return log p of sequences of at most ``steps`` steps, in nats."""
        if lengths is None:
            lengths = torch.full((len(xs),), xs.shape[1], device=xs.device)
        mean, factor, noise = (part.to(xs.device).double() for part in self)
        result = xs.new_empty(len(xs), dtype=torch.float64)
        for n in lengths.unique().tolist():
            rows = lengths == n
            loc, cov_factor = mean[:n].flatten(), factor[:n].flatten(0, 1)
            density = LowRankMultivariateNormal(loc, cov_factor, noise.expand_as(loc))
            result[rows] = density.log_prob(xs[rows, :n].flatten(1).double())
        return result


class TokenDensity(NamedTuple):
    """A Markov chain of tokens: each depends on the one before it.

    p(b) = (n(b) + 1) / (n + vocabulary) and p(b | a) = (n(a, b) + p(b)) / (n(a) + 1), with the
    counts n of tokens and of pairs. Tokens of a vocabulary above 1,000 are independent: p(b).

    Args:
        first: (vocabulary,) log p(b), of the first token.
        following: (vocabulary, vocabulary) log p(b | a), a row for each a; (1, vocabulary) log p(b)
            if tokens are independent.
    """

    first: Float[Tensor, " vocabulary"]
    following: Float[Tensor, "previous vocabulary"]

    @property
    def steps(self) -> int:
        """The number of steps that the density knows; 0 for any."""
        return 0

    @property
    def width(self) -> int:
        """The size of the vocabulary."""
        return len(self.first)

    @property
    def expected(self) -> str:
        """The inputs of a sequence, in words."""
        return f"(batch, time) tokens below {self.width}"

    def accepts(self, xs: Tensor) -> bool:
        """Return whether inputs are tokens of the vocabulary."""
        return are_tokens(xs, self.width)

    @classmethod
    def fit(
        cls, xs: Int[Tensor, "batch time"], vocabulary: int, lengths: Lengths | None = None
    ) -> "TokenDensity":
        """Return the density of some sequences of tokens below ``vocabulary``, on the CPU."""
        xs = xs.detach().cpu().long()
        present = torch.ones_like(xs, dtype=torch.bool)
        if lengths is not None:
            present = ~past_end(lengths.cpu(), xs.shape[1])
        counts = torch.bincount(xs[present], minlength=vocabulary).double()
        first = (counts + 1) / (counts.sum() + vocabulary)
        if vocabulary > MOST_PAIRED:
            return cls(first.log().float(), first.log().float()[None])
        pairs = (xs[:, :-1] * vocabulary + xs[:, 1:])[present[:, 1:]]
        table = torch.bincount(pairs, minlength=vocabulary**2).view(vocabulary, vocabulary)
        following = (table + first) / (table.sum(1, keepdim=True) + 1)
        return cls(first.log().float(), following.log().float())

    def log_likelihood(
        self, xs: Int[Tensor, "batch time"], lengths: Lengths | None = None
    ) -> Float[Tensor, " batch"]:
        """Return log p of sequences, in nats."""
        xs = xs.long()
        first, following = (part.to(xs.device).double() for part in self)
        previous = xs[:, :-1] if len(following) > 1 else torch.zeros_like(xs[:, :-1])
        steps = torch.cat([first[xs[:, :1]], following[previous, xs[:, 1:]]], 1)
        if lengths is not None:
            steps = steps.masked_fill(past_end(lengths, xs.shape[1]), 0)
        return steps.sum(1)


def are_rows(xs: Tensor, width: int) -> bool:
    """Return whether inputs are (batch, time, width) finite numbers."""
    fits = xs.ndim == 3 and xs.shape[2] == width and xs.is_floating_point()
    return fits and bool(xs.isfinite().all())


def are_tokens(xs: Tensor, vocabulary: int) -> bool:
    """Return whether inputs are (batch, time) whole numbers below the size of a vocabulary."""
    whole = xs.ndim == 2 and xs.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)
    return whole and (not xs.numel() or 0 <= int(xs.min()) <= int(xs.max()) < vocabulary)
