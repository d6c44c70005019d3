"""Levels of the sequence beside the law that they compute the same: when, where, with what care."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from properties import drawn, normal, task_inputs
from torch.utils.checkpoint import checkpoint

from thalnet_mtl.config import UserError
from thalnet_mtl.network import Network
from thalnet_mtl.ops import LEVELS, memory
from thalnet_mtl.thalnet import State, ThalNet
from thalnet_mtl.topology import Interface, Module

FAST = [name for name in LEVELS if name not in ("reference", "triton")]
every_level = pytest.mark.parametrize("ops", FAST)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}


def outcome(net, ops, batch, time, dtype, xs=None, state=None):
    """Outputs, state and all gradients, by name."""
    net.ops = ops if net.explain()[ops] is None else "auto"
    net.zero_grad()
    xs = xs or task_inputs(net, batch, time, dtype=dtype)
    xs = {name: x.detach().requires_grad_() for name, x in xs.items()}
    if state is None:
        state = [
            normal(batch, width, seed=k).tanh() for k, width in enumerate((net.center, net.memory))
        ]
    state = [part.detach().to(dtype).requires_grad_() for part in state]
    ys, last = net(xs, State(*state), outputs=tuple(net.slots))
    found = {"ys": ys, "center": last.center, "memory": last.memory}
    total = sum((part * normal(*part.shape, dtype=dtype, seed=9)).sum() for part in found.values())
    total.backward()
    leaves = xs | {"center 0": state[0], "memory 0": state[1]} | dict(net.named_parameters())
    # Without steps of memory nothing depends on it.
    gradients = {f"d {k}": v.grad for k, v in leaves.items() if v.grad is not None}
    return {name: part.detach() for name, part in (found | gradients).items()}


def error(found, expected):
    """Relative L2 of the worst part. A scale is a sum that cancels: it counts with its matrix."""
    worst = 0.0
    for name in expected:
        parts = [name]
        if name.endswith("reading.scale"):
            parts.append(name.replace("scale", "weight"))
        other = sum(float((found[p] - expected[p]).double().square().sum()) for p in parts) ** 0.5
        size = sum(float(expected[p].double().square().sum()) for p in parts) ** 0.5
        worst = max(worst, other / (size + 1e-30) if size > 1e-12 else other)
    return worst


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
@pytest.mark.parametrize("shape", SHAPES)
@every_level
def test_levels_agree_with_the_definition_at_odd_shapes(ops, shape, dtype):
    modules, features, context, hidden, batch, time = shape
    sizes = {"features": features, "context": context, "hidden": hidden}
    if dtype == torch.float64:
        net = drawn(lambda: ThalNet(6, modules, **sizes))
    else:  # larger weights than those of the start are chaotic, rounding of the definition too
        torch.manual_seed(0)
        net = ThalNet(6, modules, **sizes)
    expected = outcome(net, "reference", batch, time, dtype)
    found = outcome(net, ops, batch, time, dtype)
    assert found.keys() == expected.keys()
    assert error(found, expected) < TOLERANCE[dtype]


@every_level
@pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax", "fast_gaussian"])
def test_every_number_that_comes_out_was_written(ops, reading, monkeypatch):
    net = drawn(lambda: ThalNet(3, 3, 5, reading=reading, module="gru_ff"))
    expected = outcome(net, ops, 4, 3, torch.float64)

    def poisoned(make):
        def made(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return made

    for owner, name in [(torch, "empty_like"), (torch, "empty"), (torch.Tensor, "new_empty")]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    found = outcome(net, ops, 4, 3, torch.float64)
    for name, part in expected.items():
        assert torch.equal(part, found[name]), name


def one_thread_and(threads, function):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        return function()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax", "fast_gaussian"])
def test_in_the_kernel_a_row_does_not_depend_on_its_batch_or_on_the_threads(reading):
    net = drawn(lambda: ThalNet(6, 4, 33, 20, reading=reading), dtype=torch.float32)
    net.ops = "cpp"
    xs = normal(60, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        whole, _ = net(xs)
        for rows in (slice(0, 1), slice(13, 20), slice(30, 60)):
            assert torch.equal(net(xs[rows])[0], whole[rows])
        for threads in (2, 3):
            assert torch.equal(one_thread_and(threads, lambda: net(xs)[0]), whole)


@pytest.mark.parametrize("threads", [1, 2, 3])
@every_level
def test_repetition_is_equal_to_the_bit_with_any_number_of_threads(ops, threads):
    net = drawn(lambda: ThalNet(6, 4, 9), dtype=torch.float32)

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
    with pytest.raises(RuntimeError):
        loss.backward()
    del other


@every_level
def test_only_what_learns_gets_a_gradient(ops):
    net = drawn(lambda: ThalNet(2, 3, 5))
    net.cell("side1").requires_grad_(False)
    found = outcome(net, ops, 4, 3, torch.float64)
    expected = outcome(net, "reference", 4, 3, torch.float64)
    assert found.keys() == expected.keys()
    assert not any("side1" in name for name in found)
    assert error(found, expected) < 1e-12
    net.requires_grad_(False)
    xs = normal(4, 3, 2).requires_grad_()
    net.ops = ops
    net(xs)[0].sum().backward()
    assert xs.grad.abs().sum() > 0


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
    recomputed = checkpoint(lambda x: net(x)[0], xs, use_reentrant=False)
    recomputed.sum().backward()
    assert torch.equal(recomputed, expected)
    narrow = copy.deepcopy(net).float()
    torch.testing.assert_close(narrow(xs.float())[0].double(), expected, rtol=0, atol=1e-5)
    swapped = {name: p + 1 for name, p in net.named_parameters()}
    found, _ = torch.func.functional_call(net, swapped, (xs,))
    net.load_state_dict(swapped)
    assert torch.equal(net(xs)[0], found)


@pytest.mark.parametrize(
    ("ops", "reading"), [("cpp", "weight_norm"), ("cpp", "fast_gaussian"), ("batched", "linear")]
)
def test_nets_beside_each_other_are_as_each_alone(ops, reading):
    nets = [drawn(lambda: ThalNet(6, 4, 5, reading=reading), seed) for seed in range(3)]
    stacked, _ = torch.func.stack_module_state(nets)
    leaves = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    xs = normal(3, 7, 4, 6)
    nets[0].ops = ops

    def one(parameters, x):
        ys, state = torch.func.functional_call(nets[0], parameters, (x,))
        return ys, state.memory

    ys, kept = torch.vmap(one)(leaves, xs)
    (ys.square().sum() + kept.sum()).backward()
    names = [name for name, _ in nets[0].named_parameters()]
    found = {name: leaves[name].grad for name in names}
    for k, net in enumerate(nets):
        net.ops = "reference"
        net.zero_grad()
        own, state = net(xs[k])
        (own.square().sum() + state.memory.sum()).backward()
        torch.testing.assert_close(ys[k], own)
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(found[name][k], parameter.grad)


class Own(torch.nn.Module):
    """A dynamic reading of one's own."""

    dynamic = True

    def __init__(self, features, center, context):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(context, center))

    def weights(self, features=None):
        return self.weight * features.mean()


