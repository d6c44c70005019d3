"""Output that several commands share: tables, reports, and how to resume."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thalnet_mtl.errors import one_line
from thalnet_mtl.runs.names import run_folders

UNLIMITED = 10_000  # columns


def print_table(table: Any) -> None:
    """Print a table for the width of the terminal, or of COLUMNS; other files get long lines."""
    from rich.console import Console

    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(highlight=False, width=None if narrow else UNLIMITED).print(table, crop=False)


def print_runs(folders: Sequence[Path], baselines: Sequence[Path] = ()) -> None:
    """Print the results of runs side by side, and what baselines say of them."""
    from thalnet_mtl.report.terminal import runs_table

    print_table(runs_table(_runs_among(folders), _runs_among(baselines)))


def write_report(folders: Sequence[Path], out: Path, baselines: Sequence[Path] = ()) -> None:
    """Write one HTML file on runs, and print its path."""
    from thalnet_mtl.report import html

    path = html.write(_runs_among(folders), out, _runs_among(baselines))
    print(f"report: {one_line(str(path))}")


def _runs_among(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories among some paths, and say which are none."""
    runs, notes = run_folders(paths)
    for note in notes:
        print(f"note: {one_line(note)}", file=sys.stderr)
    return runs


def resume_hint(options: argparse.Namespace, saved: bool = True) -> str:
    """Return the command to type to resume, or else to repeat, what this command began."""
    verb = "resume" if saved else "start again"
    return f"{verb} with: {shlex.join(['thalnet', *options.command])}"
