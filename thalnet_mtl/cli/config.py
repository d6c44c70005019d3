"""``thalnet config``: the configuration of a run, explained before it is trained."""

import argparse
import json
import shlex
import sys

from thalnet_mtl.cli.fields import SECTIONS, describe_section
from thalnet_mtl.cli.parser import Commands, Parser, add_command, add_config_names, path
from thalnet_mtl.config.files import config_path
from thalnet_mtl.config.mistakes import find_mistakes, notes
from thalnet_mtl.config.origins import annotated_yaml, trace
from thalnet_mtl.config.plugins import import_files
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, one_line
from thalnet_mtl.files import attempt, write_text

SHOW = """Values without a comment are defaults. The output can be trained. With --set,
a stream that has a name stays a name; otherwise it is written out."""
CHECK = """Flags are laid over the files, as in 'thalnet train'. No data is loaded: see
'thalnet data check'. Notes are on fields that are set and do nothing in this
configuration."""
SCHEMA_HELP = """As in: thalnet config schema > thalnet.schema.json. The first line of a file of
your own says where it is: # yaml-language-server: $schema=thalnet.schema.json
Editors with the YAML language server (VS Code with its YAML extension, Neovim,
Emacs) read that line; 'thalnet config copy' writes it."""
SCHEMA = "thalnet.schema.json"


def add_config_command(commands: Commands) -> None:
    """Add the command and its actions."""
    text = "Explain, show, copy or check a configuration."
    parser = commands.add_parser("config", help=text, description=text, allow_abbrev=False)
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, parser_class=Parser
    )
    show = add_command(
        actions,
        show_config,
        "show",
        epilog=SHOW,
        usage="thalnet config show CONFIG [CONFIG ...] [--set]\n"
        "                           [--section.field value ...]",
    )
    add_config_names(show)
    show.add_argument("--set", action="store_true", help="only what files and flags set")
    check = add_command(
        actions,
        check_config,
        "check",
        epilog=CHECK,
        usage="thalnet config check CONFIG [CONFIG ...] [--section.field value ...]",
    )
    add_config_names(check)
    copy = add_command(actions, copy_config, "copy")
    copy.add_argument("name", metavar="CONFIG", help="name of a configuration, or a YAML file")
    copy.add_argument("file", type=path, metavar="FILE", help="new file, *.yaml")
    schema = add_command(actions, print_schema, "schema", epilog=SCHEMA_HELP)
    _add_plugins(schema)
    explain = add_command(actions, explain_section, "help")
    explain.add_argument(
        "section", choices=list(SECTIONS), metavar="SECTION", help="one of %(choices)s"
    )
    _add_plugins(explain)


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plugins", nargs="*", metavar="FILE.py", help="Python files with entries of your own"
    )


def show_config(options: argparse.Namespace) -> int:
    """Print a configuration as YAML, with the line or flag that each value is from."""
    runs = trace(options.config, options.flags)
    if not options.set:
        runs = {run: traced.complete() for run, traced in runs.items()}
    print(annotated_yaml(runs, only_set=options.set))
    return 0


def check_config(options: argparse.Namespace) -> int:
    """Say whether a configuration can be trained; all mistakes, with their lines."""
    from thalnet_mtl.training.flags import check_effect, reasons_without_effect

    def check(config: Config) -> None:
        from thalnet_mtl.training.setup import check_buildable  # only if all values are right

        check_buildable(config)

    findings = find_mistakes(options.config, options.flags, check)
    for mistake in findings.mistakes:
        print(f"thalnet: {one_line(mistake)}", file=sys.stderr)
    if findings.mistakes:
        return 2
    check_effect(findings.configs.values(), options.flags)
    for note in notes(findings, lambda config: reasons_without_effect(config, ["train.chunk"])):
        print(f"note: {one_line(note)}")
    runs = f"; {len(findings.configs)} runs: {', '.join(findings.configs)}" * (
        len(findings.configs) > 1
    )
    print(one_line(f"{' '.join(options.config)}: valid{runs}"))
    return 0


def copy_config(options: argparse.Namespace) -> int:
    """Copy a configuration to a file of your own, with its comments."""
    if options.file.suffix not in (".yaml", ".yml"):
        raise UserError(f"{options.file}: the name of a configuration file ends with .yaml.")
    if options.file.exists():
        raise UserError(f"{options.file} exists; choose another name, or remove it first.")
    text = config_path(options.name).read_text(encoding="utf-8")
    with attempt(f"write {options.file}"):
        write_text(options.file, f"# yaml-language-server: $schema={SCHEMA}\n{text}")
    print(one_line(f"train it with: thalnet train {shlex.quote(str(options.file))}"))
    schema = options.file.parent / SCHEMA
    if not schema.exists():
        print(one_line(f"for editors:   thalnet config schema > {shlex.quote(str(schema))}"))
    return 0


def print_schema(options: argparse.Namespace) -> int:
    """Print a JSON schema, by which editors complete and check YAML files."""
    from thalnet_mtl.config.json_schema import config_schema

    import_files(options.plugins)
    print(json.dumps(config_schema(), indent=1, ensure_ascii=False, allow_nan=False))
    return 0


def explain_section(options: argparse.Namespace) -> int:
    """Explain the fields of a section, and the options of what they name."""
    import_files(options.plugins)
    print(describe_section(options.section))
    return 0
