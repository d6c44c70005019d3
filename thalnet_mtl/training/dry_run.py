"""Rehearsals on a copy of the network: can it change and grow as configured while it trains?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain, groupby, pairwise

import torch

from thalnet_mtl.config.schema import ChangeConfig, Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.growth import add_new_tasks, attach_configured_modules
from thalnet_mtl.training.topology_changes import apply


def dry_run_changes(config: Config, network: Network, stream: Sequence[Experience]) -> None:
    """Raise if one of the configured changes cannot be made when its time comes.

    The rehearsal is optimistic: it assumes that all trainable parameters have been trained by
    then, and that no early stopping ends the run before.

    Raises:
        UserError: with the change, its step and the reason.
    """
    total = stream[-1].stop
    heads = {name: task.head or name for name, task in config.named_tasks.items()}
    steps = sorted({change.step for change in config.changes})
    next_step = dict(pairwise([*steps, total]))
    with rehearsal(network) as network:
        for step, changes in groupby(sorted(config.changes, key=step_of), key=step_of):
            fill_zeros(network)
            for change in changes:
                where = f"changes: {change.verb} {change.name} after step {step}"
                if step >= total:
                    raise UserError(f"{where}: there are only {total} steps.")
                try:
                    apply(network, change, config)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                check_budget(
                    network, config, where, "Give model.features to leave room, or raise the budget"
                )
            for experience in stream:
                used = [network.task_parameters(heads[t]).values() for t in experience.tasks]
                trainable = any(p.requires_grad for p in chain(*used))
                overlaps = experience.stop > step and experience.start < next_step[step]
                if overlaps and not trainable:
                    names = ", ".join(experience.tasks)
                    raise UserError(f"{where}: nothing that {names} use can be trained after it.")


def dry_run_growth(
    config: Config, network: Network, shapes: Mapping[str, TaskSpec], stream: Sequence[Experience]
) -> None:
    """Raise if the network cannot grow as configured.

    Raises:
        UserError: with the experience and the reason; also if it would outgrow its budget.
    """
    heads = {name: task.head or name for name, task in config.named_tasks.items()}
    with rehearsal(network) as network:
        for experience in stream:
            fill_zeros(network)
            where = f"growth: experience {experience.number}"
            names = list(dict.fromkeys(heads[task] for task in experience.tasks))
            try:
                add_new_tasks(network, config, shapes, names)
                if config.growth.when == "on_plateau":
                    attach_configured_modules(
                        network, config, shapes, names, str(experience.number)
                    )
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            for head in names:
                if not any(p.requires_grad for p in network.task_parameters(head).values()):
                    raise UserError(f"{where}: nothing that task '{head}' uses can be trained.")
            check_budget(network, config, where, "Lower features, or raise the budget")


@contextmanager
def rehearsal(network: Network) -> Iterator[Network]:
    """Yield a copy of a network, and leave the random state as it was."""
    with torch.random.fork_rng(devices=[]):
        yield deepcopy(network)


@torch.no_grad()
def fill_zeros(network: Network) -> None:
    """Set the zeros of trainable parameters to one, as training would make them nonzero."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.masked_fill_(parameter == 0, 1.0)


def check_budget(network: Network, config: Config, where: str, advice: str) -> None:
    """Raise if a network has more parameters than ``model.budget`` allows."""
    size, budget = count_parameters(network), config.model.budget
    if budget and size > budget:
        raise UserError(
            f"{where} makes {size:,} parameters, over model.budget {budget:,}. {advice}."
        )


def step_of(change: ChangeConfig) -> int:
    """Return the step after which a change is made."""
    return change.step
