"""``thalnet push``: share the network of a run on the Hugging Face Hub."""

import argparse
from pathlib import Path

from thalnet_mtl.cli.parser import Commands, add_command, path
from thalnet_mtl.errors import one_line, printable

EPILOG = """The network is that of the first RUN. Scores are means over all of them, which
must differ in the seed alone; of a single RUN, also over the runs of other
seeds beside it. The token is that of HF_TOKEN or of 'hf auth login'."""


def add_push_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        push,
        epilog=EPILOG,
        usage="thalnet push RUN [RUN ...] OWNER/NAME [--dry-run] [--license ID] ...",
    )
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="finished runs")
    parser.add_argument("repository", metavar="OWNER/NAME", help="repository, made if need be")
    parser.add_argument(
        "--license", metavar="ID", help="of the weights, as 'mit' (default: unknown)"
    )
    parser.add_argument("--revision", metavar="BRANCH", help="branch, made if need be")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument(
        "--replace", action="store_true", help="replace another network, or something else"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print files and model card, and push nothing"
    )


def push(options: argparse.Namespace) -> int:
    """Push the network of a run to the Hugging Face Hub, with a model card."""
    from thalnet_mtl import hub
    from thalnet_mtl.models.model_card import UNKNOWN_LICENSE
    from thalnet_mtl.training.publication import publication

    name = hub.check_name(options.repository)
    files, notes = publication(options.runs, name, options.license or UNKNOWN_LICENSE)
    home = f"{Path.home()}/".encode()
    notes += [f"{file} names folders of this machine" for file in files if home in files[file]]
    for note in notes:
        print(f"note: {one_line(note)}")
    if options.dry_run:
        for file, content in files.items():
            print(f"{len(content):>12,}  {file}")
        print(f"\n{printable(files[hub.CARD].decode())}", end="")
        return 0
    address = hub.push(
        name,
        files,
        message=options.message or f"Push {options.runs[0].resolve().name} of thalnet_mtl",
        revision=options.revision,
        private=options.private or None,
        replace=options.replace,
    )
    print(f"pushed {len(files)} files: {one_line(address)}")
    return 0
