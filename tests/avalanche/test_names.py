"""The names of Avalanche's strategies, which every command imports."""

import subprocess
import sys

from thalnet_mtl.avalanche.names import STRATEGIES
from thalnet_mtl.avalanche.strategies import PLUGINS
from thalnet_mtl.registry import entries


def test_the_names_are_registered_without_torch_and_without_avalanche():
    code = (
        "import sys, thalnet_mtl.avalanche.names\n"
        "assert not {'torch', 'avalanche', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_can_be_built_and_says_what_it_is():
    assert STRATEGIES.keys() == PLUGINS.keys()
    for name, title in STRATEGIES.items():
        assert title in entries("strategy")[f"avalanche:{name}"].__doc__
