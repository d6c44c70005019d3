"""The training step: forward, backward, the hooks of the strategy and the optimizer."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.followers import check_told
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.ops.batch_rows import BatchRows, only_rows
from thalnet_mtl.ops.parameter_rows import ParameterRows, gradients_by_row
from thalnet_mtl.strategies.base import add_penalty
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.training.accumulation import accumulate
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.cuda_graphs import Inputs, Outcome, StepGraphs
from thalnet_mtl.training.flat_optimizer import FlatOptimizer
from thalnet_mtl.training.sampling import group_by_inputs, reset_states
from thalnet_mtl.training.shared_batches import own_parts, shared_backward
from thalnet_mtl.training.state import NOT_TRAINED
from thalnet_mtl.training.support import (
    BASIC,
    CHANGES,
    GROWTH_OPTIONS,
    STREAM,
    Supported,
    fields,
    unsupported,
)
from thalnet_mtl.training.weighting import LossWeighting


class StepInputs(NamedTuple):
    """Inputs of a training step: a batch of each of its tasks, and the learning rate."""

    batches: dict[str, Batch]
    learning_rate: float


class TrainStep:
    """The training step of a run, as a function of its inputs.

    It keeps two caches: the parameters in few tensors, and steps captured as CUDA graphs. They are
    made again after a change of the topology, and must be dropped when the network is replaced.
    """

    def __init__(self, run: RunContext):
        self.run = run
        self._flat: FlatOptimizer | None = None
        self._graphs: StepGraphs | None = None
        self._state = run.state  # that the caches belong to
        self._changes = 0  # of the topology, that they have seen
        self.rows: dict[str, BatchRows] = {}  # of each batch, that this rank computes; {} for all
        # The norm of the gradient before it was clipped; one place, which captured steps write to.
        self.norm_before_clipping = torch.zeros((), device=run.device)

    def drop_caches(self) -> None:
        """Forget what was prepared for the network as it was."""
        self._flat = self._graphs = None

    def __call__(self, inputs: StepInputs) -> Tensor:
        """Take one optimizer step. Returns the loss of every task, still on the device.

        The loss of a task is ``NOT_TRAINED`` if it is not part of the step, or has no target in it.
        """
        run, network, batches = self.run, self.run.state.network, inputs.batches
        check_told(run.state.optimizer)  # a strategy may have changed the network on its own
        if self._state is not run.state or self._changes != len(run.state.topology_log):
            self.drop_caches()
            self._state, self._changes = run.state, len(run.state.topology_log)
        carried = run.state.carried_states
        states = {
            name: network.initial(
                run.learned_tasks[name].head_name, run.ranks.rows(len(batch.ys)).size
            )
            if batch.starts_sequence or name not in carried
            else reset_states(run, name, carried[name], len(batch.ys))
            for name, batch in batches.items()
            if run.learned_tasks[name].carries_state
        }
        self.flat_optimizer().set_rate(inputs.learning_rate)
        if self._graphs is None and not run.ranks.several and can_capture(run.config, run.device):
            self._graphs = StepGraphs(self.forward_backward_update)
        step = self._graphs or self.forward_backward_update
        losses, states = step((dict(batches), states))
        carried |= states
        if len(losses) == len(run.tasks):
            return losses
        # The log has the loss of a mixed batch under the task that most of it is of.
        names = run.task_stream.tasks_at(run.step)[:1] if run.task_stream else batches
        rows = dict(zip(names, losses, strict=True))
        absent = run.state.loss_log.new_tensor(NOT_TRAINED)
        return torch.stack([rows.get(name, absent) for name in run.tasks])

    def forward_backward_update(self, inputs: Inputs) -> Outcome:
        """Take the part of a step that runs on the device only.

        Args:
            inputs: the batch by task, and the state at its start of tasks that carry one.

        Returns:
            the losses, and the state at the end of the same tasks.
        """
        batches, states = inputs
        run, state, options = self.run, self.run.state, self.run.config.train
        losses, final_states = self.losses(batches, states)
        optimizer, strategy = self.flat_optimizer(), state.strategy
        optimizer.zero_grad([*losses, *strategy.rehearsed_tasks(batches)])
        if run.ranks.several:
            losses = shared_backward(
                run.ranks, state.weighting, optimizer, losses, run.task_parameters
            )
        else:
            state.weighting.backward(losses, run.task_parameters)
        strategy.after_backward()
        add_penalty(strategy, batches)
        strategy.before_update()
        if options.clip:
            parameters = state.network.parameters()
            norm = nn.utils.clip_grad_norm_(parameters, options.clip)
            self.norm_before_clipping.copy_(norm)
        optimizer.step()
        strategy.after_update(batches)
        tasks = run.learned_tasks
        shown = [shown_loss(tasks[n], batches[n], loss) for n, loss in losses.items()]
        return torch.stack(shown), final_states

    def _parameter_rows(self) -> ParameterRows | None:
        """Return the rows that autograd may know in the place of parameters, if it may.

        A weighting with a backward pass of its own may want the gradient of each task w.r.t. each
        parameter.
        """
        if type(self.run.state.weighting).backward is not LossWeighting.backward:
            return None
        return self.flat_optimizer().parameter_rows

    def gradient_norm(self) -> float | None:
        """Return the norm of the gradient of the last step, before clipping.

        None where the gradients are not those of the network, as where runs are stacked.
        """
        gradients = [p.grad for p in self.run.network.parameters() if p.grad is not None]
        if gradients and self.run.config.train.clip:
            return float(self.norm_before_clipping)
        return float(nn.utils.get_total_norm(gradients)) if gradients else None

    def losses(
        self, batches: Mapping[str, Batch], states: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the loss of every task, in the order of the batches, and the states at the end.

        Of several ranks, each returns what it adds to the loss of a whole batch; states are those
        of the rows that it computes, of tasks that carry one from batch to batch.
        """
        run, passes, whole = self.run, self.run.config.train.accumulate, batches
        groups, self.rows = group_by_inputs(run.config, batches), {}
        if run.ranks.several:
            self.rows = {name: run.ranks.rows(len(batch.ys)) for name, batch in batches.items()}
            batches = {name: batch.map(self.rows[name].of) for name, batch in batches.items()}
            passes = min(passes, *(rows.size for rows in self.rows.values()))
        if passes > 1:
            trained = {
                name: [p for p in run.task_parameters(name).values() if p.requires_grad]
                for name in batches
            }
            losses, finals = accumulate(
                self.forward, groups, run.learned_tasks, trained, batches, states, passes
            )
        else:
            losses, finals = {}, {}
            for group in groups:
                with gradients_by_row(self._parameter_rows()):
                    of_group = self.forward(group, batches, states)
                losses, finals = losses | of_group[0], finals | of_group[1]
        if run.ranks.several:
            losses = own_parts(run.ranks, losses, run.learned_tasks, whole, self.rows)
        return {name: losses[name] for name in batches}, finals

    def forward(
        self, names: Sequence[str], batches: Mapping[str, Batch], states: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the losses and final states of tasks on the same sequences."""
        run, first, tasks = self.run, batches[names[0]], self.run.learned_tasks
        heads = {name: tasks[name].head_name for name in names}
        bf16 = run.config.train.precision == "bf16"
        precision = torch.autocast(run.device.type, torch.bfloat16) if bf16 else nullcontext()
        rows = only_rows(self.rows[names[0]]) if self.rows else nullcontext()
        with precision, rows:
            outputs, finals = run.network.outputs_by_task(
                list(heads.values()),
                first.xs,
                {head: states[name] for name, head in heads.items() if name in states},
                first.lengths,
            )
        return (
            {n: tasks[n].loss(outputs[head], batches[n]) for n, head in heads.items()},
            {n: map_state(Tensor.detach, finals[heads[n]]) for n in names if n in states},
        )

    def flat_optimizer(self) -> FlatOptimizer:
        """Return the optimizer on few tensors, built when it is first needed."""
        if self._flat is None:
            run = self.run
            if run.ranks.several:
                run.ranks.check_same({"step": run.step} | structure(run.network))
            weights = dict(run.state.weighting.named_parameters())
            used = {
                task: [
                    *run.task_parameters(task).values(),
                    *(p for name, p in weights.items() if name.endswith(f".{task}")),
                ]
                for task in (run.attached_tasks if run.announced else run.learned_tasks)
                if task in run.learner.trainable_tasks
            }
            # cuDNN keeps the weights of an RNN in one piece of its own.
            unflattened = [
                parameter
                for module in run.network.modules()
                if isinstance(module, nn.RNNBase) and run.device.type == "cuda"
                for parameter in module.parameters()
            ]
            self._flat = FlatOptimizer(run.state.optimizer, used, unflattened)
        return self._flat


def structure(network: Network) -> dict[str, str]:
    """Return the shape of every parameter of a network by name, and whether it is trained."""
    return {
        f"parameter {name}": f"{tuple(p.shape)}{'' if p.requires_grad else ' frozen'}"
        for name, p in network.named_parameters()
    }


def shown_loss(task: Task, batch: Batch, loss: Tensor) -> Tensor:
    """Return the loss of a batch for the log; without any target, it is no loss of 0."""
    loss = loss.detach()
    return loss if task.complete else loss.where(task.count(batch) > 0, NOT_TRAINED)


# A loss of your own may wait for the GPU.
CAPTURABLE_LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber")
# They read the learning rate from the device, so that a graph can replay their step.
CAPTURABLE_OPTIMIZERS = ("rmsprop", "adam", "adamw")
# TorchJD's aggregators do some of their work on the CPU, and strategies decide there.
CAPTURABLE: Supported = {
    **BASIC,
    **STREAM,
    **CHANGES,
    **GROWTH_OPTIONS,
    **fields("start", "optimizer"),
    "model.body": ("thalnet", "gru", "lstm", "mlp", "rnn"),  # one of your own may wait for a GPU
    **fields("task", "batch"),
    **fields("tasks.*", "batch weight share reset inputs_of only_scored"),
    "task.loss": CAPTURABLE_LOSSES,
    "tasks.*.loss": CAPTURABLE_LOSSES,
    **fields("train", "dropout draw patience precision"),
    **fields("growth", "when"),
    "train.combine": ("fixed", "uncertainty"),
    "train.optimizer": CAPTURABLE_OPTIMIZERS,
}
NOT_CAPTURED = ("trainable_start",)  # it is read before the part of a step that is captured


def can_capture(config: Config, device: torch.device) -> bool:
    """Return whether steps are captured as CUDA graphs."""
    return device.type == "cuda" and not unsupported(config, CAPTURABLE, NOT_CAPTURED)
