"""Shapes are checked while tests run; small nets run best on one thread."""

from pathlib import Path

from jaxtyping import install_import_hook

# Where arrays are passed; of all else mypy knows enough, and checks would double the time.
ROOT = Path(__file__).parents[1]
SOURCES = [path for path in ROOT.glob("thalnet_mtl/**/*.py") if "jaxtyping" in path.read_text()]
SHAPED = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]
install_import_hook(SHAPED, "beartype.beartype")

import torch  # noqa: E402

from thalnet_mtl.compat import import_torchvision  # noqa: E402
from thalnet_mtl.ops import cpp  # noqa: E402

torch.set_num_threads(1)
import_torchvision()  # before anything imports torchmetrics
cpp.unavailable()  # is compiled now, where no test listens

# What tests import is not a test, and doctests are looked for in the package only.
collect_ignore = [
    "random_networks.py",
    "backend_agreement.py",
    "backend_checks.py",
    "golden.py",
    "kill_and_resume.py",
    "growth_laws.py",
    "numpy_thalnet.py",
    "properties.py",
    "stream_fixtures.py",
    "toy_tasks.py",
    "run_fixtures.py",
]
