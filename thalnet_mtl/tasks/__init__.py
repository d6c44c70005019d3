"""The tasks that come with the package, and what a task of your own is made of."""

from thalnet_mtl.tasks import images, text
from thalnet_mtl.tasks.base import Batch, Rows, RowsTask, Task, TextTask

__all__ = ["Batch", "Rows", "RowsTask", "Task", "TextTask", "images", "text"]
