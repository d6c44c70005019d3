"""Places for runs that are trained at the same time: some on each GPU, or one for each core."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from thalnet_mtl.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"  # environment variable: the GPUs that a process may use
MOST_PER_GPU = 100


@dataclass(frozen=True)
class Slots:
    """Places for runs that are trained at the same time.

    Args:
        count: Number of places.
        gpus: GPUs that share them evenly, as ``CUDA_VISIBLE_DEVICES`` names them; none on a CPU.
    """

    count: int
    gpus: tuple[str, ...] = ()

    @property
    def per_gpu(self) -> int:
        """Return the highest number of runs on a GPU."""
        return -(-self.count // len(self.gpus))

    def free_gpu(self, in_use: Collection[str]) -> str:
        """Return the GPU with the fewest runs.

        Args:
            in_use: The GPU of each run that is being trained, fewer than ``count`` of them.

        >>> Slots(4, ("0", "1")).free_gpu(["0", "1", "0"])
        '1'
        """
        runs = Counter(in_use)
        return min(self.gpus, key=lambda gpu: runs[gpu])

    def __str__(self) -> str:
        if not self.gpus:
            return f"{self.count} at a time"
        number = len(self.gpus)
        return f"{self.count} at a time on {number} GPU{'s' * (number > 1)}"


def make_slots(jobs: int | None, per_gpu: int | None, gpus: tuple[str, ...], cores: int) -> Slots:
    """Return the slots for ``jobs`` runs at a time, at most ``per_gpu`` on each GPU.

    Without ``jobs``, every GPU gets ``per_gpu`` runs, 1 by default; without GPUs, every core gets
    one. With ``jobs`` alone, the GPUs share them evenly.

    Raises:
        UserError: There is no GPU for ``per_gpu``, or more jobs than the GPUs have places.
    """
    if not gpus:
        if per_gpu is not None:
            raise UserError("--per-gpu: no GPU that PyTorch can use. --jobs N sets runs at a time.")
        return Slots(jobs or cores)
    if per_gpu is None:
        return Slots(jobs or len(gpus), gpus)
    most = per_gpu * len(gpus)
    if jobs is not None and jobs > most:
        places = "1 GPU trains" if len(gpus) == 1 else f"{len(gpus)} GPUs train"
        raise UserError(
            f"--jobs {jobs} and --per-gpu {per_gpu}: {places} at most {most} runs at a time."
        )
    return Slots(jobs or most, gpus)


def check_numbers(jobs: int | None, per_gpu: int | None) -> None:
    """Raise ``UserError`` if the number of runs at a time is out of range."""
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.")
    if per_gpu is not None and not 1 <= per_gpu <= MOST_PER_GPU:
        raise UserError(f"--per-gpu must be between 1 and {MOST_PER_GPU}, got {per_gpu}.")
