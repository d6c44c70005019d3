"""``thalnet sweep --on slurm``: submit the runs of a sweep as job arrays."""

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from thalnet_mtl.cli.output import print_table
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import RunError, UserError, one_line

if TYPE_CHECKING:
    from thalnet_mtl.sweep.plan import PlannedRun
    from thalnet_mtl.sweep.queue import RunQueue


def check_slurm(options: argparse.Namespace) -> None:
    """Raise ``UserError`` if an option does not fit SLURM, or the lack of it."""
    from thalnet_mtl.sweep.devices import check_numbers
    from thalnet_mtl.sweep.slurm import check_sbatch

    if options.on != "slurm":
        if options.sbatch is not None:
            raise UserError("--sbatch is for SLURM: give --on slurm as well.")
        return
    check_numbers(options.jobs, None)
    check_sbatch(options.sbatch or "")
    if options.per_gpu is not None:
        raise UserError("--per-gpu is not for SLURM: ask for a GPU by --sbatch '--gpus=1'.")
    if options.sampler == "tpe":
        raise UserError(
            "--sampler tpe needs the scores of earlier trials, which SLURM trains later: leave it "
            "out, or tune on this machine or with --on ray."
        )


def submit(
    options: argparse.Namespace,
    bases: Mapping[str, Config],
    planned: "Sequence[PlannedRun]",
    out: Path,
    check: Callable[[Config], None],
) -> "RunQueue":
    """Submit the runs of a sweep to SLURM, and show what has become of those that were before.

    Raises:
        RunError: SLURM refuses some.
    """
    from thalnet_mtl.sweep.summary import sweep_table
    from thalnet_mtl.sweep.sweep import Sweep

    with closing(Sweep(out, bases, planned, check)) as runs:
        options.began = True
        try:
            submit_runs(options, runs)
        except RunError as refusal:
            again = shlex.join(["thalnet", *options.command])
            raise RunError(f"{refusal}; submit the rest with: {again}") from None
    if runs.count("done", "failed"):
        print_table(sweep_table(planned, runs.status, runs.out, runs.failures))
    print(f"record: {one_line(str(runs.out / 'sweep.json'))}")
    return runs


def submit_runs(options: argparse.Namespace, runs: "RunQueue", noun: str = "runs") -> None:
    """Submit the runs of a queue that are neither done nor submitted, and print lines on them.

    Raises:
        RunError: SLURM refuses some.
    """
    from thalnet_mtl.sweep.slurm import SlurmArrays

    arrays = SlurmArrays(runs.out, options.sbatch or "", options.jobs)
    for line in runs.submit(arrays, noun):
        print(one_line(line))
