"""Strategies that keep what earlier experiences taught, for networks that may grow meanwhile.

Penalties and anchors go by the names of parameters: what a network grows has none, and what was
there keeps its own. Tasks may differ in shape: memories are kept, and gradients taken, by task.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.models.build import configure_network, restore
from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import Naive
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.state import Run

TEMPERATURE = 2.0  # of the old answers in learning without forgetting, as its authors


@register("strategy", "lwf")
class LearningWithoutForgetting(Naive):
    """Learning without forgetting: old heads answer new inputs as they did before.

    Li, Hoiem, "Learning without Forgetting", ECCV 2016: strength · T² KL(p_old ‖ p_new) at a
    temperature T = 2, for every older task whose inputs have the shape of the new ones.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.teacher: Any = None  # the network before this experience
        self.old: list[str] = []  # its tasks

    def rehearsed_tasks(self, run: Run, batches: Mapping[str, Batch]) -> list[str]:
        new = [run.tasks[name].spec for name in batches]
        return [t for t in self.old if any(same_inputs(run.tasks[t].spec, one) for one in new)]

    def penalty(self, run: Run, batches: Mapping[str, Batch]) -> Tensor | None:
        if self.teacher is None:
            return None
        terms = []
        ports = dict.fromkeys(
            run.tasks[name].head_name for name in self.old if name in run.trainable_tasks
        )
        for name, batch in batches.items():
            mine = run.tasks[name]
            takes = [p for p in ports if same_inputs(run.network.adapter(p).task, mine.spec)]
            with torch.no_grad():
                before = self.teacher.logits_by_task(takes, batch.xs)
            now = run.network.logits_by_task(takes, batch.xs)
            for port in takes:
                logits, wanted = (one[port].flatten(0, -2).float() for one in (now, before))
                terms.append(
                    F.kl_div(
                        (logits / TEMPERATURE).log_softmax(-1),
                        (wanted / TEMPERATURE).log_softmax(-1),
                        reduction="batchmean",
                        log_target=True,
                    )
                )
        factor = self.options.strength * TEMPERATURE**2
        return factor * torch.stack(terms).sum() if terms else None

    def after_experience(self, run: Run, experience: Experience) -> None:
        self.teacher = deepcopy(run.network).eval().requires_grad_(False)
        self.old = [*dict.fromkeys([*self.old, *experience.tasks])]

    def state_dict(self) -> dict[str, Any]:
        teacher = self.teacher
        kept = teacher and {"topology": teacher.describe(), "network": teacher.state_dict()}
        return {"teacher": kept, "old": self.old}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self.old = list(state["old"])
        if state["teacher"]:
            self.teacher = restore(state["teacher"]["topology"])
            self.teacher.load_state_dict(state["teacher"]["network"])
            self.teacher.to(run.device).eval().requires_grad_(False)
            configure_network(self.teacher, run.config.train)


def same_inputs(one: Any, other: Any) -> bool:
    """Whether inputs of one task can be given to another."""
    return (one.inputs, one.tokens, one.target) == (other.inputs, other.tokens, other.target)
