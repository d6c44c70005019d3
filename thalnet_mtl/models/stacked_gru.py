"""The baseline of ThalNet: a stacked GRU, with the options that modules of a ThalNet have."""

from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.body import Body
from thalnet_mtl.models.designs.base import set_gru_time_scales, zone_out
from thalnet_mtl.models.initialization import orthogonalize
from thalnet_mtl.models.noise import Seed, draw_seed, random_rows
from thalnet_mtl.models.norms import RMSNorm, gru_gates, normed_gates
from thalnet_mtl.models.run_rnn import batch_first, layers_first, run_rnn, zeros_like_batch
from thalnet_mtl.ops.inputs import Inputs
from thalnet_mtl.ops.lengths import Lengths, last_steps, past_end, zero_past_end
from thalnet_mtl.ops.reference import keep
from thalnet_mtl.registry import register
from thalnet_mtl.topology.options import HIGHEST_RATE, OPTION_NAMES, ModuleOptions, Normalize

Rate = Annotated[float, Range(0, HIGHEST_RATE)]


@register("body", "gru")
class StackedGRU(Body):
    """A ``torch.nn.GRU`` whose state has the batch first: (batch, layers, features).

    Its options are those of a ThalNet, so that both can be compared with the same: each layer is
    like a module that reads the layer below. ``zoneout`` and ``normalize: gates`` take a loop over
    the steps in Python, which is slower.

    Args:
        inputs, features, layers: sizes.
        normalize: what is normalized: the context, which a layer reads from the one below; the
            features, which it writes for the one above or the head; or its gates.
        dropout: rate at which elements that a layer reads from the one below are zero in training.
        zoneout: probability with which a unit of the state keeps its value for a step in training.
        orthogonal: whether recurrent weights start as orthogonal matrices.
        chrono: time scale in steps for the initial biases of update gates; 0: as usual.
        trainable_start: whether the state before the first step is trained.
    """

    left_out = OPTION_NAMES  # of complete configurations, where they are at their defaults
    start: nn.Parameter | None

    def __init__(
        self,
        inputs: int,
        features: int,
        layers: int = 4,
        normalize: Normalize = "none",
        dropout: Rate = 0.0,
        zoneout: Rate = 0.0,
        orthogonal: bool = False,
        chrono: Annotated[int, Range(0)] = 0,
        trainable_start: bool = False,
    ):
        super().__init__()
        self.inputs, self.features, self.layers = inputs, features, layers
        self.outputs = features
        self.options = ModuleOptions(
            normalize, dropout, zoneout, orthogonal, chrono, trainable_start
        )
        if layers == 1 and (dropout or normalize == "context"):
            option = "dropout" if dropout else "normalize context"
            raise UserError(f"gru: {option} is of what layers read from others; there is one.")
        self.rnn = nn.GRU(inputs, features, layers, batch_first=True)
        for *_, state_weight, input_bias, state_bias in self.rnn.all_weights:
            if orthogonal:
                orthogonalize(state_weight)
            if chrono:
                set_gru_time_scales(input_bias, state_bias, chrono)
        self.start = nn.Parameter(torch.zeros(layers, features)) if trainable_start else None
        normed = {"context": layers - 1, "features": layers}.get(normalize, 0)
        self.norms = nn.ModuleList(RMSNorm(features) for _ in range(normed))
        # Gains of the gates from the input and from the state.
        gains = torch.ones(2, layers, 3 * features)
        self.gains = nn.Parameter(gains) if normalize == "gates" else None

    def arguments(self) -> dict[str, Any]:
        sizes = {"inputs": self.inputs, "features": self.features, "layers": self.layers}
        return sizes | self.options.changed()

    def initial(self, xs: Inputs) -> Float[Tensor, "batch layers features"]:
        """Return zeros, or the trained start."""
        zeros = zeros_like_batch(xs, self.layers, self.outputs)
        return zeros if self.start is None else self.start.to(zeros.dtype).expand_as(zeros)

    def run(
        self, xs: Tensor, state: Tensor, lengths: Lengths | None = None
    ) -> tuple[Tensor, Tensor]:
        options = self.options
        if options.normalize == "none" and not (options.dropout or options.zoneout):
            ys, state = run_rnn(self.rnn, xs, layers_first(state), lengths)
            return ys.to(xs.dtype), batch_first(state).to(xs.dtype)
        random = self.training and (options.dropout or options.zoneout)
        seed = draw_seed(xs.device) if random else None
        ys, last = zero_past_end(xs, lengths), []
        for layer, before in enumerate(state.unbind(1)):
            ys, after = self._run_layer(layer, self._read(layer, ys, seed), before, lengths, seed)
            last.append(after)
            if options.normalize == "features":
                ys = self.norms[layer](ys)
        ys = zero_past_end(ys, lengths)
        return ys.to(xs.dtype), torch.stack(last, 1).to(xs.dtype)

    def _read(
        self, layer: int, xs: Float[Tensor, "batch time _"], seed: Seed | None
    ) -> Float[Tensor, "batch time _"]:
        """Return what a layer reads of the one below, normalized and dropped."""
        options = self.options
        if layer and options.normalize == "context":
            xs = self.norms[layer - 1](xs)
        if layer and options.dropout and seed is not None:
            mask = random_rows(seed, f"dropout {layer}", xs.shape, options.dropout)
            xs = xs.masked_fill(mask, 0) / (1 - options.dropout)
        return xs

    def _run_layer(
        self,
        layer: int,
        xs: Float[Tensor, "batch time _"],
        state: Float[Tensor, "batch features"],
        lengths: Lengths | None,
        seed: Seed | None,
    ) -> tuple[Float[Tensor, "batch time features"], Float[Tensor, "batch features"]]:
        """Return the states of a layer after every step, and after the last of each sequence."""
        weights: Any = self.rnn.all_weights[layer]
        if self.gains is None and not self.options.zoneout:
            ys, last = torch.gru(
                xs, state[None].contiguous(), weights, True, 1, 0.0, True, False, True
            )
            return ys, last[0] if lengths is None else last_steps(ys, lengths)
        input_weight, state_weight, input_bias, state_bias = weights
        if self.gains is None:
            from_input = F.linear(xs, input_weight, input_bias)
        else:
            from_input = normed_gates(xs, input_weight, input_bias, self.gains[0, layer])
        past = None if lengths is None else past_end(lengths, xs.shape[1])
        kept, steps = self._kept(layer, xs, seed), []
        for t, gates in enumerate(from_input.unbind(1)):
            if self.gains is None:
                from_state = F.linear(state, state_weight, state_bias)
            else:
                from_state = normed_gates(state, state_weight, state_bias, self.gains[1, layer])
            new = gru_gates(gates, from_state, state)
            new = zone_out(state, new, None if kept is None else kept[:, t])
            state = keep(past, t, state, new)
            steps.append(state)
        return torch.stack(steps, 1), state

    def _kept(
        self, layer: int, xs: Float[Tensor, "batch time _"], seed: Seed | None
    ) -> Float[Tensor, "batch time features"] | None:
        """Return the share of its value that each unit keeps at each step; None without zoneout."""
        shape, rate = (*xs.shape[:2], self.features), self.options.zoneout
        if not rate:
            return None
        if seed is None:
            return xs.new_full(shape, rate)
        return random_rows(seed, f"zoneout {layer}", shape, rate).to(xs.dtype)
