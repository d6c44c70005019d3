"""Limits of stacked training, which are known without torch unless they depend on a GPU."""

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.training.launched import check_alone
from thalnet_mtl.training.support import BASIC, GROWTH_OPTIONS, Supported, fields, unsupported

SUPPORTED: Supported = {
    **BASIC,
    **GROWTH_OPTIONS,
    **fields("start", "optimizer"),
    **fields("task", "batch loss"),
    **fields("tasks.*", "batch loss weight share"),
    **fields("train", "optimizer precision patience"),
    "train.combine": ("fixed", "uncertainty"),
    "train.ops": ("auto", "cpp", "batched"),
}
# Random masks cannot be drawn for several runs at a time, and they share the state at the start.
REFUSED = "dropout", "zoneout", "trainable_start"


def check_stackable(config: Config) -> None:
    """Raise unless runs of this configuration can take their steps together.

    Raises:
        UserError: with the first field that is not supported.
    """
    check_alone("--stacked")
    field = unsupported(config, SUPPORTED, REFUSED)
    if config.train.patience and len(config.named_tasks) > 1:  # tasks stop at different steps
        field = f"train.patience {config.train.patience} of several tasks"
    if field and not _takes_steps_alone(config):
        raise UserError(f"--stacked does not support {field}; run without it.")


def _takes_steps_alone(config: Config) -> bool:
    """Return whether each run takes its own steps, side by side on a GPU."""
    from thalnet_mtl.training.devices import choose_device
    from thalnet_mtl.training.step import can_capture

    return can_capture(config, choose_device(config.train.device))
