"""Recognition of finished runs of a configuration, without torch."""

from pathlib import Path

from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.runs.checksums import RESULT
from thalnet_mtl.runs.differences import allowed_differences, lengths, shown


def is_finished(folder: Path, config: Config, console: Console) -> bool:
    """Return whether a run has its result, and the configuration does not ask for other steps.

    A run that has finished is said to have. Whether its data has changed since is not looked at.

    Raises:
        UserError: the folder holds a run of another configuration.
    """
    if not (folder / RESULT).exists():
        return False
    different = allowed_differences(folder, config)
    if lengths(different, config):
        return False
    for line in shown(different):
        console.print(f"note: {line} changes nothing: {folder} has finished")
    if not different:
        console.print(f"{folder} has finished: nothing is trained")
    return True
