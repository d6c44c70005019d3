"""Rules that attach the configured modules: for every new task, or once a task stops improving."""

from typing import Annotated, Any, ClassVar

from thalnet_mtl.config.values import Range
from thalnet_mtl.json_fields import require, typed
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.registry import register
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import GrowthRule


@register("growth", "per_task")
class PerTask(GrowthRule):
    """Growth with every new task: the configured modules are attached for it."""

    needs_new_tasks: ClassVar[bool] = True

    def begin_experience(self) -> list[TopologyChange]:
        return self.add_tasks(attach=True)


@register("growth", "on_plateau")
class OnPlateau(GrowthRule):
    """Growth on a plateau: once an experience, modules are attached if no task improves any more.

    Args:
        run: the run that the rule is part of.
        patience: validations of every task of the experience without improvement before it.
    """

    def __init__(self, run: RunContext, patience: Annotated[int, Range(low=1)] = 3):
        super().__init__(run)
        self.patience = patience
        self.grown: list[int] = []  # experiences in which the network has grown

    def before_step(self) -> list[TopologyChange]:
        experience, scores = self.experience, self.run.state.scores
        if experience.number in self.grown:
            return []
        waited = min(scores.validations_without_improvement(name) for name in experience.tasks)
        if waited < self.patience:
            return []
        self.grown.append(experience.number)
        return self.rehearse_within()

    def rehearse_within(self) -> list[TopologyChange]:
        return self.attach_modules(suffix=str(self.experience.number))

    def state_dict(self) -> dict[str, Any]:
        return {"grown": self.grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require(state, ["grown"], "on_plateau")
        self.grown = typed(state["grown"], list[int], "on_plateau")
