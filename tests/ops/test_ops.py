"""Levels of the sequence beside the law that they compute the same: when, where, with what care."""

import copy
import pickle

import growth_laws
import pytest
import torch
from backend_checks import (
    ALL,
    assert_agrees,
    error,
    every_level,
    every_reading,
    one_thread_and,
    outcome,
)
from properties import DESIGNS, READINGS, drawn, normal, task_inputs
from random_networks import FAVORED, Case
from torch.utils.checkpoint import checkpoint

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.designs import FFGRU
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.ops import buffers as memory
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

FAST = [name for name in BACKENDS if name not in ("reference", "triton")]
STATIC = [name for name in READINGS if name not in ("fast_softmax", "fast_gaussian")]


def poisoned(monkeypatch):
    """From now on fresh memory is full of NaN, also that which is used again."""

    def full(make):
        def made(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return made

    for owner, name in [(torch, "empty_like"), (torch, "empty"), (torch.Tensor, "new_empty")]:
        monkeypatch.setattr(owner, name, full(getattr(owner, name)))
    monkeypatch.setattr(memory, "MIN_BYTES", 0)
    monkeypatch.setattr(memory, "_free", {})
    monkeypatch.setattr(memory.np, "empty", lambda size, dtype: memory.np.full(size, 255, dtype))


SHAPES = [  # modules, features, context, hidden, batch, time
    (1, 3, 5, 7, 1, 1),
    (3, 5, 7, 9, 7, 2),
    (4, 33, 31, 17, 16, 5),
    (5, 1, 1, 1, 17, 4),
    (4, 32, 32, 32, 50, 28),
    (3, 13, 4, 6, 256, 3),
    (64, 2, 3, 4, 9, 3),
    (2, 7, 9, 8, 3, 100),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kinds", ["of the paper", "others"])
@pytest.mark.parametrize("shape", SHAPES)
@every_level
def test_levels_agree_with_the_definition_at_odd_shapes(ops, shape, kinds, dtype):
    modules, features, context, hidden, batch, time = shape
    sizes = {"features": features, "context": context, "hidden": hidden}
    if kinds == "others":
        readings, k = STATIC if ops == "fused" else READINGS, SHAPES.index(shape)
        sizes |= {"reading": readings[k % len(readings)], "module": DESIGNS[k % len(DESIGNS)]}
    if dtype == torch.float64 and sizes.get("reading") != "linear":
        net = drawn(lambda: ThalNet(6, modules, **sizes))
    else:  # larger weights than those of the start are chaotic, rounding of the definition too
        torch.manual_seed(0)
        net = ThalNet(6, modules, **sizes)
    assert_agrees(net, ops, dtype, batch=batch, time=time)


def whatever(seed, ops, monkeypatch):
    """A net that grew at random, and a call of it that asks for anything."""
    if ops == "fused":
        monkeypatch.setattr("random_networks.READINGS", STATIC)
    case = Case(seed, FAVORED[seed % len(FAVORED)], dtype=torch.float64)
    case.walk(4)
    net, draw = case.network.body, case.random
    active = draw.choice([None, *map(case.network.active_modules, case.network.adapters)])
    runs = active or tuple(net.slots)
    batch, time = draw.choice([1, 7, 17]), draw.choice([1, 2, 5])
    xs = {name: x for name, x in task_inputs(net, batch, time).items() if name in runs}
    for name in draw.sample(list(xs), draw.randint(0, len(xs) - 1)):
        del xs[name]  # absent ones are zero
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.requires_grad and draw.random() < 0.8)
    call = {
        "active": active,
        "outputs": draw.sample(runs, draw.randint(1, len(runs))),
        "parts": draw.sample(ALL, draw.randint(1, 3)),
        "still": [name for name in (*xs, "center 0", "memory 0") if draw.random() < 0.4],
        "sub_steps": draw.choice([1, 1, 2]),
    }
    return net, {"batch": batch, "time": time, "xs": xs, **call}


@pytest.mark.parametrize("seed", range(16))
@every_level
def test_levels_agree_on_whatever_has_grown_and_is_asked(ops, seed, monkeypatch):
    net, call = whatever(seed, ops, monkeypatch)
    for dtype in (torch.float64, torch.float32):
        before = assert_agrees(net, ops, dtype, **call)
        with monkeypatch.context() as patched:  # every number that comes out was written
            poisoned(patched)
            after = outcome(net, ops, dtype=dtype, **call)
        assert all(torch.equal(after[name], before[name]) for name in before)


@every_level
@every_reading
def test_what_is_not_a_number_stays_in_its_row(reading, ops):
    net = drawn(lambda: ThalNet(2, 3, 5, reading=reading))
    net.ops = ops if net.explain()[ops] is None else "auto"
    xs = normal(9, 3, 2)
    before = net(xs)[0]
    xs[4, 1] = torch.nan
    after = net(xs)[0]
    assert after[4, -1].isnan().all()
    after[4] = before[4]
    assert torch.equal(after, before)


@pytest.mark.parametrize("threads", [1, 2, 3])
@every_level
@every_reading
def test_repetition_is_equal_to_the_bit_with_any_number_of_threads(reading, ops, threads):
    net = drawn(lambda: ThalNet(6, 4, 9, reading=reading), dtype=torch.float32)

    def again():
        return outcome(net, ops, 40, 6, torch.float32)

    first, second = (one_thread_and(threads, again) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_level
def test_tensors_may_lie_in_any_order(ops):
    net = drawn(lambda: ThalNet(6, 3, 5))
    xs = {name: x for name, x in task_inputs(net, 4, 3).items()}
    state = [normal(4, net.center), normal(4, net.memory)]
    expected = outcome(net, ops, 4, 3, torch.float64, xs, state)
    for parameter in net.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.T.contiguous().T
    turned = {name: x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for name, x in xs.items()}
    found = outcome(
        net, ops, 4, 3, torch.float64, turned, [part.T.contiguous().T for part in state]
    )
    assert error(found, expected) < 1e-14
    # Gradients that are expanded: of a sum over time and over features.
    for reduce in (lambda ys: ys.sum(), lambda ys: ys.sum(1).mean(), lambda ys: ys[:, -1].sum()):
        net.zero_grad()
        reduce(net(xs)[0]).backward()
        first = [parameter.grad.clone() for parameter in net.parameters()]
        net.ops = "reference"
        net.zero_grad()
        reduce(net(xs)[0]).backward()
        for parameter, other in zip(net.parameters(), first, strict=True):
            torch.testing.assert_close(other, parameter.grad)
        net.ops = ops


@every_level
def test_the_way_back_can_be_gone_twice_if_it_is_kept(ops):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.ops = ops
    loss = net(normal(4, 3, 2))[0].sum()
    loss.backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in net.parameters()]
    other = net(normal(4, 3, 2, seed=1))[0].sum()  # may not touch what the first one keeps
    net.zero_grad()
    loss.backward()
    for parameter, before in zip(net.parameters(), once, strict=True):
        assert torch.equal(parameter.grad, before)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
    del other
    if ops != "batched":
        xs = normal(4, 3, 2).requires_grad_()
        (once,) = torch.autograd.grad(net(xs)[0].square().sum(), xs, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            once.sum().backward()


@every_level
def test_only_what_learns_gets_a_gradient_and_without_any_nothing_is_kept(ops):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.ops = ops
    net.cell("side1").requires_grad_(False)
    xs = normal(4, 3, 2)
    net(xs)[0].sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == ("side1" in name)
    net.requires_grad_(False)
    wanting = normal(4, 3, 2).requires_grad_()
    ys, state = net(wanting)
    ys.sum().backward()
    assert wanting.grad.abs().sum() > 0
    for free in (torch.no_grad, torch.inference_mode):
        with free():
            again, last = net(wanting)
        assert torch.equal(again, ys) and torch.equal(last.memory, state.memory)
        assert not again.requires_grad and not last.center.requires_grad
    assert not net(xs)[0].requires_grad


@every_level
def test_states_may_be_set_back_in_place(ops):
    net = drawn(lambda: ThalNet(2, 3, 5))
    xs, found = normal(4, 3, 2), []
    for level in (ops, "reference"):
        net.ops = level
        net.zero_grad()
        ys, state = net(xs)
        for part in state:
            part[1] = 0  # an episode ends here
        (ys.sum() + net(xs, state)[0].sum()).backward()
        found.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert error(*found) < 1e-12


@every_level
def test_a_net_that_has_run_can_be_copied_saved_moved_and_checkpointed(ops, tmp_path):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.ops = ops
    xs = normal(4, 3, 2)
    expected, _ = net(xs)
    assert torch.equal(copy.deepcopy(net)(xs)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(xs)[0], expected)
    torch.save(net, tmp_path / "net.pt")
    assert torch.equal(torch.load(tmp_path / "net.pt", weights_only=False)(xs)[0], expected)
    expected.sum().backward()
    once = [parameter.grad.clone() for parameter in net.parameters()]
    for reentrant in (False, True):
        net.zero_grad()
        again = xs.clone().requires_grad_()
        checkpoint(lambda x: net(x)[0], again, use_reentrant=reentrant).sum().backward()
        assert all(map(torch.equal, once, (parameter.grad for parameter in net.parameters())))
    narrow = copy.deepcopy(net).float()
    torch.testing.assert_close(narrow(xs.float())[0].double(), expected, rtol=0, atol=1e-5)
    swapped = {name: p + 1 for name, p in net.named_parameters()}
    found, _ = torch.func.functional_call(net, swapped, (xs,))
    for assign in (False, True):
        other = copy.deepcopy(net)
        other.load_state_dict(swapped, assign=assign)
        assert torch.equal(other(xs)[0], found)


class Own(torch.nn.Module):
    """A dynamic reading of one's own."""

    dynamic = True

    def __init__(self, features, center, context):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(context, center))

    def weights(self, features=None):
        return self.weight * features.mean()


class OwnDesign(FFGRU):
    """A design of one's own."""

    def forward(self, x, memory):
        return super().forward(2 * x, memory)


def without_bias(design):
    design.stack[0].bias = None


def hooked(design):
    design.stack[0].register_forward_hook(lambda layer, given, y: 2 * y)


def larger(design):
    design.stack[0] = torch.nn.Sequential(design.stack[0], torch.nn.Tanh())


def test_levels_say_why_they_cannot_and_name_those_that_can():
    net = ThalNet(2, 3, 4)
    assert list(net.explain()) == list(BACKENDS)
    assert net.explain()["cpp"] is None and net.backend() == "cpp"
    assert "float16" in net.half().explain()["cpp"]
    net = net.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert net.explain()["cpp"] == "autocast is on"
        assert net.backend() == "fused"
    dynamic = ThalNet(2, 3, 4, reading="fast_softmax")
    assert "'input' has a dynamic reading" in dynamic.explain()["fused"]
    dynamic.ops = "fused"
    with pytest.raises(
        UserError, match=r"^backend 'fused': .* Use one of auto, cpp, batched, reference"
    ):
        dynamic(torch.zeros(1, 1, 2))
    dynamic.ops = "cp"
    with pytest.raises(UserError, match=r"unknown backend 'cp'.*'cpp'"):
        dynamic(torch.zeros(1, 1, 2))
    own = ThalNet(2, 3, 4)
    own.cell("input").reading = Own(4, 12, 4)
    assert "custom dynamic reading, Own" in own.explain()["cpp"]
    assert own.backend() == "batched"
    own = ThalNet(2, 3, 4)
    own.cell("side1").design = OwnDesign(4, 4, 4)
    for level in ("cpp", "fused"):
        assert own.explain()[level] == "module 'side1' has a custom design, OwnDesign"


@pytest.mark.parametrize("ops", ["auto", "cpp", "fused"])
def test_a_net_is_traced_on_a_level_that_can_be(ops):
    net, xs = ThalNet(2, 3, 4), torch.rand(4, 3, 2)
    expected, net.ops = net(xs)[0], ops
    if ops == "auto":
        traced = torch.export.export(net, (xs,)).module()
        torch.testing.assert_close(traced(xs)[0], expected)
    else:
        with pytest.raises(Exception, match=f"backend '{ops}': it cannot be traced"):
            torch.export.export(net, (xs,))


@pytest.mark.parametrize("change", [without_bias, hooked, larger])
def test_layers_that_are_more_or_less_than_those_of_pytorch_are_computed_as_they_are(change):
    net, xs = drawn(lambda: ThalNet(2, 3, 4)), normal(4, 3, 2)
    change(net.cell("side1").design)
    net.ops = "reference"
    expected = net(xs)[0]
    for net.ops in ("auto", "batched"):
        torch.testing.assert_close(net(xs)[0], expected)


@every_level
def test_a_batch_of_nothing_has_gradients_of_zero(ops):
    net = ThalNet(2, 3, 4)
    net.ops = ops
    ys, state = net(torch.zeros(0, 3, 2))
    (ys.sum() + state.memory.sum()).backward()
    assert ys.shape == (0, 3, 4) and not any(p.grad.any() for p in net.parameters())


def test_bf16_products_are_near_those_of_single_precision():
    net = drawn(lambda: ThalNet(6, 4, 16), dtype=torch.float32)
    expected = outcome(net, "fused", 8, 6, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(net, "fused", 8, 6, torch.float32)
    assert found["ys"].dtype == torch.float32
    for name, part in expected.items():
        limit = 0.05 if name.startswith("d ") else 0.02
        if "scale" not in name:
            assert 0 < (found[name] - part).norm() / part.norm() < limit, name


@every_level
def test_levels_agree_again_after_every_change_of_the_modules(ops):
    torch.manual_seed(0)
    body = ThalNet(3, 3, 4, reading="fast_softmax", module="ff_gru")
    network = Network(body).double()
    network.add_task("a", TaskSpec(inputs=3, classes=2))
    new = ModuleSpec("new", features=3, context=2, inputs=3, reading="fast_gaussian")
    changes = [
        lambda: network.attach(new, read_by=["output", "side1"]),
        lambda: network.route("output", "input", open=False),
        lambda: network.freeze("side1"),
        lambda: network.clone("output", "duplicate"),
        lambda: network.detach("duplicate"),
    ]
    for change in changes:
        change()
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        expected = outcome(body, "reference", 4, 3, torch.float64)
        assert error(outcome(body, ops, 4, 3, torch.float64), expected) < 1e-12


@pytest.mark.parametrize("seed", [0, 1])
@every_level
def test_frozen_tasks_stay_to_the_bit_on_each_level(ops, seed, monkeypatch):
    if ops == "fused":
        monkeypatch.setattr("random_networks.READINGS", STATIC)
    first = {
        ops: BACKENDS[ops],
        "batched": BACKENDS["batched"],
    }  # which serves where autocast is on
    monkeypatch.setattr("thalnet_mtl.ops.BACKENDS", first)
    case = Case(seed)
    assert case.network.body.backend() == ops
    growth_laws.frozen_tasks_stay(case)
