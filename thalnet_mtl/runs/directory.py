"""The directory that a run writes to: its configuration, metrics, environment and results."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from thalnet_mtl.config.load import declaration_order, dump_config, flatten, load_run_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import FolderLock, attempt, remove_parts, write_text
from thalnet_mtl.runs.checksums import RESULT, check_sums, write_sums
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.run_files import read_environment
from thalnet_mtl.runs.tensorboard import EventFile


class RunDirectory:
    """A run directory, opened for writing by one process.

    Raises:
        UserError: another process writes to it, or it holds a run of another configuration.
        OSError: it cannot be written to.
    """

    def __init__(self, folder: Path, config: Config):
        self.folder = folder
        self._board: EventFile | None = None
        with ExitStack() as resources:
            resources.enter_context(FolderLock(folder))
            check_same(folder, config)
            remove_parts(folder)
            write_text(folder / "config.yaml", dump_config(config))
            self._metrics = resources.enter_context(open_log(folder / "metrics.jsonl"))
            self._resources = resources.pop_all()

    def rewind(self, size: int, anew: bool = False) -> None:
        """Truncate the metrics to ``size`` bytes: drop what was logged after a checkpoint.

        Args:
            anew: The run restarts on purpose. Otherwise a truncation to 0 bytes of metrics that
                were logged in training means that the checkpoint has been lost, an error.
        """
        path, current_size = self.folder / "metrics.jsonl", self.size
        if current_size < size:
            raise UserError(f"{path} has lost lines: {current_size} bytes of {size} are left.")
        if size == 0 and not anew and _has_trained(path):
            raise UserError(
                f"{self.folder} has lost its checkpoint. Put checkpoint/last.pt back, or delete "
                f"the folder to start again."
            )
        self._metrics.truncate(size)

    @property
    def size(self) -> int:
        """Size of the metrics so far in bytes, after flushing them to disk."""
        with attempt(f"write {self.folder / 'metrics.jsonl'}"):
            self._metrics.flush()
            os.fsync(self._metrics.fileno())
        return os.fstat(self._metrics.fileno()).st_size

    def log(self, step: int, task: str, split: str, values: dict[str, float], **extra: Any) -> None:
        """Log one value per metric, as a line of ``metrics.jsonl`` and to TensorBoard."""
        board = self.board(step)
        with attempt(f"write the log of {self.folder}"):
            for metric, value in values.items():
                line = {"step": step, "task": task, "split": split, "metric": metric}
                line |= {"value": value} | extra
                self._metrics.write((json.dumps(line) + "\n").encode())
                board.add_scalar(f"{task}/{metric}/{split}", value, step)
            self._metrics.flush()
            board.flush()

    def board(self, step: int) -> EventFile:
        """Return the file for TensorBoard, opened at the first use.

        Events of ``step`` and later steps, from before the run was resumed, are purged.
        """
        if self._board is None:
            self._board = EventFile(self.folder / "tensorboard", step)
            self._resources.callback(self._board.close)
        return self._board

    def record_resumed(self, environment: dict[str, Any], step: int) -> None:
        """Record the environment and the step of a resumed run, if the environment has changed."""
        first = read_environment(self.folder / "environment.json")
        resumed = first.pop("resumed", [])
        latest = {key: value for key, value in (resumed or [first])[-1].items() if key != "step"}
        if environment != latest:
            resumed.append({"step": step} | environment)
            self.write_json("environment.json", first | {"resumed": resumed})

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the directory atomically."""
        write_text(self.folder / name, _as_text(content))

    def write_result(self, result: RunResult) -> None:
        """Write ``result.json``, which ends the run, after the checksums of all its files."""
        content = result.to_json()
        write_sums(self.folder, _as_text(content).encode())
        self.write_json(RESULT, content)

    def close(self) -> None:
        """Close all files and release the lock."""
        self._resources.close()


def _has_trained(path: Path) -> bool:
    """Return whether a whole line of a log is of a later step than 0."""
    with path.open("rb") as lines:
        return any(b'"step": 0,' not in line for line in lines if line.endswith(b"\n"))


@contextmanager
def open_log(path: Path) -> Iterator[BinaryIO]:
    """Open a file to append lines to; it must not be a link to another file."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    with attempt(f"write {path}"), open(path, "ab", opener=opener) as file:
        yield file


def _as_text(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


def check_same(folder: Path, config: Config) -> None:
    """Raise ``UserError`` if a folder holds a run of another configuration, with differences."""
    if not (folder / "config.yaml").exists():
        return
    check_sums(folder, ["config.yaml"])
    recorded_config = load_run_config(folder)
    # An option that a run of an earlier version does not have was at its default.
    recorded = flatten(resolve_options(recorded_config, complete=True))
    current = flatten(resolve_options(config, complete=True))
    differences = [
        f"{key} {current.get(key, 'absent')}, there {recorded.get(key, 'absent')}"
        for key in current | recorded
        if current.get(key) != recorded.get(key)
    ]
    if not differences and declaration_order(recorded_config) != declaration_order(config):
        differences = ["tasks or modules in another order"]
    if differences:
        raise UserError(
            f"{folder} holds a run of another configuration: {'; '.join(differences[:3])}. Give "
            f"--out DIR, or delete that folder."
        )
