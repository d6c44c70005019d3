"""The command line: ``thalnet COMMAND …``."""

from thalnet_mtl.cli.main import main as main
