"""The C++ backend: its inputs, and how its kernel is compiled."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from backend_checks import assert_agrees, every_reading, with_threads
from properties import drawn, normal, random_lengths

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.ops.cpp_library import compile_kernel
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [-9, 0, 19.9, 21, 90])
def test_gaussians_agree_at_every_width(bias, dtype):
    torch.manual_seed(0)
    net = ThalNet(6, 3, 13, reading="fast_gaussian")
    for cell in net.cells.values():
        cell.reading.variance.bias.data.fill_(bias)
    assert_agrees(net, "cpp", dtype, batch=5, time=3)


@pytest.mark.parametrize("gaps", [False, True])
def test_gaussians_of_all_widths_and_places_agree_side_by_side(gaps):
    torch.manual_seed(0)
    net = ThalNet(6, 3, 43, reading="fast_gaussian")
    for cell in net.cells.values():
        reading = cell.reading
        reading.variance.bias.data = torch.linspace(-3, 90, 43)[torch.randperm(43)]
        reading.mean.bias.data = torch.linspace(-60, 180, 43)[torch.randperm(43)]
        reading.variance.weight.data *= 3  # narrow in one row of the batch, wide in another
        reading.positions[50:] += 7 * gaps
    assert_agrees(net, "cpp", torch.float64, batch=21, time=3)


@pytest.mark.parametrize("reading", ["fast_softmax", "fast_gaussian"])
def test_a_closed_gate_has_a_gradient_and_no_other_effect(reading):
    network = Network(drawn(lambda: ThalNet(2, 2, 5, reading=reading)))
    network.add_task("a", TaskSpec(inputs=2, outputs=2))
    network.attach(ModuleSpec("new", 3, 2, inputs=2, reading=reading), read_by=["output"])
    output = network.body.cell("output").reading
    if reading == "fast_softmax":
        output.bias.data[:, output.opened] = 60
    assert not output.gate.any()
    results = assert_agrees(network.body.double(), "cpp", torch.float64, batch=5, time=3)
    assert results["d cells.output.reading.gate"].all()
    assert_agrees(network.body, "cpp", torch.float32, batch=5, time=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_reading
def test_a_row_does_not_depend_on_the_rest_of_the_batch_or_the_number_of_threads(reading, dtype):
    net = drawn(lambda: ThalNet(6, 4, 33, 20, reading=reading, module="gru_ff"), dtype=dtype)
    net.ops = "cpp"
    xs = normal(256, 5, 6, dtype=dtype)
    with torch.no_grad():
        expected, _ = net(xs)
        for rows in (slice(0, 1), slice(13, 20), slice(206, 256), slice(None, None, 5)):
            assert torch.equal(net(xs[rows])[0], expected[rows])
        assert torch.equal(net(xs.flip(0))[0].flip(0), expected)
        lengths = random_lengths(256, 5)
        padded, _ = net(xs, None, lengths)
        for steps in range(1, 6):
            rows = lengths == steps
            assert torch.equal(padded[rows, :steps], expected[rows, :steps])
        for threads in (2, 3):
            assert torch.equal(with_threads(threads, lambda: net(xs)[0]), expected)
            assert torch.equal(with_threads(threads, lambda: net(xs, None, lengths)[0]), padded)


@pytest.mark.parametrize(
    ("backend", "reading"),
    [("cpp", "weight_norm"), ("cpp", "fast_gaussian"), ("batched", "linear")],
)
@pytest.mark.parametrize("batch", [7, 1])
def test_vmap_over_networks_equals_each_network_alone(backend, reading, batch):
    nets = [drawn(lambda: ThalNet(6, 4, 5, reading=reading), seed) for seed in range(3)]
    stacked, _ = torch.func.stack_module_state(nets)
    leaves = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    xs = normal(3, batch, 4, 6)
    nets[0].ops = backend

    def run(parameters, x):
        ys, state = torch.func.functional_call(nets[0], parameters, (x,))
        return ys, state.memory

    ys, memories = torch.vmap(run, out_dims=(1, 0))(leaves, xs)
    (ys.square().sum() + memories.sum()).backward()
    ys = ys.movedim(1, 0)
    names = [name for name, _ in nets[0].named_parameters()]
    grads = {name: leaves[name].grad for name in names}
    for k, net in enumerate(nets):
        net.ops = "reference"
        net.zero_grad()
        expected, state = net(xs[k])
        (expected.square().sum() + state.memory.sum()).backward()
        torch.testing.assert_close(ys[k], expected)
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(grads[name][k], parameter.grad)


TENSORS = "left", "right", "center", "memory", "weights"


@pytest.mark.parametrize("kind", [torch.float64, "meta"])
@pytest.mark.parametrize("tensor", TENSORS)
def test_types_and_devices_are_not_mixed(tensor, kind):
    modules = [ModuleSpec(name, 3, 2, inputs=2, output=True) for name in ("left", "right")]
    net, kinds = ThalNet(modules=modules), dict.fromkeys(TENSORS, torch.float32) | {tensor: kind}
    net.ops = "cpp"
    net.cell("right").to(kinds["weights"])
    xs = {name: torch.zeros(4, 3, 2).to(kinds[name]) for name in ("left", "right")}
    state = State(*(torch.zeros(4, 6).to(kinds[name]) for name in ("center", "memory")))
    with pytest.raises((RuntimeError, ValueError), match=r"type|device|is for a CPU"):
        net(xs, state)


def test_the_default_device_of_new_tensors_may_be_another():
    net, xs = ThalNet(2, 3, 4), torch.rand(4, 3, 2)
    net.ops = "reference"
    expected, net.ops = net(xs)[0], "cpp"
    with torch.device("meta"):
        torch.testing.assert_close(net(xs)[0], expected)


def test_python_threads_may_share_a_network():
    net = ThalNet(2, 3, 4)
    net.ops = "cpp"
    shapes = [(batch, time) for batch in range(1, 12) for time in range(1, 12)]
    xs = {shape: normal(*shape, 2, dtype=torch.float32) for shape in shapes}

    def run_all(first):
        with torch.no_grad():
            return {shape: net(xs[shape])[0] for shape in (shapes[first:] + shapes[:first]) * 5}

    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run_all, (0, 30, 60, 90)))
    finally:
        sys.setswitchinterval(before)
    expected = run_all(0)
    assert all(torch.equal(result[s], expected[s]) for result in results for s in shapes)


# The tests below start processes with an empty cache of kernels.


SAMPLE = """
    import sys, torch
    from thalnet_mtl.ops import cpp_library
    {before}
    from thalnet_mtl.models.thalnet import ThalNet
    torch.manual_seed(0)
    for reading in ("weight_norm", "fast_softmax", "fast_gaussian"):
        net = ThalNet(6, 3, 9, reading=reading)
        xs = torch.rand(7, 5, 6)
        results = []
        for backend in ("reference", "auto"):
            net.ops = backend
            net.zero_grad()
            ys, _ = net(xs)
            ys.square().sum().backward()
            results.append([ys.detach(), *(p.grad for p in net.parameters())])
        for a, b in zip(*results):
            torch.testing.assert_close(a, b)
    print(net.backend())