def test_levels_say_why_they_cannot_and_name_those_that_can():
    net = ThalNet(2, 3, 4)
    assert list(net.explain()) == list(LEVELS)
    assert net.explain()["cpp"] is None and net.level() == "cpp"
    assert "float16" in net.half().explain()["cpp"]
    net = net.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert net.explain()["cpp"] == "autocast is on"
        assert net.level() == "fused"
    dynamic = ThalNet(2, 3, 4, reading="fast_softmax")
    assert "'input' has a dynamic reading" in dynamic.explain()["fused"]
    dynamic.ops = "fused"
    with pytest.raises(UserError, match=r"^ops fused: .*\. Able to: auto, cpp, batched, reference"):
        dynamic(torch.zeros(1, 1, 2))
    dynamic.ops = "cp"
    with pytest.raises(UserError, match=r"unknown level of ops 'cp'.*'cpp'"):
        dynamic(torch.zeros(1, 1, 2))
    own = ThalNet(2, 3, 4)
    own.cell("input").reading = Own(4, 12, 4)
    assert "reading of its own" in own.explain()["cpp"]
    assert own.level() == "batched"


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
    network.add_task("a", Interface(inputs=3, classes=2))
    new = Module("new", features=3, context=2, inputs=3, reading="fast_gaussian")
    changes = [
        lambda: network.attach(new, read_by=["output", "side1"]),
        lambda: network.route("output", "input", open=False),
        lambda: network.freeze("side1"),
        lambda: network.clone("output", "twin"),
        lambda: network.detach("twin"),
    ]
    for change in changes:
        change()
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        expected = outcome(body, "reference", 4, 3, torch.float64)
        assert error(outcome(body, ops, 4, 3, torch.float64), expected) < 1e-12


