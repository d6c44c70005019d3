"""Checkpoints: written atomically, read without running code, checked against the configuration."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import write_atomically
from thalnet_mtl.json_fields import require, typed
from thalnet_mtl.metrics.summary import StageCost
from thalnet_mtl.models.model_folder import load_weights, read_from
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.runs.differences import stream_length, without_differing
from thalnet_mtl.runs.topology_file import ChangeEntry, DecisionEntry
from thalnet_mtl.training.append import extend
from thalnet_mtl.training.checkpoint_parts import (
    FILES,
    PREFIX,
    PartFiles,
    map_tensors,
    own_storage,
    restore,
)
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.state import KEEPING_BEST, NOT_TRAINED, OPTIONAL, TrainState
from thalnet_mtl.training.support import defaults_by_field, pattern

FORMAT = 5  # raised whenever older checkpoints cannot be read any more
BEST = ("step", "topology", "network")  # keys of best.pt, beside format and config
LAST = ("topology", *(part.name for part in fields(TrainState)), "rng", "metrics_size")
LAST = tuple(key for key in LAST if key not in OPTIONAL)
KEPT = "best"  # key of last.pt, which may be missing: the content of best.pt before the end


def save_checkpoint(path: Path, content: dict[str, Any], parts: PartFiles | None = None) -> None:
    """Save tensors and plain values; a view is saved without the tensor that it is part of.

    With ``parts``, those that have not changed are stored once, in files beside the checkpoint.
    """
    content = content | {"format": FORMAT}
    if parts:
        parts.save(path.name, content)
    else:
        content = map_tensors(own_storage, content)
        write_atomically(path, lambda file: torch.save(content, file))


def part_files(folder: Path) -> PartFiles:
    """Return the files of parts in a folder of checkpoints; it may not exist yet."""
    checkpoints = [path for path in folder.glob("*.pt") if not path.name.startswith(PREFIX)]
    kept = {path.name: _load_references(path).get(FILES, ()) for path in checkpoints}
    return PartFiles(folder, kept)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what ``save_checkpoint`` wrote, as tensors and plain values only.

    Raises:
        UserError: there is none, it is damaged, or another version of thalnet_mtl wrote it.
        OSError: it cannot be read.
    """
    content = _load_references(path)
    with read_from(path):
        return restore(content, lambda name: _load(path.with_name(Path(name).name)))


def _load_references(path: Path) -> dict[str, Any]:
    """Load a checkpoint without the parts to which it refers."""
    content = _load(path)
    saved = content.get("format", 1) if isinstance(content, dict) else None
    if saved != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {saved}, this version of thalnet_mtl reads format "
            f"{FORMAT}. Use the version that wrote it, or delete the folder of the run to start "
            f"again."
        )
    checkpoint: dict[str, Any] = content
    return checkpoint


def _load(path: Path) -> Any:
    """Load tensors and plain values from a file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}.") from None
    except OSError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} is damaged and cannot be read ({type(error).__name__}). Put a good copy in "
            f"its place, or delete the folder of the run to start again."
        ) from error
    if not _is_whole(path):
        raise UserError(f"{path} is damaged: its checksums are not those of its content.")
    return content


def _is_whole(path: Path) -> bool:
    """Return whether every part of a checkpoint, a zip file, has its checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except zipfile.BadZipFile:
        return False


def load_matching(path: Path, config: Config, keys: Sequence[str] = BEST) -> dict[str, Any]:
    """Load a checkpoint with these keys that a run of this configuration wrote.

    Fields that may differ when a run goes on are not compared; its stream may be longer by now.
    """
    content = load_checkpoint(path)
    require(content, ("config", *keys), str(path))
    optional = {KEPT, *OPTIONAL} if keys is LAST else set()
    if unexpected := content.keys() - {"format", "config", *keys} - optional:
        raise UserError(f"{path} is another checkpoint: it has '{min(unexpected)}' as well.")
    if not _is_part(_plain(without_differing(content["config"])), _plain(recorded_fields(config))):
        raise UserError(f"{path} belongs to a run of another configuration.")
    return content


