"""Text files written whole or not at all, and read without torch."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

LONGEST = 200  # bytes of a folder name that is made up; file systems bear 255


def run_name(names: Sequence[str], flags: dict[str, str]) -> str:
    """The default run directory: the same command finds its run again, another does not."""
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    if Path(names[0]).name == "config.yaml":
        stems[0] = Path(names[0]).parent.name + "-again"
    changes = [f"{key}={value}" for key, value in flags.items()]
    return safe_name("-".join([*stems, *changes]))


def safe_name(text: str) -> str:
    """A text as the name of a folder: what is no letter, digit or one of .=+- becomes _.

    A long one is cut, and ends in a checksum of all of it.
    """
    name = re.sub(r"[^\w.=+-]+", "_", text)
    if len(name.encode()) <= LONGEST:
        return name
    start = name.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{start}-{zlib.crc32(text.encode()):08x}"


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Run directories; a folder that is none but holds some stands for those."""
    found = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.rglob("config.yaml"))
        found += [folder] if (folder / "config.yaml").exists() or not inside else inside
    return found
