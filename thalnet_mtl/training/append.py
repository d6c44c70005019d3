"""Experiences appended to the stream of a run, which goes on as if they had been there all along.

The checkpoint of the shorter stream is brought to the tasks of the longer one. What the longer
stream would have had from the start is as it was before the first step: heads of networks that do
not grow, their untrained scores, the weights of losses. Strategies keep what they have.
"""

import json
from typing import Any

import torch

from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.differences import stream_length
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.run_files import FINGERPRINTS, read_environment
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.state import NOT_TRAINED
from thalnet_mtl.training.support import random_options


def extend(content: dict[str, Any], run: RunContext) -> None:
    """Bring a checkpoint to all tasks of a stream, if it was saved with fewer experiences.

    Args:
        content: the checkpoint, changed in place.
        run: before its first step, with the longer stream.

    Raises:
        UserError: the run cannot get further experiences; says why.
    """
    if stream_length(content["config"]) == len(run.config.stream):
        return
    if reason := why_not(content, run):
        raise UserError(f"no experience can be appended to this run: {reason}.")
    new = [name for name in run.tasks if name not in content["batches_seen"]]
    content["batches_seen"] |= dict.fromkeys(new, 0)
    log = content["loss_log"]
    content["loss_log"] = torch.cat([log, log.new_full((len(log), len(new)), NOT_TRAINED)], 1)
    _add_parameters(content, run)
    scores = content["scores"]
    for name in run.attached_tasks:
        if name in new:
            scores["untrained"][name] = values = run.score_untrained(name)
            scores["accuracy_matrix"][0][name] = values[run.tasks[name].metric.name]


def why_not(content: dict[str, Any], run: RunContext) -> str:
    """Return why no experience can be appended to a run; '' if one can."""
    saved, network = content["topology"], run.network.describe()
    if stream_length(content["config"]) < 2:
        return "with a single experience it has kept its best weights, not its last ones"
    if not run.announced:
        return "train.boundaries is hidden, so that its end was not a boundary"
    if run.config.changes:
        return "changes of its topology would have been changes of the new heads as well"
    if run.state.rule.grows:
        return ""
    tasks = {head: spec for head, spec in network["tasks"].items() if head in saved["tasks"]}
    if json.loads(json.dumps(network | {"tasks": tasks})) != json.loads(json.dumps(saved)):
        return (
            "with the new tasks its network would have been another one from the start, as with "
            "model.features 0, or with inputs of another width"
        )
    return ""


def differences_to_one_run(run: RunContext) -> str:
    """Return why the run may differ from one with the whole stream from the start; '' if not."""
    if random_options(run.config) and not run.state.rule.grows:
        return "the random numbers of its dropout are not those of a network with all heads"
    if run.config.growth.when == "search" and run.state.rule.acts_within:
        return "growth.when search shares its steps among the experiences that it knows of"
    return ""


def record_tasks(run: RunContext, directory: RunDirectory, facts: dict[str, Any]) -> None:
    """Write the metrics and the data of the tasks to the files of a run, if some are new.

    Args:
        run: with all tasks.
        directory: of the run.
        facts: the environment of today.
    """
    path = directory.folder / "environment.json"
    recorded = read_environment(path)
    kinds = [kind for kind in ("notices", "scalings", *FINGERPRINTS) if kind in recorded]
    if any(facts[kind].keys() - recorded[kind].keys() for kind in kinds):
        merged = {kind: facts[kind] | dict(recorded[kind]) for kind in kinds}
        directory.write_json("environment.json", recorded | merged)
    write_metrics(run, directory)


def write_metrics(run: RunContext, directory: RunDirectory) -> None:
    """Write the metrics of all tasks."""
    metrics = {name: [m.to_json() for m in task.metrics] for name, task in run.tasks.items()}
    directory.write_json("metrics.json", metrics)


def _add_parameters(content: dict[str, Any], run: RunContext) -> None:
    """Add the parameters of new heads, and of the weights of new losses, as they began."""
    network, saved = run.network.state_dict(), content["topology"]["tasks"]
    heads = [] if run.state.rule.grows else [h for h in run.network.adapters if h not in saved]
    prefixes = tuple(f"adapters.{head}." for head in heads)
    for head in heads:
        saved[head] = run.network.describe()["tasks"][head]
    content["network"] |= {n: value for n, value in network.items() if n.startswith(prefixes)}
    weights = run.state.weighting.state_dict()
    content["weighting"] = weights | content["weighting"]
    groups = content["optimizer"]["groups"]
    held = {name for group in groups for name in group["params"]}
    for name, parameter in run.state.named_parameters().items():
        is_weight = name.startswith("weighting.")
        if (
            parameter.requires_grad
            and name not in held
            and (is_weight or name.startswith(prefixes))
        ):
            groups[is_weight]["params"].append(name)
