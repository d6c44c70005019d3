"""The network that a run starts from: that of another run, or one that ``Network.save`` wrote.

Modules, readings and connections come from there, and so do the encoders and heads of the tasks
that both have. A head for another number of outputs, and all that a new task needs, begins anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.training import StartConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import list_names
from thalnet_mtl.models.network import Network
from thalnet_mtl.topology.spec import TaskSpec, to_plain
from thalnet_mtl.training.optimizers import load_moments

Shapes = Mapping[str, TaskSpec]  # by the name of a head


@dataclass(frozen=True)
class Inheritance:
    """Parts of a network that a run takes over, begins anew, and leaves out, as texts.

    ``parameters`` are the names of all weights that are taken.
    """

    taken: Sequence[str]
    new: Sequence[str]
    left_out: Sequence[str]
    parameters: Sequence[str]

    def lines(self) -> list[str]:
        """Return a line on each of the three."""
        parts = {"taken": self.taken, "begun anew": self.new, "left out": self.left_out}
        return [f"  {name}: {'; '.join(texts)}" for name, texts in parts.items() if texts]

    def as_json(self) -> dict[str, Any]:
        """Return the texts, without the names of weights."""
        return {name: texts for name, texts in asdict(self).items() if name != "parameters"}


@dataclass
class Start:
    """The network that a run starts from; ``inheritance`` is known once it is adapted.

    Args:
        options: of the run.
        folder: of the other run, or of the saved network.
        network: as it was saved.
        step: after which it was saved; 0 if that is not known.
        optimizer: the saved state of its optimizer by parameter; {} if it is not taken.
    """

    options: StartConfig
    folder: Path
    network: Network
    step: int = 0
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    inheritance: Inheritance = field(init=False)

    @property
    def title(self) -> str:
        """The folder, and which of its weights these are."""
        which = f" ({self.options.weights} weights, of step {self.step:,})" if self.step else ""
        return f"{self.folder}{which}"

    def adapt(self, shapes: Shapes, config: Config) -> Network:
        """Return the network for the tasks of a run.

        Args:
            shapes: of the tasks that the network has before the first step, by head.
            config: of the run.

        Raises:
            UserError: the body is another one, or the inputs of a task differ.
        """
        topology, frozen = self.network.describe(), self.options.frozen
        check_body(topology["body"], config, self.folder)
        saved = topology["tasks"]
        known, added = ([h for h in shapes if (h in saved) == there] for there in (True, False))
        begun = [head for head in known if self._head_differs(head, shapes[head])]
        modules = topology["arguments"]["modules"] if config.model.body == "thalnet" else []
        for module in modules:
            if module["tasks"] and not set(module["tasks"]) & set(known):
                module["tasks"] = [*module["tasks"], *added]  # free for the new tasks
            module["frozen"] = frozen
        topology |= {"frozen": frozen, "tasks": {
            head: saved[head] | {"task": to_plain(shapes[head]), "frozen": False} for head in known
        }}  # fmt: skip
        network = Network.from_description(topology)
        loaded = self._load_weights(network, begun)
        for head in added:
            try:
                steps = {name: vars(config.model)[name] for name in ("sub_steps", "extra_steps")}
                network.add_task(head, shapes[head], **steps)
            except UserError as error:
                raise UserError(f"start.run {self.folder}: task '{head}': {error}") from error
        idle = [m["name"] for m in modules if m["tasks"] and not set(m["tasks"]) & set(shapes)]
        body = ", ".join(m["name"] for m in modules if m["name"] not in idle)
        kept = [head for head in known if head not in begun]
        heads = [f"{h} ({shapes[h].outputs} outputs, there {self._outputs(h)})" for h in begun]
        others = [head for head in saved if head not in known]
        self.inheritance = Inheritance(
            taken=[
                (f"modules {body}" if modules else f"body {config.model.body}")
                + " (frozen)" * frozen,
                *([f"encoders and head of {list_names(kept)}"] if kept else []),
                *([f"encoders of {list_names(begun)}"] if begun else []),
                *(["state of the optimizer"] if self.optimizer else []),
            ],
            new=[
                *([f"head of {list_names(heads)}"] if heads else []),
                *([f"encoders and head of {list_names(added)}"] if added else []),
            ],
            left_out=[
                *([f"encoders and head of {list_names(others)}"] if others else []),
                *([f"modules {', '.join(idle)}, which no task runs"] if idle else []),
                *([] if self.optimizer else ["state of the optimizer"]),
            ],
            parameters=loaded,
        )
        return network

    def _outputs(self, head: str) -> int:
        return self.network.adapter(head).spec.task.outputs

    def _head_differs(self, head: str, shape: TaskSpec) -> bool:
        """Return whether a head begins anew; raise if not even the encoders fit."""
        saved = self.network.adapter(head).spec.task
        for name in ("inputs", "tokens"):
            now, there = getattr(shape, name), getattr(saved, name)
            if now != there:
                raise UserError(
                    f"start.run: task '{head}' has {name} {now}, in {self.folder} {there}, so its "
                    f"encoders do not fit. Give the task another name, for them to begin anew."
                )
        return (shape.outputs, shape.every_step) != (saved.outputs, saved.every_step)

    def _load_weights(self, network: Network, begun: Sequence[str]) -> list[str]:
        """Load all weights but those of some heads into a network; return their names."""
        saved, current = self.network.state_dict(), network.state_dict()
        anew = tuple(f"adapters.{head}.head." for head in begun)
        taken = {name: saved[name] for name in current if not name.startswith(anew)}
        network.load_state_dict(current | taken)
        return list(taken)

    def load_optimizer(
        self, optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
    ) -> None:
        """Give an optimizer the saved state of the parameters that are taken."""
        load_moments(optimizer, self.optimizer, named, self.inheritance.parameters)


def check_body(body: str, config: Config, folder: Path) -> None:
    """Raise unless the configured body is that of the network to start from."""
    if body != config.model.body:
        raise UserError(
            f"start.run: the body of {folder} is '{body}', not model.body '{config.model.body}'. "
            f"Give --model.body {body}."
        )
