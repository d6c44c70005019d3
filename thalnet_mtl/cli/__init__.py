"""The command line: ``thalnet VERB …``."""

from thalnet_mtl.cli.main import main as main
