"""The checksums of the files of a finished run, in the format of ``sha256sum``.

They are written just before ``result.json``, the last file of a run. Whatever reads the run
compares them first: a file that was damaged, edited or swapped for that of another run is named,
and never becomes a number in a table. ``sha256sum --check SHA256SUMS`` does the same.
"""

import hashlib
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import write_text

SUMS, RESULT = "SHA256SUMS", "result.json"
READING_LOG = "readings.jsonl"
READINGS = "model/reading_weights.safetensors"
# The network as it was best, and the parts to which that checkpoint refers; as it is exported.
BEST = ("checkpoint/best.pt", "checkpoint/part-*.pt")
MODEL = ("model/config.json", "model/model.safetensors", "model/README.md")
# What tables and reports read; the reading weights may be left out of a copy, with the network.
READ = (
    *("config.yaml", "environment.json", "metrics.json", "metrics.jsonl", "topology.json"),
    *(READING_LOG, READINGS, RESULT),
)
PATHS = "model/paths.safetensors"  # where a task is unknown at test time
FILES = (*READ, "accuracy_matrix.csv", *BEST, *MODEL, PATHS)


def write_sums(folder: Path, result: bytes) -> None:
    """Write the checksums of all files of a run, with that of the ``result.json`` to come."""
    paths = [path for name in FILES for path in sorted(folder.glob(name))]
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    sums[RESULT] = hashlib.sha256(result).hexdigest()
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def check_sums(folder: Path, names: Sequence[str]) -> None:
    """Raise ``UserError`` if a file of a finished run is not as the run left it; says which.

    A name may have a wildcard, for several files.

    An unfinished run, and one of a version that wrote no checksums, is not checked.
    """
    if not (folder / RESULT).exists() or not (folder / SUMS).exists():
        return
    sums = _read_sums(folder / SUMS)
    for name in [name for name in sums if any(fnmatch(name, pattern) for pattern in names)]:
        path = folder / name
        if name == READINGS and not path.exists():
            continue
        if not path.is_file():
            raise UserError(f"{path} is missing; the run had it when it finished.")
        if _sha256(path) != sums[name]:
            raise UserError(
                f"{path} has changed since the run finished: its checksum is not that in {SUMS}. "
                f"Restore the file, or delete {SUMS} to trust it."
            )


def _read_sums(path: Path) -> dict[str, str]:
    sums = {}
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
        if not match:
            raise UserError(f"{path}, line {number} is damaged: it is no checksum.")
        sums[match[2]] = match[1]
    if RESULT not in sums:
        raise UserError(f"{path} is damaged: it has no checksum of {RESULT}.")
    return sums


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
