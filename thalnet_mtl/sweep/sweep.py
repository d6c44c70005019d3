"""A sweep: all its runs, several at a time, and the record of their outcomes in ``sweep.json``.

The same command resumes a sweep; a longer plan over the same keys adds runs to it. The record
keeps every run that was ever planned for the folder.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import FolderLock, read_fields, write_text
from thalnet_mtl.json_fields import from_fields
from thalnet_mtl.runs.differences import allowed_differences
from thalnet_mtl.runs.names import TUNING
from thalnet_mtl.sweep.plan import PlannedRun, configure
from thalnet_mtl.sweep.queue import STATUSES, RunQueue, SweepEntry


@dataclass
class SweepRecord:
    """The content of ``sweep.json``: the keys of the grid, and every run by name."""

    keys: list[str]
    runs: dict[str, SweepEntry]


class Sweep(RunQueue):
    """The folder of a sweep, locked for one process.

    Args:
        out: The folder; every run gets a directory in it.
        bases: The configurations that the grid is applied to, by name.
        plan: The runs.
        check: Raises ``UserError`` if a configuration cannot be built. It is called for every
            point of the grid that has a run to train, before the first one is trained.

    Raises:
        UserError: a run cannot be built, or the folder holds something else.
    """

    def __init__(
        self,
        out: Path,
        bases: Mapping[str, Config],
        plan: Sequence[PlannedRun],
        check: Callable[[Config], object],
    ):
        self.out = out
        left = [run for run in plan if not (out / run.name / "result.json").exists()]
        for planned in {(run.run, repr(run.values)): run for run in left}.values():
            check(planned.config)
        for file, kind in (("config.yaml", "run"), (TUNING, "tuning")):
            if (out / file).exists():
                line = f"{out} is the directory of a {kind}, not of a sweep. Give --out DIR."
                raise UserError(line)
        self.lock = FolderLock(out)
        self.keys = list(plan[0].values)
        try:
            super().__init__(out, plan, self._read(bases), self.write)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock of the folder."""
        self.lock.release()

    def _read(self, bases: Mapping[str, Config]) -> dict[str, SweepEntry]:
        """Read ``sweep.json``, if there is one; raise if it belongs to another sweep."""
        path = self.out / "sweep.json"
        if not path.exists():
            return {}
        record = from_fields(SweepRecord, read_fields(path), str(path))
        if record.keys != self.keys:
            recorded, current = (
                ", ".join(keys) or "seeds alone" for keys in (record.keys, self.keys)
            )
            raise UserError(
                f"{self.out} holds a sweep over {recorded}, not {current}. Give --out DIR."
            )
        for name, entry in record.runs.items():
            if entry.run not in bases:
                raise UserError(f"{self.out} holds another sweep, with '{name}'. Give --out DIR.")
            if set(entry.values) != set(self.keys) or entry.status not in STATUSES:
                raise UserError(f"{path} is damaged: '{name}' is no run of this sweep.")
            try:
                config = configure(bases[entry.run], entry.values, entry.seed)
            except UserError as error:
                raise UserError(f"{path} is damaged: {name}: {error}") from error
            allowed_differences(self.out / name, config)
        return record.runs

    def write(self) -> None:
        """Write ``sweep.json``."""
        runs = {name: asdict(entry) for name, entry in self.entries.items()}
        text = json.dumps({"keys": self.keys, "runs": runs}, indent=1, ensure_ascii=False)
        write_text(self.out / "sweep.json", text + "\n")
