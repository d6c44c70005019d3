"""The tracker that writes event files for TensorBoard."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import dump_config
from thalnet_mtl.registry import register
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.tracking.tracker import TrackedRun, Tracker

NAME = "events.out.tfevents."


@register("tracker", "tensorboard")
class TensorBoard(Tracker):
    """Event files for TensorBoard in ``tensorboard/`` in the run directory.

    ``tensorboard --logdir runs`` shows all runs in a folder. Changes of the topology and the
    configuration are texts. When a run resumes, events after its checkpoint are dropped.
    """

    rewinds = True

    def start(self, run: TrackedRun) -> None:
        """Open a new event file, and write the configuration when a run begins."""
        self._file = EventFile(run.folder / "tensorboard", run.step + 1 if run.step else 0)
        if not run.step:
            config = "".join(f"    {line}\n" for line in dump_config(run.config).splitlines())
            self.log_text(0, "config", config)  # indented: code, in Markdown

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a scalar for each value."""
        for name, value in values.items():
            self._file.add_scalar(name, value, step)
        self._file.flush()

    def log_text(self, step: int, name: str, text: str) -> None:
        """Write a text."""
        self._file.add_text(name, text, step)
        self._file.flush()

    def finish(self, result: RunResult | None) -> None:
        """Close the file."""
        self._file.close()


class EventFile:
    """A new event file in a folder.

    TensorBoard reads the files of a folder in the order of their names, which does not depend on
    the clock here. Events are written as they come: a disk that is full fails where it is noticed.

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

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Write a text, which TensorBoard reads as Markdown."""
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        value = self._summary.Value(
            tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor
        )
        self._write(step=step, summary=self._summary(value=[value]))

    def flush(self) -> None:
        """Let other processes see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())
