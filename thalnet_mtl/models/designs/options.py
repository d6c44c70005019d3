"""The options of a module around its design: norms, random masks and initial values.

Random masks are computed before the first step and come to the design beside its inputs. So every
backend that can run the design has the same masks, whatever the order in which it runs modules.
"""

import inspect
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.models.initialization import orthogonalize
from thalnet_mtl.models.noise import Seed, draw_seed, random_rows
from thalnet_mtl.models.norms import NormedGRUCell, RMSNorm
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.topology.spec import ModuleSpec


def with_options(design: Design, module: ModuleSpec) -> Design:
    """Return a new design with the options of its module.

    Raises:
        UserError: the design has nothing that an option could apply to.
    """
    options, where = module.options, f"module '{module.name}'"
    if options.normalize == "gates":
        grus = design.grus() if isinstance(design, Design) else []
        if not grus:
            raise UserError(f"{where}: normalize gates needs a GRU; {module.module} has none.")
        for k, layer in enumerate(design.stack):
            if layer in grus:
                design.stack[k] = NormedGRUCell(layer.input_size, layer.hidden_size)
        design.about = "normalized gates"
    if options.orthogonal:
        weights = design.recurrent_weights() if isinstance(design, Design) else []
        if not weights:
            raise UserError(f"{where}: orthogonal needs recurrent weights; {_lacks(module)}.")
        for weight in weights:
            orthogonalize(weight)
    if options.chrono and not (
        isinstance(design, Design) and design.set_time_scales(options.chrono)
    ):
        raise UserError(f"{where}: chrono needs update gates; {_lacks(module)}.")
    if options.zoneout and not (
        design.memory and "keep" in inspect.signature(design.forward).parameters
    ):
        raise UserError(f"{where}: zoneout needs a memory; {_lacks(module)}.")
    inside = options.normalize in ("none", "gates")
    if inside and not (options.dropout or options.zoneout):
        return design
    return DesignWithOptions(design, module)


def _lacks(module: ModuleSpec) -> str:
    return f"the design {module.module} has none, or does not say which"


class DesignWithOptions(Design):
    """A design with normalized or dropped context, normalized features, or a zoned-out memory.

    Its input ends with ``noise`` further columns: factors of the context, 0 or 1 / (1 − p) for
    dropout; then the share of its value that each unit of the memory keeps, for zoneout.
    """

    def __init__(self, design: Design, module: ModuleSpec):
        nn.Module.__init__(self)
        self.design, self.memory = design, design.memory
        self.context, options = module.context, module.options
        self.options = options
        widths = {"context": module.context, "features": module.features}
        width = widths.get(options.normalize)
        self.norm = RMSNorm(width) if width else None
        self.about = f"the options {options.words()}"
        self.dropped = self.context if options.dropout else 0
        self.noise = self.dropped + (self.memory if options.zoneout else 0)

    def forward(
        self,
        x: Float[Tensor, "batch inputs"],
        memory: Float[Tensor, "batch memory"],
        keep: Float[Tensor, "batch memory"] | None = None,
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        """Return features and memory after one step; ``keep`` comes with the inputs."""
        inputs = x.shape[-1] - self.noise
        context, rest = x[..., : self.context], x[..., self.context : inputs]
        factors, keep = x[..., inputs : inputs + self.dropped], x[..., inputs + self.dropped :]
        if self.norm is not None and self.options.normalize == "context":
            context = self.norm(context)
        if self.dropped:
            context = context * factors
        x = torch.cat([context, rest], -1)
        if self.options.zoneout:
            features, memory = self.design(x, memory, keep)
        else:
            features, memory = self.design(x, memory)
        if self.norm is not None and self.options.normalize == "features":
            features = self.norm(features)
        return features, memory

    def masks(
        self, seed: Seed | None, name: str, like: Float[Tensor, "batch time _"]
    ) -> Float[Tensor, "batch time noise"]:
        """Return the further columns of all steps; without a seed their expected values."""
        rates = {"dropout": self.dropped, "zoneout": self.noise - self.dropped}
        columns = []
        for kind, width in rates.items():
            shape, rate = (*like.shape[:2], width), getattr(self.options, kind)
            if seed is None:
                columns.append(like.new_full(shape, 1.0 if kind == "dropout" else rate))
                continue
            mask = random_rows(seed, f"{kind} {name}", shape, rate).to(like.dtype)
            columns.append((1 - mask) / (1 - rate) if kind == "dropout" else mask)
        return torch.cat(columns, -1)


def with_noise(placement: Placement, xs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the inputs of all steps by module, with the random columns of those that need them.

    One random number is drawn if any of them is in training mode, and none otherwise.
    """
    noisy = [cell for cell in placement.cells if getattr(cell.design, "noise", 0)]
    if not noisy:
        return xs
    first = next(iter(xs.values()))
    training = any(cell.design.training for cell in noisy)
    seed = draw_seed(first.device) if training else None
    columns = {
        cell.name: cell.design.masks(seed if cell.design.training else None, cell.name, first)
        for cell in noisy
    }
    joined = {
        name: torch.cat([xs[name], noise], -1) if name in xs else noise
        for name, noise in columns.items()
    }
    return {**xs, **joined}
