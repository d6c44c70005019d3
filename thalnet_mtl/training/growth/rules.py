"""Rules that attach the configured modules: for every new task, or once a task stops improving."""

from typing import Annotated, Any, ClassVar

from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import require, typed
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.registry import register
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import GrowthRule


@register("growth", "per_task")
class PerTask(GrowthRule):
    """Growth with every new task: the configured modules are attached for it."""

    needs_new_tasks: ClassVar[bool] = True

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise ``UserError`` if nothing would read the configured modules."""
        growth = config.growth
        read = growth.policy == "shared" or any(m.output for m in growth.modules.values())
        if growth.modules and not read:
            raise UserError(
                f"growth.modules: nothing would read {', '.join(growth.modules)}. Give one of them "
                f"output: true, so that the heads of new tasks read it; or use policy shared, so "
                f"that older modules do."
            )

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
