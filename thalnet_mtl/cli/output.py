"""Output that several commands share: tables, reports, and how to resume."""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from thalnet_mtl.config.plugins import unused
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import one_line
from thalnet_mtl.published import local_folder
from thalnet_mtl.runs.names import run_folders
from thalnet_mtl.training.launched import several_processes

UNLIMITED = 10_000  # columns
NARROWEST = 40


def line_width() -> int:
    """Return the width of the terminal, or COLUMNS; other files get lines of any length."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return max(NARROWEST, shutil.get_terminal_size().columns) if narrow else UNLIMITED


def hanging(label: str, text: str, indent: int, width: int = 80) -> list[str]:
    """Return the lines of a text that is indented, with a label before its first line."""
    lines = wrap(text, width - indent, break_on_hyphens=False) or [""]
    if len(label) + 1 >= indent:
        return [label, *(" " * indent + line for line in lines)]
    return [f"{label:<{indent}}{lines[0]}", *(" " * indent + line for line in lines[1:])]


def print_table(table: Any) -> None:
    """Print a table for the width of the terminal, or of COLUMNS; other files get long lines."""
    from rich.console import Console

    width = line_width()
    fixed = UNLIMITED if width == UNLIMITED else None
    Console(highlight=False, width=fixed, force_jupyter=False).print(table, crop=False)


def print_unused(configs: Collection[Config]) -> None:
    """Print a note on every Python file of which no run uses anything."""
    for line in unused(configs):
        print(f"note: {one_line(line)}")


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
    runs, notes = run_folders([local_folder(path) for path in paths])
    for note in notes:
        print(f"note: {one_line(note)}", file=sys.stderr)
    return runs


def announce_imports() -> None:
    """Say so if this command imports PyTorch before it knows what may be configured.

    It does after an installation or a change of the package, and keeps what it finds.
    """
    from thalnet_mtl.config.declarations import are_stored

    if not are_stored():
        print("importing what this version offers …", flush=True)


def resume_hint(options: argparse.Namespace, saved: bool = True) -> str:
    """Return the command to type to resume, or else to repeat, what this command began."""
    verb = "resume" if saved else "start again"
    if several_processes():
        return f"{verb} with the same torchrun command"
    return f"{verb} with: {shlex.join(['thalnet', *options.command])}"