def test_large_buffers_are_used_again_only_when_nothing_looks_at_them():
    like = torch.zeros(1)
    first = memory.empty([512, 1024], like)
    place, part = first.data_ptr(), first[3:]
    del first
    second = memory.empty([512, 1024], like)
    assert second.data_ptr() != place and place % 64 == 0
    del part
    assert memory.empty([512, 1024], like).data_ptr() == place
    assert memory.empty([3], like).shape == (3,)


# What follows runs in processes of its own, with their own cache of kernels.

SAMPLE = """
    import sys, torch
    from thalnet_mtl.ops import cpp
    {before}
    from thalnet_mtl.thalnet import ThalNet
    torch.manual_seed(0)
    for reading in ("weight_norm", "fast_softmax", "fast_gaussian"):
        net = ThalNet(6, 3, 9, reading=reading)
        xs = torch.rand(7, 5, 6)
        found = []
        for ops in ("reference", "auto"):
            net.ops = ops
            net.zero_grad()
            ys, _ = net(xs)
            ys.square().sum().backward()
            found.append([ys.detach(), *(p.grad for p in net.parameters())])
        for a, b in zip(*found):
            torch.testing.assert_close(a, b)
    print(net.level())
"""


def sample(cache: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    code = textwrap.dedent(SAMPLE).format(before=before)
    variables = os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "2"} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("target", ["x86-64", "haswell"])
def test_the_kernel_is_right_for_other_processors(target, tmp_path):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "sse2" not in flags or (target == "haswell" and "avx2" not in flags):
        pytest.skip("this processor cannot run it")
    before = f"cpp.FLAGS = tuple(f.replace('native', '{target}') for f in cpp.FLAGS)"
    done = sample(tmp_path, before)
    assert (done.returncode, done.stdout) == (0, "cpp\n"), done.stderr
    assert done.stderr.splitlines() == ["compiling a kernel for this processor, once …"]
    assert sample(tmp_path, before).stderr == ""  # it is kept


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_one_line_says_so_and_other_levels_compute(compiler, tmp_path):
    done = sample(tmp_path, CXX=compiler)
    assert (done.returncode, done.stdout) == (0, "batched\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("no C++ kernel, training is slower:")


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "thalnet").write_text("a file where a folder should be")
    done = sample(tmp_path)
    assert (done.returncode, done.stdout) == (0, "batched\n"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_level_that_cannot_is_refused_before_anything_is_trained(tmp_path):
    command = [sys.executable, "-m", "thalnet_mtl.cli", "train", "digits", "--train.steps", "1"]
    command += ["--model.reading", "fast_gaussian", "--train.ops", "fused"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "fused" in line and "cpp" in line
    assert not (tmp_path / "run").exists()
