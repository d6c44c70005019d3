"""Compiles the C++ kernel on first use, for the processor that it runs on, and loads it.

The library is stored in the user's cache, by its source, flags and processor, beside its checksum.
It is loaded only from a folder of the user's own, and compiled again if it is damaged. Without a
compiler one line is printed, and other backends run.

``THALNET_INSTRUCTIONS`` limits the kernel to an instruction set that older x86-64 processors have,
``avx512``, ``avx2`` or ``sse2``, for measurements and comparisons; ``native`` is the default.
"""

import ctypes
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock

from thalnet_mtl.errors import UserError, one_line, unknown
from thalnet_mtl.files import cache_folder, staged, write_text

SOURCE = Path(__file__).with_name("kernel")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
# The processor that the compiler compiles for, by instruction set.
TARGETS = {"native": "native", "avx512": "x86-64-v4", "avx2": "x86-64-v3", "sse2": "x86-64"}
VARIABLE = "THALNET_INSTRUCTIONS"


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
        print(f"no C++ kernel, training is slower: {one_line(reason)}", file=sys.stderr, flush=True)
        return f"its kernel could not be compiled: {reason}"
    return None


def compile_kernel() -> Path:
    """Return the path of the compiled kernel, from the cache if it is there.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler, or it fails.
        UserError: ``THALNET_INSTRUCTIONS`` is unknown, or this processor lacks the instructions.
    """
    instructions = os.environ.get(VARIABLE) or "native"
    if instructions not in TARGETS:
        raise unknown(VARIABLE, instructions, TARGETS)
    name = os.environ.get("CXX", "c++")
    compiler = shutil.which(name)
    if compiler is None:
        raise OSError(f"there is no compiler '{name}'")
    command = [compiler, *FLAGS, f"-march={TARGETS[instructions]}"]
    target = _macros(command)
    if missing := _features(target) - _features(_macros([compiler, *FLAGS, "-march=native"])):
        raise UserError(
            f"{VARIABLE} is '{instructions}', but this processor lacks {', '.join(sorted(missing))}"
        )
    source = b"".join(file.read_bytes() for file in sorted(SOURCE.iterdir()))
    key = hashlib.sha256(source + repr(FLAGS).encode() + target).hexdigest()[:16]
    folder = _private_folder()
    library = folder / f"{key}.so"
    checksum = library.with_suffix(".sha256")
    with FileLock(folder / "lock"):
        if not _is_whole(library, checksum):
            why = ": the stored one is damaged" if os.path.lexists(library) else ""
            print(
                f"compiling a kernel for this processor, once{why} …", file=sys.stderr, flush=True
            )
            with staged(library) as part:
                _output([*command, str(SOURCE / "kernel.cpp"), "-o", str(part)])
                part.chmod(0o600)
            write_text(checksum, _sha256(library))
            checksum.chmod(0o600)
    return library


def _macros(command: Sequence[str]) -> bytes:
    """Return the macros that a compiler predefines; they tell for which processor it compiles."""
    return _output([*command, "-dM", "-E", "-x", "c++", os.devnull])


def _features(macros: bytes) -> set[str]:
    """Return the sets of instructions among the predefined macros, such as AVX512F."""
    return set(re.findall(r"#define __((?:AVX|BMI|F16C|FMA|LZCNT|MOVBE)\w*)__ 1", macros.decode()))


def _private_folder() -> Path:
    """Return the folder of compiled kernels, which no other user can write to.

    Raises:
        OSError: the folder is a symbolic link or belongs to another user.
    """
    folder = cache_folder() / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(f"{folder} is not a folder of this user; set XDG_CACHE_HOME to one that is")
    folder.chmod(0o700)
    return folder


def _is_whole(library: Path, checksum: Path) -> bool:
    """Return whether a library and its checksum are files of this user that belong together."""
    for path in (library, checksum):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return False
        mine = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not mine or status.st_mode & 0o022:
            return False
    return checksum.read_text(encoding="utf-8", errors="replace") == _sha256(library)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _output(command: Sequence[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout
