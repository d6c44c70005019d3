"""The machine that measurements are made on, and the instruction set that they are limited to."""

import os
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

from thalnet_mtl.ops.cpp_library import VARIABLE
from thalnet_mtl.training.environment import environment

FOLDER = Path(__file__).parent
# What limits the kernel, PyTorch, oneDNN and MKL to an instruction set.
LIMITS = {
    "avx2": {
        VARIABLE: "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}
LIMITS["native"] = dict.fromkeys(LIMITS["avx2"], "")
NAMES = {"AVX512": "AVX-512", "AVX2": "AVX2"}


def limit_instructions(name: str) -> None:
    """Start this program again with an instruction set, if it has not begun with it.

    Libraries read the variables when they are loaded, which is too late in this process.
    """
    limits = LIMITS[name]
    if any(os.environ.get(variable, "") != value for variable, value in limits.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | limits)


def instructions() -> str:
    """Return the vector instructions that PyTorch, and so the baselines, use here."""
    capability = torch.backends.cpu.get_cpu_capability()
    return NAMES.get(capability, capability)


def record_name(device: str) -> str:
    """Return the name of the file of measurements on a device, one for each instruction set."""
    limited = os.environ.get(VARIABLE)
    return f"{device}-{limited}.json" if device == "cpu" and limited else f"{device}.json"


def provenance(device: str) -> dict[str, Any]:
    """Return date, load, environment and platform of the measurements."""
    return {
        "date": date.today().isoformat(),
        "load_before": os.getloadavg()[0],
        "environment": environment(torch.device(device), {}),
        "platform": platform.platform(),
        "instructions": instructions(),
    }
