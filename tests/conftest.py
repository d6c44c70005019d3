"""Shapes and types are checked while tests run; small nets run best on one thread."""

from jaxtyping import install_import_hook

install_import_hook("thalnet_mtl", "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