def _is_part(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a configuration is that of a run, but for experiences that are appended.

    A field that an earlier version did not record was at its default.
    """
    defaults = _plain(defaults_by_field())
    new = [k for k in now.keys() - recorded.keys() if now[k] != defaults.get(pattern(k))]
    appended = stream_length(recorded) and all(k.startswith(("stream.", "tasks.")) for k in new)
    return recorded == {field: now.get(field) for field in recorded} and bool(appended or not new)


def recorded_fields(config: Config) -> dict[str, Any]:
    """Return the values of a configuration by field that a checkpoint is checked against."""
    return without_differing(flatten(config))


def _plain(values: Mapping[str, Any]) -> Any:
    """Return values as they are read from a text: tuples are lists there."""
    return json.loads(json.dumps(values))


def load_network(content: Mapping[str, Any], path: Path) -> Network:
    """Return the network of a checkpoint, with the topology that it had at that step."""
    with read_from(path):
        typed(content["step"], int, "step")
        network = Network.from_description(content["topology"])
        load_weights(network, content["network"])
    return network


def save_best(path: Path, run: RunContext, parts: PartFiles | None = None) -> None:
    """Write the network of this step as the best one so far."""
    content = {"step": run.step, "topology": run.network.describe()}
    content |= {"network": run.network.state_dict(), "config": recorded_fields(run.config)}
    save_checkpoint(path, content, parts)


def load_best(folder: Path) -> dict[str, Any]:
    """Return the content of best.pt in a folder of checkpoints."""
    return load_checkpoint(folder / "best.pt")


def restore_best(last: Path) -> None:
    """Write the best weights that are part of a checkpoint, if there are any, as best.pt."""
    if kept := load_checkpoint(last).get(KEPT):
        save_checkpoint(last.with_name("best.pt"), kept)


def save_run(
    path: Path,
    run: RunContext,
    metrics_size: int,
    parts: PartFiles | None = None,
    best: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write all that a run needs to resume at this step, whatever the number of its ranks.

    All ranks call it, and one of them writes.

    Args:
        path: of the checkpoint.
        run: between two steps.
        metrics_size: bytes of ``metrics.jsonl`` that were written up to this step.
        parts: see ``save_checkpoint``.
        best: the content of best.pt, if it is kept as well.
    """
    rng = [torch.get_rng_state()]
    if run.device.type == "cuda":
        rng.append(torch.cuda.get_rng_state())
    origin = {"config": recorded_fields(run.config), "rng": rng, "metrics_size": metrics_size}
    origin |= {KEPT: dict(best)} if best else {}
    state = run.state.state_dict()
    if run.ranks.several:
        state["carried_states"] = {
            task: run.ranks.gather_rows(part, run.batch_size(task))
            for task, part in state["carried_states"].items()
        }
    if run.ranks.writes:
        save_checkpoint(path, state | origin, parts)


def resume_run(path: Path, run: RunContext) -> int:
    """Bring a run to the step of a checkpoint. Returns its ``metrics_size``."""
    content = load_matching(path, run.config, LAST)
    typed(content["step"], int, f"{path}: step")
    extend(content, run)
    if run.ranks.several:
        content["carried_states"] = {
            task: map_state(run.ranks.rows(run.batch_size(task)).of, part)
            for task, part in content["carried_states"].items()
        }
    content["loss_log"] = _resized(content["loss_log"], content["step"], run.state.loss_log)
    network = load_network(content, path).to(run.device)
    run.configure_network(network)
    with read_from(path):
        optimizer = optimizer_for(run.config, network, run.state.weighting)
        heads = {name: task.head_name for name, task in run.tasks.items()}
        run.state.load_state_dict(content, network, optimizer, heads)
        _check_state(run)
        run.forget_trainable_tasks()
        rng = typed(content["rng"], list[torch.Tensor], "rng")
        torch.set_rng_state(rng[0])
        if run.device.type == "cuda" and len(rng) > 1:  # the run may have begun on a CPU
            torch.cuda.set_rng_state(rng[1])
        size: int = typed(content["metrics_size"], int, "metrics_size")
        return size


def _resized(saved: Any, step: int, current: Tensor) -> Any:
    """Return a log of losses with as many rows as another one: ``evaluate.log_every`` may change.

    The loss of step k, counted from 0, is in row k modulo the number of rows.
    """
    if not isinstance(saved, Tensor) or saved.shape[:1] == current.shape[:1] or not len(saved):
        return saved
    rows = torch.full((len(current), *saved.shape[1:]), NOT_TRAINED, dtype=saved.dtype)
    for k in range(max(0, step - min(len(saved), len(rows))), step):
        rows[k % len(rows)] = saved[k % len(saved)]
    return rows


def _check_state(run: RunContext) -> None:
    """Raise ``UserError`` if the restored state is not one of this run: its tasks and its steps."""
    state = run.state
    if state.step < 0:
        raise UserError(f"step {state.step} is not one of {run.total_steps}.")
    require(state.batches_seen, run.tasks, "batches_seen")
    require(state.scores.untrained, run.attached_tasks, "untrained scores")
    if unknown := [name for name in state.due if name not in KEEPING_BEST]:
        raise UserError(f"'{unknown[0]}' is not due after a step.")
    if state.step == run.total_steps and not state.due:
        require(state.scores.best_by_task, run.tasks, "best scores")
    if not state.scores.accuracy_matrix:
        raise UserError("it has no scores before training.")
    for name, values in state.scores.untrained.items():
        keys = [metric.name for metric in run.tasks[name].metrics] if name in run.tasks else ()
        require(values, ("loss", "count", *keys), f"untrained score of '{name}'")
    for name, best in state.scores.best_by_task.items():
        require(best, ("step", "value", "validations_since", "batches_seen"), f"best of '{name}'")
    typed(state.scores.costs, list[StageCost], "costs")
    typed(state.topology_log, list[ChangeEntry], "topology_log")
    typed(state.growth.decisions, list[DecisionEntry], "decisions")
