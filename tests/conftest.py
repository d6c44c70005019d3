"""Shapes and types are checked while tests run; small nets run best on one thread."""

from jaxtyping import install_import_hook

install_import_hook("thalnet_mtl", "beartype.beartype")

import torch  # noqa: E402

from thalnet_mtl.compat import import_torchvision  # noqa: E402
from thalnet_mtl.ops import cpp  # noqa: E402

torch.set_num_threads(1)
import_torchvision()  # before anything imports torchmetrics
cpp.unavailable()  # is compiled now, where no test listens

# What tests import is not a test, and doctests are looked for in the package only.
collect_ignore = [
    "cases.py",
    "kill_and_resume.py",
    "laws.py",
    "numpy_thalnet.py",
    "properties.py",
    "streams.py",
    "toys.py",
    "written.py",
]
