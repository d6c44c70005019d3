"""Checks shapes while tests run, and runs small networks on one thread, as fast as they can be."""

import gc
import os
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import jaxtyping


def has_shapes(decorated: object) -> bool:
    """Return whether an annotation of a function or of a dataclass holds a shape."""
    annotations = getattr(decorated, "__annotations__", {}).values()
    return any(isinstance(kind, str) or "jaxtyping" in repr(kind) for kind in annotations)


def jaxtyped_with_shapes(**options: object) -> object:
    """Check functions with shapes only: they are a tenth of all calls, mypy checks the others."""
    check = jaxtyped(**options)

    def decorate(decorated: object) -> object:
        if not has_shapes(decorated):
            return decorated
        checked = check(decorated)
        return checked if isinstance(decorated, type) else sometimes(checked, decorated)

    return decorate


def sometimes(checked: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the first calls of a function, then every tenth: checks took a fifth of the time."""
    numbers = count()

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        number = next(numbers)
        return (function if number > FIRST and number % 10 else checked)(*args, **named)

    return call


FIRST = 300  # calls of each function that are all checked, in each process
ROOT = Path(find_spec("thalnet_mtl").origin).parents[1]
SOURCES = [path for path in ROOT.glob("thalnet_mtl/**/*.py") if "jaxtyping" in path.read_text()]
SHAPED = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]
jaxtyped, jaxtyping.jaxtyped = jaxtyping.jaxtyped, jaxtyped_with_shapes
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")

import torch  # noqa: E402

from thalnet_mtl.compat import import_torchvision  # noqa: E402
from thalnet_mtl.ops import cpp  # noqa: E402

torch.set_num_threads(1)
gc.freeze()  # garbage collection took a fifth of the time of the tests
gc.set_threshold(50_000)
import_torchvision()  # before anything imports torchmetrics
cpp.unavailable()  # is compiled now, where no test listens

# What tests import is not a test, and doctests are looked for in the package only.
collect_ignore = [
    str(path) for path in Path(__file__).parent.rglob("*.py") if not path.name.startswith("test_")
]


def pytest_runtest_setup(item: object) -> None:
    """Let the output of commands have lines of any length: xdist gives its workers a width."""
    os.environ.pop("COLUMNS", None)
