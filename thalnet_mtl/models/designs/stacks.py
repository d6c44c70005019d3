"""The designs of the paper: short stacks of dense and GRU layers (ThalNet poster, section 3)."""

from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.registry import register


@register("module", "ff")
class FF(Design):
    """Two dense layers without recurrent state: the only memory is the center."""

    layers = ("ff", "ff")


@register("module", "gru")
class GRU(Design):
    """One GRU, with the equations of ``torch.nn.GRU``."""

    layers = ("gru",)


@register("module", "ff_gru")
class FFGRU(Design):
    """A dense layer followed by a GRU: the authors' default."""

    layers = ("ff", "gru")


@register("module", "gru_ff")
class GRUFF(Design):
    """A GRU followed by a dense layer."""

    layers = ("gru", "ff")


@register("module", "ff_gru_ff")
class FFGRUFF(Design):
    """A GRU between two dense layers."""

    layers = ("ff", "gru", "ff")
