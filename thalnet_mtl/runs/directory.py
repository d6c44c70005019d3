"""The directory that a run writes to: its configuration, metrics, environment and results."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.plugins import keep_copies
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import (
    FolderLock,
    attempt,
    make_folder,
    move_into_place,
    remove_parts,
    write_text,
)
from thalnet_mtl.runs.checksums import RESULT, write_sums
from thalnet_mtl.runs.differences import allowed_differences
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.run_files import read_environment


class RunDirectory:
    """A run directory, opened for writing by one process.

    ``differences`` are those fields of the configuration that differ from those of the run that
    the directory holds; until ``reopen`` it keeps its own.

    Raises:
        UserError: another process writes to it, or it holds a run of another configuration.
        OSError: it cannot be written to.
    """

    def __init__(self, folder: Path, config: Config):
        self.folder, self.config = folder, config
        with ExitStack() as resources:
            resources.enter_context(FolderLock(folder))
            self.differences = allowed_differences(folder, config)
            remove_parts(folder)
            if not self.differences:
                self.record_config()
                keep_copies(config, folder)
            self._metrics = resources.enter_context(open_log(folder / "metrics.jsonl"))
            self._resources = resources.pop_all()

    def check_log(self, size: int) -> None:
        """Raise ``UserError`` if the metrics have fewer bytes than a checkpoint says."""
        if self.size < size:
            path = self.folder / "metrics.jsonl"
            raise UserError(f"{path} has lost lines: {self.size} bytes of {size} are left.")

    def reopen(self, step: int, lineage: dict[str, Any]) -> None:
        """Let a run go on with other values of its configuration, finished or not.

        The result and the network of a finished run are moved to ``earlier/step-STEP/``. Whenever
        this is interrupted, the same command does the rest.

        Args:
            step: at which it goes on.
            lineage: what ``environment.json`` tells about it.
        """
        earlier = self.folder / "earlier" / f"step-{step}"
        for name in (RESULT, "model"):  # without its result, a run has not finished
            finished = name == RESULT or (earlier / RESULT).exists()
            if finished and (self.folder / name).exists():
                with attempt(f"write {earlier}"):
                    make_folder(earlier)
                    move_into_place(self.folder / name, earlier / name)
        self.record_lineage(lineage)
        self.record_config()

    def record_config(self) -> None:
        """Write the configuration of today to ``config.yaml``."""
        write_text(self.folder / "config.yaml", dump_config(self.config))

    def record_lineage(self, entry: dict[str, Any]) -> None:
        """Add where the weights of the run come from to ``environment.json``, once."""
        content = read_environment(self.folder / "environment.json")
        lineage = list(content.get("lineage", ()))
        if not lineage or lineage[-1] | {"date": ""} != entry | {"date": ""}:
            self.write_json("environment.json", content | {"lineage": [*lineage, entry]})

    def rewind(self, size: int, anew: bool = False) -> frozenset[tuple[int, str]]:
        """Truncate the metrics to ``size`` bytes: drop what was logged after a checkpoint.

        Args:
            anew: The run restarts on purpose. Otherwise a truncation to 0 bytes of metrics that
                were logged in training means that the checkpoint has been lost, an error.

        Returns:
            steps, and the names for trackers, of the values that were dropped.
        """
        path = self.folder / "metrics.jsonl"
        self.check_log(size)
        if size == 0 and not anew and _has_trained(path):
            raise UserError(
                f"{self.folder} has lost its checkpoint. Put checkpoint/last.pt back, or delete "
                f"the folder to start again."
            )
        dropped = frozenset(_values_after(path, size))
        self._metrics.truncate(size)
        return dropped

    @property
    def size(self) -> int:
        """Size of the metrics so far in bytes, after flushing them to disk."""
        self._flush()
        return os.fstat(self._metrics.fileno()).st_size

    def _flush(self) -> None:
        """Wait until all metrics are on the disk."""
        with attempt(f"write {self.folder / 'metrics.jsonl'}"):
            self._metrics.flush()
            os.fsync(self._metrics.fileno())

    def log(
        self, step: int, task: str, split: str, values: Mapping[str, float], **extra: Any
    ) -> None:
        """Log one value per metric, as a line of ``metrics.jsonl``."""
        with attempt(f"write the log of {self.folder}"):
            for metric, value in values.items():
                line = {"step": step, "task": task, "split": split, "metric": metric}
                line |= {"value": value} | extra
                self._metrics.write((json.dumps(line) + "\n").encode())
            self._metrics.flush()

    def record_resumed(self, environment: dict[str, Any], step: int) -> None:
        """Record the environment and the step of a resumed run, if the environment has changed."""
        first = read_environment(self.folder / "environment.json")
        resumed = first.pop("resumed", [])
        no_part = {"step", "lineage"}
        latest = {k: value for k, value in (resumed or [first])[-1].items() if k not in no_part}
        if environment != latest:
            resumed.append({"step": step} | environment)
            self.write_json("environment.json", first | {"resumed": resumed})

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the directory atomically."""
        write_text(self.folder / name, _as_text(content))

    def write_result(self, result: RunResult) -> None:
        """Write ``result.json``, which ends the run, after the checksums of all its files."""
        self._flush()
        content = result.to_json()
        write_sums(self.folder, _as_text(content).encode())
        self.write_json(RESULT, content)

    def before_close(self, act: Callable[[], None]) -> None:
        """Let something be done before the directory is closed."""
        self._resources.callback(act)

    def close(self) -> None:
        """Close all files and release the lock."""
        self._resources.close()


def _has_trained(path: Path) -> bool:
    """Return whether a whole line of a log is of a later step than 0."""
    with path.open("rb") as lines:
        return any(b'"step": 0,' not in line for line in lines if line.endswith(b"\n"))


def _values_after(path: Path, size: int) -> Iterator[tuple[int, str]]:
    """Yield step and name, ``TASK/METRIC/SPLIT``, of the whole lines of a log after some bytes."""
    with path.open("rb") as lines:
        lines.seek(size)
        for text in lines:
            with suppress(ValueError, KeyError, TypeError):  # a kill may have cut or damaged it
                line = json.loads(text)
                yield line["step"], "/".join(line[key] for key in ("task", "metric", "split"))


@contextmanager
def open_log(path: Path) -> Iterator[BinaryIO]:
    """Open a file to append lines to; it must not be a link to another file."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    with attempt(f"write {path}"), open(path, "ab", opener=opener) as file:
        yield file


def _as_text(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
