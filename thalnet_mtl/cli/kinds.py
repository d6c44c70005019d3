"""The kinds of names that a configuration may use, as the command line calls them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from thalnet_mtl.config.training import OPS, SCHEDULES


@dataclass(frozen=True)
class Kind:
    """A kind of names: of the registry, or the values of a field."""

    text: str  # what they are, and where they are set
    registry: str = ""  # its name in the registry
    values: Mapping[str, str] = field(default_factory=dict)  # of a field, with a line on each


KINDS = {
    "tasks": Kind("data to train on: task, tasks", "task"),
    "streams": Kind("streams of tasks, written out from a name: stream.name", "stream"),
    "bodies": Kind("networks between encoders and heads: model.body", "body"),
    "modules": Kind("designs of the modules of a ThalNet: model.module", "module"),
    "readings": Kind("how modules read the center: model.reading", "reading"),
    "losses": Kind("losses of a task: task.loss", "loss"),
    "metrics": Kind("scores of a task: task.metrics", "metric"),
    "weightings": Kind(
        "how losses or gradients of several tasks are combined: train.combine", "weighting"
    ),
    "optimizers": Kind("train.optimizer", "optimizer"),
    "schedules": Kind("learning rate after the warm-up: train.schedule", values=SCHEDULES),
    "backends": Kind("programs that compute a ThalNet: train.ops", values=OPS),
    "strategies": Kind("continual learning along a stream: train.strategy", "strategy"),
    "growth": Kind("rules by which a network grows: growth.when", "growth"),
    "trackers": Kind("programs that a run is logged to: trackers", "tracker"),
}
# By the name of the registry, that of the command line.
PLURALS = {kind.registry: name for name, kind in KINDS.items() if kind.registry}
