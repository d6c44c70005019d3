"""Techniques of PyTorch on every body and backend: right, or one line that says what to do.

A ThalNet must agree with its reference in float64, and a stack of PyTorch's layers with the layer
itself. A backend that is named and cannot do what is asked is refused; ``auto`` takes another.
"""

import copy
import io
import pickle
import re

import jaxtyping
import pytest
import torch
from technique_cases import XS, every_case, flat, nets
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd import functional as derivatives
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.demands import ABLE, BATCHING, INTERCEPTING, NESTING, TRACING, TRANSFORMING

# PyTorch's own: torch.jit is deprecated, and some of its operations are slow under vmap.
pytestmark = pytest.mark.filterwarnings("ignore")


def last(net, xs):
    return net(xs)[0][:, -1]


def weights(net):
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def loss(net):
    return lambda tensors, xs: functional_call(net, tensors, (xs,))[0].square().sum()


def per_row(net):
    """Return the gradients of every row of the batch, one after the other."""
    tensors = dict(net.named_parameters())
    rows = [torch.autograd.grad(loss(net)(tensors, x[None]), tensors.values()) for x in XS]
    return flat(torch.stack(grads) for grads in zip(*rows, strict=True))


def penalty(net):
    """Return the gradients of a penalty on the gradient by the input, as for a critic."""
    xs = XS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(xs)[0].sum(), xs, create_graph=True)
    (slope.norm() - 1).square().backward()
    return flat(p.grad for p in net.parameters())


def one_step_ahead(net):
    """Return the gradients through a step of gradient descent, as in MAML."""
    tensors = dict(net.named_parameters())
    grads = torch.autograd.grad(loss(net)(tensors, XS), tensors.values(), create_graph=True)
    moved = {name: p - 0.1 * g for (name, p), g in zip(tensors.items(), grads, strict=True)}
    return flat(torch.autograd.grad(loss(net)(moved, XS), tensors.values()))


def tangent(net):
    with forward_ad.dual_level():
        ys = net(forward_ad.make_dual(XS, torch.ones_like(XS)))[0]
        return forward_ad.unpack_dual(ys).tangent


def batched_gradients(net):
    ys = net(XS)[0]
    many = torch.stack([torch.ones_like(ys), ys.detach()])
    grads = torch.autograd.grad(ys, list(net.parameters()), many, is_grads_batched=True)
    return torch.cat([g.reshape(2, -1) for g in grads], 1)


def traced(net):
    return torch.jit.trace(net, (XS,))(2 * XS[:1])[0]


def simulated(net):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        shape = net(mode.from_tensor(XS), None)[0].shape
    return torch.zeros(shape)


def saved(net):
    net(XS)[0].sum().backward()  # with caches and gradients
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded]
    outputs = [again(XS)[0] for again in copies]
    with torch.no_grad():
        for again in copies:
            for parameter in again.parameters():
                parameter.zero_()
    return torch.stack([*outputs, net(XS)[0]])


def checkpointed(net):
    xs = XS.clone().requires_grad_()
    checkpoint(lambda x: net(x)[0], xs, use_reentrant=False).sum().backward()
    return flat([xs.grad, *(p.grad for p in net.parameters())])


def edited(net):
    """Change the weights in each of the usual ways between calls."""
    outputs = [net(XS)[0]]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    outputs.append(net(XS)[0])
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(3 * vector, net.parameters())
    outputs.append(net(XS)[0])
    half = {name: 0.5 * value for name, value in net.state_dict().items()}
    net.load_state_dict(half, assign=True)
    outputs.append(net(XS)[0])
    outputs.append(functional_call(net, {name: -value for name, value in half.items()}, (XS,))[0])
    outputs[-2].sum().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.1)
    return torch.cat([*(ys.flatten() for ys in outputs), flat(p.grad for p in net.parameters())])


# By name of a technique: the function, and what it demands of a backend.
TECHNIQUES = {
    "hessian": (
        lambda net: derivatives.hessian(lambda x: last(net, x).sum(), XS[:1]),
        None,
    ),
    "hessian(vectorize=True)": (
        lambda net: derivatives.hessian(lambda x: last(net, x).sum(), XS[:1], vectorize=True),
        None,
    ),
    "gradient penalty": (penalty, None),
    "MAML": (one_step_ahead, None),
    "is_grads_batched": (batched_gradients, None),
    "jacobian(vectorize=True)": (
        lambda net: derivatives.jacobian(lambda x: last(net, x), XS, vectorize=True),
        None,
    ),
    "func.grad": (lambda net: flat(grad(loss(net))(weights(net), XS).values()), TRANSFORMING),
    "vmap of func.grad": (
        lambda net: flat(vmap(grad(loss(net)), (None, 0))(weights(net), XS[:, None]).values()),
        TRANSFORMING,
    ),
    "func.jacrev": (lambda net: jacrev(lambda x: last(net, x))(XS), TRANSFORMING),
    "func.jacfwd": (lambda net: jacfwd(lambda x: last(net, x))(XS), TRANSFORMING),
    "func.hessian": (
        lambda net: hessian(lambda x: last(net, x).sum())(XS[:1]),
        TRANSFORMING,
    ),
    "func.jvp": (
        lambda net: jvp(lambda x: net(x)[0], (XS,), (torch.ones_like(XS),))[1],
        TRANSFORMING,
    ),
    "forward mode": (tangent, TRANSFORMING),
    "vmap": (lambda net: vmap(lambda x: net(x[None])[0][0])(XS), BATCHING),
    "vmap of vmap": (
        lambda net: vmap(vmap(lambda x: net(x[None])[0][0]))(torch.stack([XS, -XS])),
        NESTING,
    ),
    "jit.trace": (traced, TRACING),
    "make_fx": (
        lambda net: make_fx(lambda x: net(x)[0])(XS[:, :1])(2 * XS[:, :1]),
        INTERCEPTING,
    ),
    "FakeTensorMode": (simulated, INTERCEPTING),
    "meta": (
        lambda net: torch.zeros(copy.deepcopy(net).to("meta")(XS.to("meta"))[0].shape),
        INTERCEPTING,
    ),
    "deepcopy, pickle, save": (saved, None),
    "checkpoint": (checkpointed, None),
    "edits of weights": (edited, None),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
@every_case
def test_a_technique_is_right_or_refused_in_one_line(kind, ops, technique, monkeypatch):
    if technique == "jit.trace":  # sizes are tensors there
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    net, expected = nets(kind, ops)
    apply, demand = TECHNIQUES[technique]
    refused = demand is not None and ops in ABLE and demand not in ABLE[ops]
    if refused:
        with pytest.raises(UserError, match=rf"^backend '{ops}': .* Use one of auto, ") as error:
            apply(net)
        assert "\n" not in str(error.value)
        return
    try:
        target = (per_row if technique == "vmap of func.grad" else apply)(expected)
    except RuntimeError as error:  # of PyTorch's own layers under vmap
        assert isinstance(expected, nn.RNNBase) and "vmap" in technique
        with pytest.raises(RuntimeError, match=re.escape(str(error).partition(".")[0])):
            apply(net)
        return
    torch.testing.assert_close(apply(net), target, rtol=1e-9, atol=1e-12)
