"""Records of what became of the parameters of a network, by which all that belongs to one follows.

The identity of a parameter is decided here alone: an ``nn.Parameter`` object stays the parameter
that it is, and one that was resized goes on in its successor. Any other parameter is a new one,
even under the name of an earlier one. Whoever keeps something about parameters, by name or by
object, passes it through this record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from thalnet_mtl.models.readings.base import IndexMap


@dataclass(frozen=True)
class ResizedParameter:
    """A parameter that was replaced by one of another shape."""

    old: nn.Parameter
    new: nn.Parameter
    remap: IndexMap


@dataclass(frozen=True, kw_only=True, eq=False)
class ParameterChanges:
    """A record of what became of the parameters of a network.

    They are named as in ``network.named_parameters()``; those without an entry are untouched.

    Args:
        grown: parameters that were replaced by one of another shape.
        added: parameters that are new, or trainable again.
        removed: parameters that were trainable and do not exist any more, or are frozen now.
        deleted: names of the parameters that do not exist any more, frozen or not. A later
            parameter of that name is another one.
        created: names of the parameters that are new, trainable or not.
        parameters: all parameters after the change, in the order of the network.
    """

    grown: Mapping[str, ResizedParameter] = field(default_factory=dict)
    added: Mapping[str, nn.Parameter] = field(default_factory=dict)
    removed: Mapping[str, nn.Parameter] = field(default_factory=dict)
    deleted: frozenset[str] = frozenset()
    created: frozenset[str] = frozenset()
    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)

    def update_named(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors that go by the names of parameters, as the change leaves these.

        Tensors of deleted parameters are left out. Where a parameter has grown, its tensor
        has too, and is zero in the new part.
        """
        return {
            name: self.grown[name].remap(tensor) if name in self.grown else tensor
            for name, tensor in named.items()
            if name not in self.deleted
        }
