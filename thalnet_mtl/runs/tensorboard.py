"""Scalars for TensorBoard, written as they come: a disk that is full fails where it is noticed."""

import os
import time
from pathlib import Path
from typing import Any

from thalnet_mtl.files import attempt

NAME = "events.out.tfevents."


class EventFile:
    """A new event file in a folder.

    TensorBoard reads the files of a folder in the order of their names, which does not depend on
    the clock here.

    Args:
        folder: of the event files of a run.
        step: events of this step and later ones, in older files, are to be forgotten.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = Event
        self._summary: Any = Summary
        folder.mkdir(exist_ok=True)
        numbers = [path.name.removeprefix(NAME).split(".")[0] for path in folder.glob(f"{NAME}*")]
        number = max([int(time.time()), *(int(n) + 1 for n in numbers if n.isdigit())])
        self._file = (folder / f"{NAME}{number:010d}.{os.getpid()}").open("xb")
        self._records: Any = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a value."""
        summary = self._summary(value=[self._summary.Value(tag=tag, simple_value=value)])
        self._write(step=step, summary=summary)

    def flush(self) -> None:
        """Let other processes see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with attempt(f"write {self._file.name}"):
            self._file.close()

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())