"""


def sample(cache: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    code = textwrap.dedent(SAMPLE).format(before=before)
    # glibc fills allocated and freed memory with this byte.
    variables = {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "2", "MALLOC_PERTURB_": "204"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("instructions", ["sse2", "avx2"])
def test_the_kernel_is_correct_for_other_processors(instructions, tmp_path):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if instructions not in flags:
        pytest.skip("this processor cannot run it")
    count = 2 if instructions == "sse2" else 1  # at once: one compiles, the other waits for it
    run = partial(sample, tmp_path, THALNET_INSTRUCTIONS=instructions)
    with ThreadPoolExecutor() as pool:
        processes = list(pool.map(run, [""] * count))
    for process in processes:
        assert (process.returncode, process.stdout) == (0, "cpp\n"), process.stderr
    printed = "".join(process.stderr for process in processes).splitlines()
    assert printed == ["compiling a kernel for this processor, once …"]
    assert [file.suffix for file in (tmp_path / "thalnet" / "kernels").iterdir()].count(".so") == 1


MACROS = """#!/bin/sh
echo '#define __AVX2__ 1'
case "$*" in *x86-64-v4*) echo '#define __AVX512F__ 1' ;; esac
"""


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        ("avx51", "THALNET_INSTRUCTIONS.*avx51.*native, avx512, avx2, sse2.*mean 'avx512'"),
        ("avx512", "THALNET_INSTRUCTIONS is 'avx512', but this processor lacks AVX512F"),
    ],
)
def test_instructions_that_are_unknown_or_absent_are_refused(
    instructions, reason, tmp_path, monkeypatch
):
    (tmp_path / "compiler").write_text(MACROS)
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("THALNET_INSTRUCTIONS", instructions)
    with pytest.raises(UserError, match=reason):
        compile_kernel()
    assert not (tmp_path / "thalnet").exists()


BROKEN = """#!/bin/sh
case "$*" in *-dM*) exit 0 ;; esac
echo "some warning" >&2
echo "no space left" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PATH": ""}, "there is no compiler 'c++'"),
        ({"CXX": "{folder}/broken"}, "no space left"),
        ({"XDG_CACHE_HOME": "{folder}/broken"}, "broken"),  # a file where a folder is needed
        ({"XDG_CACHE_HOME": "", "HOME": "{folder}/broken"}, "broken"),
    ],
)
def test_without_a_kernel_one_line_says_so_and_another_backend_runs(environment, reason, tmp_path):
    (tmp_path / "broken").write_text(BROKEN)
    (tmp_path / "broken").chmod(0o755)
    environment = {key: value.format(folder=tmp_path) for key, value in environment.items()}
    done = sample(tmp_path, **{"CXX": "c++"} | environment)
    assert (done.returncode, done.stdout) == (0, "batched\n"), done.stderr
    tried = reason == "no space left"
    *before, line = done.stderr.splitlines()
    assert before == (["compiling a kernel for this processor, once …"] if tried else [])
    assert line.startswith("no C++ kernel, training is slower:") and reason in line


