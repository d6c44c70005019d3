"""Checksums of tensors, and of all that the logits of a task depend on."""

import hashlib
from itertools import chain

import torch
from torch import Tensor

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.parts import named_parts


def add_tensor(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Add a tensor, the same on every device, to a checksum."""
    tensor = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


class TaskChecksums:
    """Checksums of what the logits of tasks depend on, in a network as it is.

    Two are equal only if all weights, buffers, connections and sizes are, to the bit. A module that
    several tasks run is read once.
    """

    def __init__(self, network: Network):
        self.network = network
        self._parts: dict[str, bytes] = {}

    def of(self, task: str) -> bytes:
        """Return the checksum of a task."""
        network, digest = self.network, hashlib.sha256(usedforsecurity=False)
        active = network.active_modules(task)
        digest.update(repr((network.adapter(task).spec, active)).encode())
        for name in network.task_parts(task):
            digest.update(self._part(name))
        return digest.digest()

    def _part(self, name: str) -> bytes:
        """Return the checksum of a submodule, by its name."""
        if name not in self._parts:
            digest = hashlib.sha256(usedforsecurity=False)
            graph = self.network.body.graph
            module = graph.get(name.removeprefix("body.cells.")) if graph else None
            digest.update(f"{name} {module}".encode())
            for start, part in named_parts(self.network.get_submodule(name)):
                for key, tensor in chain(part._parameters.items(), part._buffers.items()):
                    if tensor is not None:
                        add_tensor(digest, start + key, tensor)
            self._parts[name] = digest.digest()
        return self._parts[name]
