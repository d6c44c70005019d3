"""The run directory and the screen: everything that a run writes down or shows."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from thalnet_mtl.config.load import dump_config, flatten, declaration_order, load_run_config
from thalnet_mtl.tasks import datasets as data
from thalnet_mtl.config.schema import Config; from thalnet_mtl.errors import UserError
from thalnet_mtl.config.schema import Config; from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_json, write_text
from thalnet_mtl.metrics.metric import Metric



class RunDirectory:
    """``config.yaml``, ``metrics.jsonl``, ``environment.json``, … of one run, for one process."""

    def __init__(self, folder: Path, config: Config):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(folder / ".lock")
            self.lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is writing to {folder}.") from None
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}.") from error
        try:
            check_same(folder, config)
        except UserError:
            self.lock.release()
            raise
        write_text(folder / "config.yaml", dump_config(config))
        self._metrics = (folder / "metrics.jsonl").open("ab")
        self._board: Any = None

    def rewind(self, size: int, anew: bool = False) -> None:
        """Forget what was logged after the metrics had this many bytes.

        ``anew`` says that to forget all is meant, and not the loss of a checkpoint.
        """
        path, found = self.folder / "metrics.jsonl", self.size
        if found < size:
            raise UserError(f"{path} has lost lines: {found} bytes of {size} are left.")
        lines = path.read_bytes().splitlines() if size == 0 and not anew else []
        if any(b'"step": 0,' not in line for line in lines):
            raise UserError(
                f"{self.folder} has lost its checkpoint. Put checkpoint/last.pt back, or delete "
                f"the folder to start again."
            )
        self._metrics.truncate(size)

    @property
    def size(self) -> int:
        """Bytes of metrics so far, all of them on disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return os.fstat(self._metrics.fileno()).st_size

    def log(self, step: int, task: str, split: str, values: dict[str, float], **more: Any) -> None:
        """One line a value, and the same to TensorBoard."""
        for metric, value in values.items():
            line = {"step": step, "task": task, "split": split, "metric": metric, "value": value}
            self._metrics.write((json.dumps(line | more) + "\n").encode())
            self.board(step).add_scalar(f"{task}/{metric}/{split}", value, step)
        self._metrics.flush()

    def board(self, step: int) -> Any:
        """The TensorBoard writer, opened at the first use; later steps of an earlier life go."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self.folder / "tensorboard", purge_step=step)
        return self._board

    def record_resumed(self, about: dict[str, Any], step: int) -> None:
        """Where a run goes on in another environment, say in which and from which step."""
        first = read_json(self.folder / "environment.json")
        lives = first.pop("resumed", [])
        latest = {key: value for key, value in (lives or [first])[-1].items() if key != "step"}
        if about != latest:
            lives.append({"step": step} | about)
            self.write_json("environment.json", first | {"resumed": lives})

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.folder / name, json.dumps(content, indent=2) + "\n")

    def close(self) -> None:
        self._metrics.close()
        if self._board is not None:
            self._board.close()
        self.lock.release()


def check_same(folder: Path, config: Config) -> None:
    """Raise if the folder holds a run of another configuration, and say what differs."""
    if not (folder / "config.yaml").exists():
        return
    before = load_run_config(folder)
    there, here = flatten(before), flatten(config)
    different = [
        f"{key} {here.get(key, 'absent')}, there {there.get(key, 'absent')}"
        for key in here | there
        if here.get(key) != there.get(key)
    ]
    if not different and declaration_order(before) != declaration_order(config):
        different = ["tasks or modules in another order"]
    if different:
        raise UserError(
            f"{folder} holds a run of another configuration: {'; '.join(different[:3])}. Give "
            f"--out DIR, or delete that folder."
        )