def test_a_backend_that_cannot_run_is_refused_before_training(tmp_path):
    command = [sys.executable, "-m", "thalnet_mtl.cli", "train", "digits", "--train.steps", "1"]
    command += ["--model.reading", "fast_gaussian", "--train.ops", "fused"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "fused" in line and "cpp" in line
    assert not (tmp_path / "run").exists()


COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo a library > "$2"; shift; done
"""
COMPILED = "compiling a kernel for this processor, once …\n"
AGAIN = "compiling a kernel for this processor, once: the stored one is damaged …\n"


@pytest.fixture
def kernels(tmp_path, monkeypatch, capfd):
    """The folder of kernels, with one that a stand-in for a compiler has written."""
    (tmp_path / "compiler").write_text(COMPILER)
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compile_kernel()
    assert capfd.readouterr().err == COMPILED
    return tmp_path / "cache" / "thalnet" / "kernels"


def planted_link(library: Path) -> None:
    library.rename(library.with_name("other"))
    library.symlink_to("other")


DAMAGE = {
    "none": lambda library: None,
    "cut off": lambda library: library.write_bytes(b"a lib"),
    "empty": lambda library: library.write_bytes(b""),
    "other bytes": lambda library: library.write_text("a librarx\n"),
    "writable by others": lambda library: library.chmod(0o666),
    "a link": planted_link,
    "another checksum": lambda library: library.with_suffix(".sha256").write_text("0" * 64),
    "no checksum": lambda library: library.with_suffix(".sha256").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_stored_kernel_that_is_not_whole_and_private_is_compiled_again(damage, kernels, capfd):
    (library,) = kernels.glob("*.so")
    DAMAGE[damage](library)
    assert compile_kernel() == library
    assert capfd.readouterr().err == ("" if damage == "none" else AGAIN)
    assert not library.is_symlink() and library.read_text() == "a library\n"
    compile_kernel()
    assert capfd.readouterr().err == ""


def test_other_users_cannot_write_to_the_folder_of_kernels(kernels):
    kernels.chmod(0o777)
    compile_kernel()
    assert kernels.stat().st_mode & 0o777 == 0o700
    assert not any(path.stat().st_mode & 0o022 for path in kernels.glob("*.s*"))


def test_kernels_of_another_user_or_behind_a_link_are_refused(kernels, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.geteuid", lambda: os.getuid() + 1)
        with pytest.raises(OSError, match="not a folder of this user"):
            compile_kernel()
    kernels.rename(kernels.with_name("elsewhere"))
    kernels.symlink_to("elsewhere")
    with pytest.raises(OSError, match="not a folder of this user"):
        compile_kernel()
