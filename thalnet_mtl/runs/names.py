"""Names of run directories, and lists of them."""

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from thalnet_mtl.errors import UserError

SWEEP = "sweep.json"  # the record in the folder of a sweep
TUNING = "tuning.json"  # the record in the folder of a tuning
TRIALS, WINNERS, FORMER = "trials", "winners", "former_winners"  # its folders of runs
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


def sweep_of(folder: Path) -> str:
    """Return the name of the sweep or tuning that a run directory is in, '' if it is in none."""
    parent = folder.absolute().parent
    if (parent.parent / TUNING).exists():
        return f"{parent.parent.name}/{parent.name}"
    return parent.name if (parent / SWEEP).exists() else ""


def run_folders(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the run directories among some paths, each once, and notes on what was left out.

    A folder that is not a run is replaced by the runs that it contains, as that of a sweep. Files
    and folders without a run are left out if there is a run beside them: ``runs/*`` may name them.

    Raises:
        UserError: there is no run at all.
    """
    runs: dict[str, Path] = {}
    notes = []
    for path in paths:
        is_run = (path / "config.yaml").exists() or not path.exists()  # the reader says that
        found = [path] if is_run else sorted(file.parent for file in path.rglob("config.yaml"))
        found, trials = without_trials(found, path)
        notes += trials
        if not found and not trials:
            why = "has no config.yaml, nor has a folder in it" if path.is_dir() else "is a file"
            notes.append(f"{path} is no run directory: it {why}")
        for folder in found:
            runs.setdefault(os.path.realpath(folder), folder)
    if notes and not runs:
        raise UserError("; ".join(notes) + ".")
    return list(runs.values()), [f"left out: {note}" for note in notes]


def without_trials(folders: Sequence[Path], path: Path) -> tuple[list[Path], list[str]]:
    """Return the runs in a folder without those by which a tuning chose its settings, and notes.

    These would count for their settings a second time, beside the new seeds of the winners. Runs of
    trials that ``path`` names itself are kept.
    """
    trials: dict[Path, int] = {}
    kept = []
    for folder in folders:
        tuning = folder.parent.parent
        is_trial = folder.parent.name in (TRIALS, FORMER) and (tuning / TUNING).exists()
        if is_trial and tuning.is_relative_to(path):
            trials[tuning] = trials.get(tuning, 0) + 1
        else:
            kept.append(folder)
    return kept, [
        f"{tuning} is a tuning: {count} runs of its trials, or of former winners, chose the "
        f"settings; they are in {tuning / TRIALS}"
        for tuning, count in trials.items()
    ]
