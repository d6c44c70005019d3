"""``thalnet config``: the configuration of a run, explained before it is trained."""

import argparse

from thalnet_mtl.cli.fields import SECTIONS, describe_section
from thalnet_mtl.cli.parser import Commands, Parser, add_command, add_config_names
from thalnet_mtl.config.origins import annotated_yaml, trace

SHOW = """Values without a comment are defaults. The output is a configuration that can be trained.
With --set, a stream that has a name stays a name; otherwise it is written out."""


def add_config_command(commands: Commands) -> None:
    """Add the command and its actions."""
    text = "Explain, show, copy or check a configuration."
    parser = commands.add_parser("config", help=text, description=text, allow_abbrev=False)
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, parser_class=Parser
    )
    show = add_command(actions, show_config, "show", epilog=SHOW, usage=usage("show", "[--set]"))
    add_config_names(show)
    show.add_argument("--set", action="store_true", help="only what files and flags set")
    explain = add_command(actions, explain_section, "help")
    explain.add_argument("section", choices=SECTIONS, metavar="SECTION", help="one of %(choices)s")


def usage(action: str, options: str = "") -> str:
    """Return the usage of an action that takes a configuration and flags."""
    return f"thalnet config {action} CONFIG [CONFIG ...] {options} [--section.field value ...]"


def show_config(options: argparse.Namespace) -> int:
    """Print the whole configuration as YAML, with the line or flag that each value is from."""
    runs = trace(options.config, options.flags)
    if not options.set:
        runs = {run: traced.complete() for run, traced in runs.items()}
    print(annotated_yaml(runs, only_set=options.set))
    return 0


def explain_section(options: argparse.Namespace) -> int:
    """Explain the fields of a section, and the options of what they name."""
    print(describe_section(options.section))
    return 0
