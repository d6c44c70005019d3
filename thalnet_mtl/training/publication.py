"""Runs in repositories of the Hugging Face Hub: the network with its configuration and result."""

from collections.abc import Sequence
from pathlib import Path

from thalnet_mtl import hub
from thalnet_mtl.config.load import flatten, load_run_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.model_card import UNKNOWN_LICENSE
from thalnet_mtl.report.folding import HARMLESS, SEED_FIELD
from thalnet_mtl.runs.checksums import FILES, RESULT, check_sums
from thalnet_mtl.runs.differences import shown
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.run_files import read_environment
from thalnet_mtl.runs.summaries import RunSummary
from thalnet_mtl.training.run_card import run_card
from thalnet_mtl.training.trained_run import load_run


def publication(
    folders: Sequence[Path], repository: str, license: str = UNKNOWN_LICENSE
) -> tuple[dict[str, bytes], list[str]]:
    """Return the files of a run for a repository by name, and notes on what was left out.

    Args:
        folders: finished runs. The network is that of the first; the others are the same with
            other seeds, over which scores are averaged. If there is one, those that lie beside it
            count.
        repository: OWNER/NAME, or 'zoo:NAME' for a net of the zoo.
        license: of the weights.

    Raises:
        UserError: a run has not finished, one of its files has changed, or the runs differ in more
            than their seeds.
    """
    folder = folders[0]
    first, *repeats = [_finished(path) for path in folders]
    for run in repeats:
        if different := _differences(first, run):
            fields = "; ".join(shown(different)[:3])
            raise UserError(f"{run.path} is not {folder} with another seed: {fields}.")
    seeds, notes = [first, *repeats], list[str]()
    if not repeats:
        seeds, notes = _beside(first)
    twice = [run for k, run in enumerate(seeds) if run.seed in {r.seed for r in seeds[:k]}]
    if twice and repeats:
        raise UserError(f"{twice[0].path}: seed {twice[0].seed} is given twice.")
    notes += [f"left out: {run.path} repeats seed {run.seed}" for run in twice]
    seeds = [run for run in seeds if run not in twice]
    result = first.result
    assert result is not None
    files = {name: folder / name for name in hub.RUN} | {
        name: folder / "model" / name for name in hub.NETWORK if name != hub.CARD
    }
    contents = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    card = run_card(load_run(folder), result, seeds, repository, license)
    return {hub.CARD: card.encode()} | contents, notes


def _finished(folder: Path) -> RunSummary:
    """Return a run; raise unless it has finished and its files are as it left them."""
    config = load_run_config(folder)
    if not (folder / RESULT).exists():
        raise UserError(
            f"{folder} has not finished: 'thalnet train' with the same flags resumes it."
        )
    check_sums(folder, FILES)
    return RunSummary(folder, config, RunResult.load(folder))


def _beside(run: RunSummary) -> tuple[list[RunSummary], list[str]]:
    """Return a run and the finished runs in the same folder that differ in the seed alone."""
    seeds, notes = [run], list[str]()
    for path in sorted(run.path.resolve().parent.glob("*/config.yaml")):
        folder = path.parent
        if folder == run.path.resolve() or not (folder / RESULT).exists():
            continue
        try:
            sibling = _finished(folder)
        except UserError as error:
            notes.append(f"left out: {error}")
            continue
        if not _differences(run, sibling):
            seeds.append(sibling)
    return seeds, notes


def _differences(first: RunSummary, second: RunSummary) -> dict[str, tuple[object, object]]:
    """Return the fields in which two runs differ, with both values, and the data if it does."""
    values = _settings(first.config), _settings(second.config)
    different: dict[str, tuple[object, object]] = {
        name: (values[1].get(name, "absent"), values[0].get(name, "absent"))
        for name in values[0] | values[1]
        if values[0].get(name) != values[1].get(name)
    }
    data = [read_environment(r.path / "environment.json").get("data") for r in (first, second)]
    if not different and data[0] != data[1]:
        different["data"] = "of other checksums", "as recorded"
    return different


def _settings(config: Config) -> dict[str, object]:
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in {SEED_FIELD, *HARMLESS}
    }
