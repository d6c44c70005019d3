"""Learning without forgetting: distillation from the network before the current experience."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import Strategy, TrainingContext
from thalnet_mtl.strategies.penalty import INTERVAL, Interval, Strength, check_interval
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.topology.spec import TaskSpec

TEMPERATURE = 2.0  # T, as in the paper


@register("strategy", "lwf")
class LearningWithoutForgetting(Strategy):
    """Learning without forgetting: old heads keep their predictions for the new inputs.

    Li, Hoiem, "Learning without Forgetting", ECCV 2016: strength · T² KL(p_old ‖ p_new) at a
    temperature T = 2, for each older task whose inputs have the shape of the new ones. Of labels it
    is the mean over labels of the same; of numbers it is the mean squared difference of the old and
    the new answer. A term has the weight of its task. A task that returns learns without its own.

    With hidden boundaries, the teacher moves: θ_old ← θ_old + (θ − θ_old) / interval
    after every step, an average of the weights as in Tarvainen, Valpola, "Mean teachers", NIPS
    2017. It begins anew with a network that changes its topology.

    Args:
        context: of the run.
        strength: factor of the distillation loss.
        interval: steps over which the teacher is an average, with hidden boundaries.
    """

    needs_boundaries = ""

    only_after_experience: ClassVar[bool] = True

    def __init__(
        self, context: TrainingContext, strength: Strength = 1.0, interval: Interval = INTERVAL
    ):
        super().__init__(context)
        check_interval(context, interval)
        self.strength, self.interval = strength, interval
        self.teacher: Network | None = None  # the network before this experience
        self.old_tasks: list[str] = []  # tasks that the teacher was trained on
        specs = [task.spec for task in context.tasks.values()]
        if context.announced and not any(
            same_inputs(a, b) for k, a in enumerate(specs) for b in specs[:k]
        ):
            self.notice = "lwf has no effect, because no two tasks have inputs of one shape."

    def rehearsed_tasks(self, batches: Mapping[str, Batch]) -> list[str]:
        tasks = self.context.tasks
        specs = [tasks[name].spec for name in batches]
        return [
            task
            for task in self.old_tasks
            if any(same_inputs(tasks[task].spec, spec) for spec in specs)
        ]

    def penalty(self, batches: Mapping[str, Batch]) -> Tensor | None:
        if self.teacher is None:
            return None
        context, tasks, network = self.context, self.context.tasks, self.context.network
        current = context.experience.tasks if context.announced else ()
        older = [
            name
            for name in self.old_tasks
            if name in context.trainable_tasks and name not in current
        ]
        task_of = {tasks[name].head_name: tasks[name] for name in older}
        weights: dict[str, float] = {}  # of a head, the largest one of its older tasks
        for name in older:
            head = tasks[name].head_name
            weights[head] = max(weights.get(head, 0.0), context.loss_weight(name))
        terms = []
        for name, batch in batches.items():
            spec, lengths = tasks[name].spec, batch.lengths
            heads = [head for head in weights if same_inputs(network.adapter(head).task, spec)]
            with torch.no_grad():
                targets, _ = self.teacher.outputs_by_task(heads, batch.xs, lengths=lengths)
            outputs, _ = network.outputs_by_task(heads, batch.xs, lengths=lengths)
            terms += [
                weights[head]
                * task_of[head].distillation(outputs[head], targets[head], batch, TEMPERATURE)
                for head in heads
            ]
        return self.strength * torch.stack(terms).sum() if terms else None

    def after_experience(self, experience: Experience) -> None:
        self.teach(experience.tasks)

    def teach(self, tasks: Sequence[str]) -> None:
        """Make the network as it is the teacher, also of some tasks."""
        self.teacher = deepcopy(self.context.network).eval().requires_grad_(False)
        self.old_tasks = [*dict.fromkeys([*self.old_tasks, *tasks])]

    @torch.no_grad()
    def after_update(self, batches: Mapping[str, Batch]) -> None:
        if self.context.announced:
            return
        if self.teacher is None:
            self.teach(list(batches))
            return
        learner = self.context.network
        for old, new in zip(self.teacher.parameters(), learner.parameters(), strict=True):
            old.lerp_(new, 1 / self.interval)
        for buffer, latest in zip(self.teacher.buffers(), learner.buffers(), strict=True):
            buffer.copy_(latest)

    def after_topology_change(self, change: TopologyChange) -> None:
        """Forget tasks whose head is deleted: a later head of that name is another one."""
        if not self.context.announced:
            self.teacher = None
        deleted = {name.split(".")[1] for name in change.deleted if name.startswith("adapters.")}
        heads = {task: self.context.tasks[task].head_name for task in self.old_tasks}
        self.old_tasks = [task for task, head in heads.items() if head not in deleted]

    def state_dict(self) -> dict[str, Any]:
        teacher = self.teacher and {
            "topology": self.teacher.describe(),
            "network": self.teacher.state_dict(),
        }
        return {"teacher": teacher, "old_tasks": self.old_tasks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.old_tasks = list(state["old_tasks"])
        if state["teacher"]:
            teacher = Network.from_description(state["teacher"]["topology"])
            teacher.load_state_dict(state["teacher"]["network"])
            self.teacher = teacher.to(self.context.device).eval().requires_grad_(False)
            self.context.configure_network(teacher)


def same_inputs(first: TaskSpec, second: TaskSpec) -> bool:
    """Return whether the inputs of one task also fit the other."""
    return (first.inputs, first.tokens, first.every_step) == (
        second.inputs,
        second.tokens,
        second.every_step,
    )
