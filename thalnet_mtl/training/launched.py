"""The place of this process among those that ``torchrun`` has started; known without torch."""

import os

from thalnet_mtl.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets


def several_processes() -> bool:
    """Return whether ``torchrun`` has started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process, from 0, and the number of all.

    Raises:
        UserError: variables are missing or wrong.
    """
    if missing := [name for name in VARIABLES if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE is set and {missing[0]} is not: start the processes of a run with "
            f"torchrun, or unset WORLD_SIZE."
        )
    rank, size = (os.environ[name] for name in VARIABLES[:2])
    if not (rank.isdecimal() and size.isdecimal()) or int(rank) >= int(size):
        raise UserError(f"RANK {rank} is not below WORLD_SIZE {size}: start with torchrun.")
    return int(rank), int(size)


def attempt() -> str:
    """Return a name for this start of the processes: ``torchrun`` starts them again after a loss.

    It keeps its store in between, with what the processes of the last attempt have left in it.
    """
    return f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)} of {os.environ['WORLD_SIZE']}"


def place_on_machine() -> tuple[int, int]:
    """Return the number of this process among those of its machine, and the number of these."""
    rank = int(os.environ.get("LOCAL_RANK") or 0)
    return rank, int(os.environ.get("LOCAL_WORLD_SIZE") or rank + 1)


def check_alone(what: str) -> None:
    """Raise unless this is the only process of its kind; ``what`` runs in one only."""
    if several_processes():
        raise UserError(
            f"{what} does not run in the {os.environ['WORLD_SIZE']} processes of torchrun; start "
            f"it without torchrun."
        )
