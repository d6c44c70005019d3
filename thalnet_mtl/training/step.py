"""One step of a run: a batch of each task, their losses, and the optimizer."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.body import map_state
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.training.cuda_graphs import Inputs, Outcome, StepGraphs
from thalnet_mtl.training.sampling import reset_states
from thalnet_mtl.training.state import NOT_TRAINED, Run


def train_step(run: Run, batches: Mapping[str, Batch], rate: float) -> Tensor:
    """One optimizer step; returns the loss of every task, still on the device."""
    states = {
        name: run.network.initial(run.tasks[name].head_name, len(batch.xs))
        if batch.starts_sequence
        else reset_states(run, name, run.states[name], len(batch.xs))
        for name, batch in batches.items()
    }
    run.flat_optimizer().set_rate(rate)
    if run.graphs is None and can_capture(run.config, run.device):
        run.graphs = StepGraphs(partial(forward_backward_update, run))
    inputs = dict(batches), states
    losses, states = run.graphs(inputs) if run.graphs else forward_backward_update(run, inputs)
    run.states |= {n: state for n, state in states.items() if run.tasks[n].spec.target == "every"}
    if len(losses) == len(run.tasks):
        return losses
    rows = dict(zip(batches, losses, strict=True))
    nothing = run.losses.new_tensor(NOT_TRAINED)
    return torch.stack([rows.get(name, nothing) for name in run.tasks])


def can_capture(config: Config, device: torch.device) -> bool:
    """Whether steps are captured as CUDA graphs.

    TorchJD's aggregators do some of their work on the CPU, SGD takes its rate from there, and
    strategies decide there.
    """
    options = config.train
    able = options.combine in ("fixed", "uncertainty") and options.optimizer != "sgd"
    able &= options.strategy == "naive"
    return device.type == "cuda" and options.ops == "auto" and able


def forward_backward_update(run: Run, inputs: Inputs) -> Outcome:
    """Forward, backward and the optimizer, all on the device."""
    batches, states = inputs
    options, losses, after = run.config.train, {}, {}
    for name, batch in batches.items():
        bf16 = options.precision == "bf16"
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits, state = run.network(run.tasks[name].head_name, batch.xs, states[name])
        after[name] = map_state(Tensor.detach, state)
        losses[name] = F.cross_entropy(logits.flatten(0, -2).float(), batch.ys.flatten())
    joined, strategy = run.flat_optimizer(), run.strategy
    joined.zero_grad([*losses, *strategy.rehearsed_tasks(batches)])
    run.combination.backward(losses, run.task_parameters)
    strategy.after_backward()
    more = strategy.penalty(batches)
    if more is not None:
        more.backward()
    strategy.before_update()
    if options.clip:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), options.clip)
    joined.step()
    strategy.after_update(batches)
    return torch.stack([loss.detach() for loss in losses.values()]), after
