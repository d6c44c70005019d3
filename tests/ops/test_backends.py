"""Every backend agrees with the reference and behaves as PyTorch code does under autograd."""

import copy
import pickle

import growth_laws
import pytest
import torch
from backend_checks import (
    RESULTS,
    assert_agrees,
    every_backend,
    every_reading,
    largest_error,
    poison_new_memory,
    run_backend,
    with_threads,
)
from properties import DESIGNS, READINGS, drawn, normal, random_lengths, task_inputs
from random_networks import FAVORED, Case
from torch.utils.checkpoint import checkpoint

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.registry import lookup
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

# What the backends with kernels of their own can run.
STATIC = [name for name in READINGS if not lookup("reading", name).dynamic]
KERNELS = [*STATIC, "fast_softmax", "fast_gaussian"]
STACKS = [name for name in DESIGNS if lookup("module", name)(1, 1, 1).is_stack()]
CAN_RUN = {"batched": (READINGS, DESIGNS), "fused": (STATIC, STACKS), "cpp": (KERNELS, STACKS)}


def draw_only_what_it_can_run(backend, monkeypatch):
    """Let random networks have only the readings and designs that a backend can run."""
    readings, designs = CAN_RUN[backend]
    monkeypatch.setattr("random_networks.READINGS", readings)
    monkeypatch.setattr("random_networks.DESIGNS", designs)
    if backend != "batched":
        initial = {"orthogonal": True, "chrono": 5, "trainable_start": True}
        monkeypatch.setattr("random_networks.MODULE_OPTIONS", [{}, {}, initial])


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
@pytest.mark.parametrize("designs", ["default", "all"])
@pytest.mark.parametrize("shape", SHAPES)
@every_backend
def test_backends_agree_with_the_reference_at_odd_shapes(backend, shape, designs, dtype):
    modules, features, context, hidden, batch, time = shape
    sizes = {"features": features, "context": context, "hidden": hidden}
    if designs == "all":
        (readings, designs), k = CAN_RUN[backend], SHAPES.index(shape)
        sizes |= {"reading": readings[k % len(readings)], "module": designs[k % len(designs)]}
    if dtype == torch.float64 and sizes.get("reading") != "linear":
        net = drawn(lambda: ThalNet(6, modules, **sizes))
    else:  # larger weights are chaotic: rounding errors grow, those of the reference as well
        torch.manual_seed(0)
        net = ThalNet(6, modules, **sizes)
    assert_agrees(net, backend, dtype, batch=batch, time=time)


def random_call(seed, backend, monkeypatch):
    """Return a randomly grown ThalNet and random arguments for ``run_backend``."""
    draw_only_what_it_can_run(backend, monkeypatch)
    case = Case(seed, FAVORED[seed % len(FAVORED)], dtype=torch.float64)
    case.walk(4)
    net, draw = case.network.body, case.random
    active = draw.choice([None, *map(case.network.active_modules, case.network.adapters)])
    running = active or tuple(net.slots)
    batch, time = draw.choice([1, 7, 17]), draw.choice([1, 2, 5])
    xs = {name: x for name, x in task_inputs(net, batch, time).items() if name in running}
    for name in draw.sample(list(xs), draw.randint(0, len(xs) - 1)):
        del xs[name]  # absent inputs are zero
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.requires_grad and draw.random() < 0.8)
    call = {
        "active": active,
        "outputs": draw.sample(running, draw.randint(1, len(running))),
        "summed": draw.sample(RESULTS, draw.randint(1, 3)),
        "constant": [name for name in (*xs, "center 0", "memory 0") if draw.random() < 0.4],
        "sub_steps": draw.choice([1, 1, 2]),
        "lengths": draw.choice([None, random_lengths(batch, time, seed=seed)]),
    }
    return net, {"batch": batch, "time": time, "xs": xs, **call}


@pytest.mark.parametrize("seed", range(16))
@every_backend
def test_backends_agree_on_randomly_grown_networks_and_random_calls(backend, seed, monkeypatch):
    net, call = random_call(seed, backend, monkeypatch)
    for dtype in (torch.float64, torch.float32):
        before = assert_agrees(net, backend, dtype, **call)
        with monkeypatch.context() as patched:  # so every result has been written
            poison_new_memory(patched)
            after = run_backend(net, backend, dtype=dtype, **call)
        assert all(torch.equal(after[name], before[name]) for name in before)


@every_backend
@every_reading
def test_nan_stays_in_its_row_of_the_batch(reading, backend):
    net = drawn(lambda: ThalNet(2, 3, 5, reading=reading))
    net.ops = backend if net.explain()[backend] is None else "auto"
    xs = normal(9, 3, 2)
    before = net(xs)[0]
    xs[4, 1] = torch.nan
    after = net(xs)[0]
    assert after[4, -1].isnan().all()
    after[4] = before[4]
    assert torch.equal(after, before)


