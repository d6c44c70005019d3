"""The Triton backend without a GPU: interpreted on the CPU, and compiled ahead of time for a GPU.

Triton chooses its interpreter when it is imported, so both run in separate processes.
"""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from thalnet_mtl.models.thalnet import ThalNet

installed = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

INTERPRETED = """
    import torch
    from backend_checks import largest_error, run_backend
    from properties import random_lengths
    from thalnet_mtl.models.thalnet import ThalNet

    def poisoned(make):
        def make_poisoned(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor
        return make_poisoned

    torch.empty_like = poisoned(torch.empty_like)
    torch.Tensor.new_empty = poisoned(torch.Tensor.new_empty)
    shapes = [  # modules, features, context, hidden, batch, time, reading
        (1, 5, 3, 7, 1, 1, "weight_norm"),
        (3, 5, 7, 9, 7, 2, "linear"),
        (4, 16, 13, 16, 17, 3, "weight_norm_rows"),
        (4, 32, 32, 32, 16, 3, "weight_norm"),
        (2, 33, 31, 17, 33, 2, "weight_norm"),
        (3, 40, 50, 33, 35, 2, "weight_norm"),  # too wide for one kernel
        (3, 70, 90, 65, 3, 1, "linear"),
    ]
    for modules, features, context, hidden, batch, time, reading in shapes:
        torch.manual_seed(0)
        net = ThalNet(3, modules, features, context, hidden, reading=reading)
        assert net.explain()["triton"] is None, net.explain()
        lengths = random_lengths(batch, time) if batch % 2 else None
        call = batch, time, torch.float32
        expected = run_backend(net, "reference", *call, lengths=lengths)
        first, second = (
            run_backend(net, "triton", *call, lengths=lengths) for _ in range(2)
        )
        assert first.keys() == expected.keys()
        error = largest_error(first, expected)
        assert error < 5e-6, (modules, features, error)
        assert all(torch.equal(first[name], second[name]) for name in expected)
        print(modules, features)
"""

COMPILED = """
    import contextlib, io, re
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from thalnet_mtl.ops import triton_persistent as persistent, triton_stepwise as stepwise
    from thalnet_mtl.ops.triton import OPTIONS, TILE, is_small

    triton.knobs.nvidia.dump_ptxas_log = True
    NUMBERS = ("time", "batch", "block", "state_row", "state_module", "HIDDEN", "CENTER", "H", "F")

    persistent_kernels = [
        (kernel, {"MODULES": m, "H": h, "F": f, "ROWS": persistent.ROWS}, OPTIONS)
        for kernel in (persistent.forward, persistent.backward)
        for m, h, f in ((4, 32, 32), (4, 16, 32), (4, 32, 16), (8, 16, 16))
        if is_small(m, h, f)
    ]
    stepwise_kernels = [
        stepwise.dense_layers, stepwise.gru, stepwise.gru_backward, stepwise.dense_layers_backward
    ]
    kernels = [*persistent_kernels, *((kernel, TILE, {}) for kernel in stepwise_kernels)]
    for kernel, sizes, options in kernels:
        for kind, precision in (("bf16", "ieee"), ("fp32", "tf32")):
            constants = sizes | {"PRECISION": precision}
            constants |= {"LAST": False} if "LAST" in kernel.arg_names else {}
            names = kernel.arg_names
            signature = dict.fromkeys(names, "*fp32")
            signature |= {name: f"*{kind}" for name in names if name in ("read", "w", "u")}
            signature |= {name: "i32" for name in names if name in NUMBERS}
            signature |= dict.fromkeys(constants, "constexpr")
            constant_values = {(names.index(name),): value for name, value in constants.items()}
            aligned = {
                (names.index(name),): [["tt.divisibility", 16]]
                for name, kind in signature.items() if kind.startswith("*") or name == "batch"
            }
            source = ASTSource(kernel, signature, constant_values, aligned)
            target = GPUTarget("cuda", 90, 32)
            with contextlib.redirect_stdout(io.StringIO()) as log:
                compiled = triton.compile(source, target=target, options=options)
            (spills,) = re.findall(r"(\\d+) bytes spill stores", log.getvalue())
            print(compiled.metadata.shared, spills)
"""


def run(code: str, **environment: str) -> list[str]:
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@installed
def test_interpreted_kernels_agree_with_the_reference():
    assert len(run(INTERPRETED, TRITON_INTERPRET="1")) == 7


@installed
def test_compiled_kernels_spill_no_registers_and_fit_the_shared_memory(tmp_path):
    lines = run(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
    assert len(lines) == 2 * (4 * 2 + 4)
    for shared, spills in map(str.split, lines):
        assert int(shared) <= 227 * 1024 and spills == "0"


def test_triton_says_why_it_cannot_run(monkeypatch):
    monkeypatch.setattr("thalnet_mtl.ops.triton.available", lambda: True)
    assert ThalNet(2, 3, 4).explain()["triton"] == "it is for a GPU, not cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ThalNet(2, 3, 4).explain()["triton"] is None
    assert "not all equal" in ThalNet(2, 3, 4, module="gru").explain()["triton"]
    assert "not all equal" in ThalNet(2, 3, 4, reading="fast_softmax").explain()["triton"]
    assert "narrow" in ThalNet(2, 4, 32, context=8).explain()["triton"]
    assert "float32" in ThalNet(2, 3, 4).double().explain()["triton"]
    monkeypatch.setattr("thalnet_mtl.ops.triton.available", lambda: False)
    assert ThalNet(2, 3, 4).explain()["triton"] == "Triton is not installed"
