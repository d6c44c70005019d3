"""Names of run directories, and lists of them."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

LONGEST = 200  # bytes of a generated folder name; file systems allow 255


def run_name(names: Sequence[str], flags: dict[str, str]) -> str:
    """Return the default name of a run: equal for equal commands, different for others."""
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    if Path(names[0]).name == "config.yaml":
        stems[0] = Path(names[0]).parent.name + "-again"
    changes = [f"{key}={value}" for key, value in flags.items()]
    return safe_name("-".join([*stems, *changes]))


def safe_name(text: str) -> str:
    """Return a text as a folder name: only letters, digits and .=+- are kept, others become _.

    A long name is cut, and ends in a checksum of the whole text.
    """
    name = re.sub(r"[^\w.=+-]+", "_", text)
    if len(name.encode()) <= LONGEST:
        return name
    start = name.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{start}-{zlib.crc32(text.encode()):08x}"


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """List run directories; a folder that is not a run is replaced by the runs that it contains."""
    runs: list[Path] = []
    for folder in folders:
        inner_runs = sorted(path.parent for path in folder.rglob("config.yaml"))
        is_run = (folder / "config.yaml").exists()
        runs += [folder] if is_run or not inner_runs else inner_runs
    return runs