@pytest.mark.parametrize("lengths", [None, random_lengths(40, 6)], ids=["equal", "unequal"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@every_backend
@every_reading
def test_repetition_is_bit_identical_with_any_number_of_threads(reading, backend, threads, lengths):
    net = drawn(lambda: ThalNet(6, 4, 9, reading=reading), dtype=torch.float32)

    def run():
        return run_backend(net, backend, 40, 6, torch.float32, lengths=lengths)

    first, second = (with_threads(threads, run) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_backend
def test_tensors_may_have_any_strides(backend):
    net = drawn(lambda: ThalNet(6, 3, 5))
    xs = task_inputs(net, 4, 3)
    state = [normal(4, net.center), normal(4, net.memory)]
    expected = run_backend(net, backend, 4, 3, torch.float64, xs, state)
    for parameter in net.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.T.contiguous().T
    strided = {name: x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for name, x in xs.items()}
    results = run_backend(
        net, backend, 4, 3, torch.float64, strided, [part.T.contiguous().T for part in state]
    )
    assert largest_error(results, expected) < 1e-14
    # Expanded gradients, from sums over time and over features.
    for reduce in (lambda ys: ys.sum(), lambda ys: ys.sum(1).mean(), lambda ys: ys[:, -1].sum()):
        net.zero_grad()
        reduce(net(xs)[0]).backward()
        grads = [parameter.grad.clone() for parameter in net.parameters()]
        net.ops = "reference"
        net.zero_grad()
        reduce(net(xs)[0]).backward()
        for parameter, grad in zip(net.parameters(), grads, strict=True):
            torch.testing.assert_close(grad, parameter.grad)
        net.ops = backend


@every_backend
def test_backward_can_run_twice_if_the_graph_is_retained(backend):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.ops = backend
    loss = net(normal(4, 3, 2))[0].sum()
    loss.backward(retain_graph=True)
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    second = net(normal(4, 3, 2, seed=1))[0].sum()  # must not overwrite saved activations
    net.zero_grad()
    loss.backward()
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad, grad)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
    del second


@every_backend
def test_only_trainable_tensors_get_a_gradient_and_without_any_there_is_no_graph(backend):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.ops = backend
    net.cell("side1").requires_grad_(False)
    xs = normal(4, 3, 2)
    net(xs)[0].sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == ("side1" in name)
    net.requires_grad_(False)
    leaf = normal(4, 3, 2).requires_grad_()
    ys, state = net(leaf)
    ys.sum().backward()
    assert leaf.grad.abs().sum() > 0
    for disabled in (torch.no_grad, torch.inference_mode):
        with disabled():
            again, last = net(leaf)
        assert torch.equal(again, ys) and torch.equal(last.memory, state.memory)
        assert not again.requires_grad and not last.center.requires_grad
    assert not net(xs)[0].requires_grad


@every_backend
def test_states_may_be_reset_in_place(backend):
    net = drawn(lambda: ThalNet(2, 3, 5))
    xs, grads = normal(4, 3, 2), []
    for net.ops in (backend, "reference"):
        net.zero_grad()
        ys, state = net(xs)
        for part in state:
            part[1] = 0  # an episode ends here
        (ys.sum() + net(xs, state)[0].sum()).backward()
        grads.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert largest_error(*grads) < 1e-12


@every_backend
def test_a_network_that_has_run_can_be_copied_pickled_saved_and_checkpointed(backend, tmp_path):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.ops = backend
    xs = normal(4, 3, 2)
    expected, _ = net(xs)
    assert torch.equal(copy.deepcopy(net)(xs)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(xs)[0], expected)
    torch.save(net, tmp_path / "net.pt")
    assert torch.equal(torch.load(tmp_path / "net.pt", weights_only=False)(xs)[0], expected)
    expected.sum().backward()
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    for reentrant in (False, True):
        net.zero_grad()
        leaf = xs.clone().requires_grad_()
        checkpoint(lambda x: net(x)[0], leaf, use_reentrant=reentrant).sum().backward()
        assert all(map(torch.equal, grads, (parameter.grad for parameter in net.parameters())))
    single = copy.deepcopy(net).float()
    torch.testing.assert_close(single(xs.float())[0].double(), expected, rtol=0, atol=1e-5)
    changed = {name: p + 1 for name, p in net.named_parameters()}
    expected, _ = torch.func.functional_call(net, changed, (xs,))
    for assign in (False, True):
        loaded = copy.deepcopy(net)
        loaded.load_state_dict(changed, assign=assign)
        assert torch.equal(loaded(xs)[0], expected)


@every_backend
def test_an_empty_batch_has_gradients_of_zero(backend):
    net = ThalNet(2, 3, 4)
    net.ops = backend
    ys, state = net(torch.zeros(0, 3, 2))
    (ys.sum() + state.memory.sum()).backward()
    assert ys.shape == (0, 3, 4) and not any(p.grad.any() for p in net.parameters())


def test_bf16_products_are_close_to_those_in_single_precision():
    net = drawn(lambda: ThalNet(6, 4, 16), dtype=torch.float32)
    expected = run_backend(net, "fused", 8, 6, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        results = run_backend(net, "fused", 8, 6, torch.float32)
    assert results["ys"].dtype == torch.float32
    for name, tensor in expected.items():
        limit = 0.05 if name.startswith("d ") else 0.02
        if "scale" not in name:
            assert 0 < (results[name] - tensor).norm() / tensor.norm() < limit, name


@every_backend
def test_backends_agree_after_every_change_of_the_modules(backend):
    torch.manual_seed(0)
    body = ThalNet(3, 3, 4, reading="fast_softmax", module="ff_gru")
    network = Network(body).double()
    network.add_task("a", TaskSpec(inputs=3, outputs=2))
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
        expected = run_backend(body, "reference", 4, 3, torch.float64)
        assert largest_error(run_backend(body, backend, 4, 3, torch.float64), expected) < 1e-12


@pytest.mark.parametrize("seed", [0, 1])
@every_backend
def test_frozen_tasks_stay_bit_identical_with_every_backend(backend, seed, monkeypatch):
    draw_only_what_it_can_run(backend, monkeypatch)
    # Some laws run under autocast, for which ``batched`` remains.
    remaining = {backend: BACKENDS[backend], "batched": BACKENDS["batched"]}
    monkeypatch.setattr("thalnet_mtl.ops.BACKENDS", remaining)
    case = Case(seed)
    assert case.network.body.backend() == backend
    growth_laws.frozen_tasks_do_not_change(case)
