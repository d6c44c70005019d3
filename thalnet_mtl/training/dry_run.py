"""Changes of a network that a configuration asks for while it trains."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import chain, groupby, pairwise

import torch

from thalnet_mtl.config.schema import ChangeConfig, Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.topology_changes import apply


def dry_run(config: Config, network: Network, stream: Sequence[Experience]) -> None:
    """Raise if one of the configured changes cannot be done when its time comes.

    What is not known beforehand is taken to go well: everything that learns has learned by then,
    and no early stopping ends the run before.
    """
    network, total = deepcopy(network), stream[-1].stop
    ports = {name: task.head or name for name, task in config.named_tasks.items()}
    steps = sorted({what.step for what in config.changes})
    until = dict(pairwise([*steps, total]))  # by the step of a change, that of the next one
    with torch.random.fork_rng(devices=[]):
        for step, due in groupby(sorted(config.changes, key=at_step), key=at_step):
            fill_zeros(network)
            for what in due:
                where = f"changes: {what.verb} {what.name} after step {step}"
                if step >= total:
                    raise UserError(f"{where}: there are only {total} steps.")
                try:
                    apply(network, what, config)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                size, budget = count_parameters(network), config.model.budget
                if budget and size > budget:
                    raise UserError(
                        f"{where} makes {size:,} parameters, over model.budget {budget:,}. Give "
                        f"model.features to leave room, or raise the budget."
                    )
            for one in stream:
                used = [network.task_parameters(ports[task]).values() for task in one.tasks]
                learns = any(p.requires_grad for p in chain(*used))
                if one.stop > step and one.start < until[step] and not learns:
                    names = ", ".join(one.tasks)
                    raise UserError(f"{where}: of {names} nothing learns any more after it.")


def at_step(what: ChangeConfig) -> int:
    """When a change is due."""
    return what.step


@torch.no_grad()
def fill_zeros(network: Network) -> None:
    """What training would do between two changes: nothing that learns stays zero."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.masked_fill_(parameter == 0, 1.0)
