"""``thalnet config``: the configuration of a run, explained before it is trained."""

import argparse

from thalnet_mtl.cli.fields import SECTIONS, describe_section
from thalnet_mtl.cli.parser import Commands, Parser, add_command


def add_config_command(commands: Commands) -> None:
    """Add the command and its actions."""
    text = "Explain, show, copy or check a configuration."
    parser = commands.add_parser("config", help=text, description=text, allow_abbrev=False)
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, parser_class=Parser
    )
    explain = add_command(actions, explain_section, "help")
    explain.add_argument("section", choices=SECTIONS, metavar="SECTION", help="one of %(choices)s")


def explain_section(options: argparse.Namespace) -> int:
    """Explain the fields of a section, and the options of what they name."""
    print(describe_section(options.section))
    return 0
