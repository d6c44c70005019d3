"""Compiles the C++ kernel on first use, for the processor that it runs on, and loads it.

The library is stored in the user's cache, by its source, flags and processor. Without a compiler
one line is printed, and other backends run.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock

SOURCE = Path(__file__).with_name("kernel")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")


@cache
def kernel() -> ctypes.CDLL:
    """Return the loaded kernel; compile it first if it is not in the cache.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be compiled or loaded.
    """
    library = ctypes.CDLL(str(compile_kernel()))
    for kind in ("float", "double"):
        for direction, pointers in ("forward", 1), ("backward", 2):
            function = getattr(library, f"{direction}_{kind}")
            function.argtypes = [ctypes.c_void_p] * (1 + pointers)
            function.restype = ctypes.c_int64
    return library


@cache
def unavailable() -> str | None:
    """Return why there is no kernel, None if there is one; print the reason once."""
    try:
        kernel()
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", b"") or b""
        reason = (output.decode(errors="replace").strip().splitlines() or [str(error)])[-1]
        print(f"no C++ kernel, training is slower: {reason}", file=sys.stderr, flush=True)
        return f"its kernel could not be compiled: {reason}"
    return None


def compile_kernel() -> Path:
    """Return the path of the compiled kernel, from the cache if it is there.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler, or it fails.
    """
    name = os.environ.get("CXX", "c++")
    compiler = shutil.which(name)
    if compiler is None:
        raise OSError(f"there is no compiler '{name}'")
    command = [compiler, *FLAGS]
    # The predefined macros tell which instructions the processor has.
    target = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])
    source = b"".join(file.read_bytes() for file in sorted(SOURCE.iterdir()))
    key = hashlib.sha256(source + repr(FLAGS).encode() + target).hexdigest()[:16]
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalnet" / "kernels"
    )
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{key}.so"
    with FileLock(folder / "lock"):
        if not library.exists():
            print("compiling a kernel for this processor, once …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                partial = Path(scratch) / library.name
                _output([*command, str(SOURCE / "kernel.cpp"), "-o", str(partial)])
                partial.rename(library)
    return library


def _output(command: Sequence[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout
