"""Triton kernels without a GPU: in its interpreter against the definition, and compiled ahead.

The interpreter is chosen when Triton is imported, so both run in processes of their own.
"""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from thalnet_mtl.thalnet import ThalNet

installed = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

INTERPRETED = """
    import torch
    from test_ops import error, outcome
    from thalnet_mtl.thalnet import ThalNet

    def poisoned(make):
        def made(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor
        return made

    torch.empty_like = poisoned(torch.empty_like)
    torch.Tensor.new_empty = poisoned(torch.Tensor.new_empty)
    shapes = [  # modules, features, context, hidden, batch, time, reading
        (1, 5, 3, 7, 1, 1, "weight_norm"),
        (3, 5, 7, 9, 7, 2, "linear"),
        (4, 16, 13, 16, 17, 5, "weight_norm_rows"),
        (4, 32, 32, 32, 16, 3, "weight_norm"),
        (2, 33, 31, 17, 33, 2, "weight_norm"),
    ]
    for modules, features, context, hidden, batch, time, reading in shapes:
        torch.manual_seed(0)
        net = ThalNet(3, modules, features, context, hidden, reading=reading)
        assert net.explain()["triton"] is None, net.explain()
        expected = outcome(net, "reference", batch, time, torch.float32)
        found = [outcome(net, "triton", batch, time, torch.float32) for _ in range(2)]
        assert found[0].keys() == expected.keys()
        assert error(found[0], expected) < 5e-6, (modules, features, error(found[0], expected))
        assert all(torch.equal(found[0][name], found[1][name]) for name in expected)
        print(modules, features)
"""

COMPILED = """
    import os, re, subprocess, tempfile
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from thalnet_mtl.ops import persistent
    from thalnet_mtl.ops.triton import OPTIONS

    sizes = {"MODULES": 4, "H": 32, "F": 32, "ROWS": persistent.ROWS}
    for kernel in (persistent.forward, persistent.backward):
        for kind, precision in (("bf16", "ieee"), ("fp32", "tf32")):
            constants = sizes | {"PRECISION": precision}
            names = kernel.arg_names
            signature = dict.fromkeys(names, "*fp32")
            signature |= dict.fromkeys(("read", "w", "u"), f"*{kind}")
            signature |= {"time": "i32", "batch": "i32"} | dict.fromkeys(constants, "constexpr")
            places = {(names.index(name),): value for name, value in constants.items()}
            aligned = {
                (names.index(name),): [["tt.divisibility", 16]]
                for name, of in signature.items() if of.startswith("*") or name == "batch"
            }
            source = ASTSource(kernel, signature, places, aligned)
            made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=OPTIONS)
            with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
                file.write(made.asm["ptx"])
                file.flush()
                command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", file.name]
                done = subprocess.run([*command, "-o", os.devnull], capture_output=True, text=True)
            (spills,) = re.findall(r"(\\d+) bytes spill stores", done.stderr)
            print(made.metadata.shared, spills)
"""


def run(code: str, **environment: str) -> list[str]:
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@installed
def test_interpreted_the_kernels_agree_with_the_definition():
    assert len(run(INTERPRETED, TRITON_INTERPRET="1")) >= 4


@installed
def test_compiled_for_a_gpu_no_kernel_spills_and_all_fit_its_shared_memory(tmp_path):
    lines = run(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
    assert len(lines) == 4
    for shared, spills in map(str.split, lines):
        assert int(shared) <= 227 * 1024 and spills == "0"


def test_triton_is_not_for_a_cpu_nor_for_modules_that_differ():
    net = ThalNet(2, 3, 4)
    why = net.explain()["triton"]
    assert why in ("it is for a GPU, not cpu", "Triton is not installed")
    assert not torch.cuda.is_available() or net.level() != "triton"
