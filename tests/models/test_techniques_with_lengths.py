"""Derivatives and traces of sequences of unequal lengths: as of each sequence alone."""

import copy

import jaxtyping
import pytest
import torch
from technique_cases import CASES, LENGTHS, XS, flat, nets
from torch import nn
from torch.autograd import functional as derivatives
from torch.func import jacrev, vmap

from thalnet_mtl.errors import UserError

# PyTorch's own: torch.jit is deprecated, and some of its operations are slow under vmap.
pytestmark = pytest.mark.filterwarnings("ignore")


class WithLengths(nn.Module):
    """A body as a function of inputs and lengths."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, xs, lengths):
        return self.body(xs, None, lengths)[0]


def jacobian_with_lengths(net, how):
    ys = (lambda x: net(x, None, LENGTHS)[0]) if how != "vmap" else None
    if how == "vmap":
        return vmap(lambda x, n: net(x[None], None, n[None])[0][0])(XS, LENGTHS)
    if how == "jacrev":
        return jacrev(ys)(XS)
    if how == "second":
        xs = XS.clone().requires_grad_()
        (slope,) = torch.autograd.grad(ys(xs).square().sum(), xs, create_graph=True)
        return flat(torch.autograd.grad(slope.square().sum(), [xs, *net.parameters()]))
    if how == "batch of gradients":
        return derivatives.jacobian(ys, XS, vectorize=True)
    program = torch.jit.trace(WithLengths(net), (XS, LENGTHS))
    return program(XS, torch.tensor([3, 1]))


@pytest.mark.parametrize("how", ["vmap", "jacrev", "second", "batch of gradients", "trace"])
@pytest.mark.parametrize(("kind", "ops"), [case for case in CASES if case[0] != "rnn"])
def test_techniques_with_sequences_of_unequal_lengths(kind, ops, how, monkeypatch):
    """Expected is what single sequences without padding give, one by one, with plain autograd."""
    if how == "trace":
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    body, _ = nets(kind, ops)
    if kind == "gru" and how == "vmap":
        with pytest.raises(RuntimeError, match="Batching rule not implemented"):  # of nn.GRU
            jacobian_with_lengths(body, how)
        return
    if (ops, how) in {(o, h) for o in ("cpp", "fused") for h in ("jacrev", "trace")} | {
        ("fused", "vmap")
    }:
        with pytest.raises(UserError, match=f"backend '{ops}'"):
            jacobian_with_lengths(body, how)
        return
    found = jacobian_with_lengths(body, how)
    single = copy.deepcopy(body)
    single.ops = "reference"
    lengths = [3, 1] if how == "trace" else LENGTHS.tolist()

    def ys(x):
        rows = [single(x[k : k + 1, :n])[0] for k, n in enumerate(lengths)]
        pads = [(0, 0, 0, 3 - n) for n in lengths]
        return torch.cat([nn.functional.pad(*pair) for pair in zip(rows, pads, strict=True)])

    if how in ("vmap", "trace"):
        expected = ys(XS)
    elif how == "second":
        xs = XS.clone().requires_grad_()
        (slope,) = torch.autograd.grad(ys(xs).square().sum(), xs, create_graph=True)
        leaves = [xs, *single.parameters()]
        expected = flat(torch.autograd.grad(slope.square().sum(), leaves))
    else:
        expected = derivatives.jacobian(ys, XS)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
