"""A search for settings: trials of every arm, the choice on validation, the winners with new seeds.

The folder holds the runs of the trials in ``trials``, those of the winners in ``winners``, and the
record of everything in ``tuning.json``. The same command resumes it; with more trials or new seeds
it adds to what is there.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import FolderLock, attempt, make_folder, read_fields, write_text
from thalnet_mtl.json_fields import from_fields
from thalnet_mtl.runs.names import FORMER, TRIALS, TUNING, WINNERS
from thalnet_mtl.sweep.arms import Arm, first_experiences, new_seeds
from thalnet_mtl.sweep.plan import MOST_RUNS, PlannedRun
from thalnet_mtl.sweep.queue import RunQueue, SweepEntry
from thalnet_mtl.sweep.sampler import random_values
from thalnet_mtl.sweep.sweep import SweepRecord
from thalnet_mtl.sweep.trials import ArmRecord, Settings, Trials, describe_values


@dataclass
class TuningRecord:
    """The content of ``tuning.json``."""

    command: list[str]  # the last one
    space: dict[str, str]  # distributions by field, as the command gives them
    keys: list[str]  # of the grid
    sampler: str
    tuning_seed: int
    seeds: list[int]  # of every trial
    tuned_on: dict[str, int]  # experiences that trials train, by arm; 0 without a stream
    at_a_time: int  # trials of an arm that TPE suggests before it sees their scores
    arms: dict[str, ArmRecord] = field(default_factory=dict)
    trial_runs: dict[str, SweepEntry] = field(default_factory=dict)
    winner_runs: dict[str, SweepEntry] = field(default_factory=dict)
    former_winner_runs: dict[str, SweepEntry] = field(default_factory=dict)


class Tuning:
    """The folder of a search for settings, locked for one process.

    Args:
        out: the folder.
        arms: the arms.
        settings: what is asked for.
        space: distributions by field, as the command gives them.
        command: for the record.
        check: raises ``UserError`` if a configuration cannot be built. It is called for the first
            trial of every arm that has none yet, before any is trained.

    Raises:
        UserError: a trial cannot be built, or the folder holds something else.
    """

    def __init__(
        self,
        out: Path,
        arms: Sequence[Arm],
        settings: Settings,
        space: Mapping[str, str],
        command: Sequence[str],
        check: Callable[[Config], object],
    ):
        self.out, self.arms = out, arms
        known = read_fields(out / TUNING).get("arms") if (out / TUNING).exists() else None
        new = [arm for arm in arms if not isinstance(known, dict) or arm.name not in known]
        _check_first_trials(new, settings, check)
        for file, kind in (("config.yaml", "a run"), ("sweep.json", "a sweep without trials")):
            if (out / file).exists():
                raise UserError(f"{out} is the directory of {kind}. Give --out DIR.")
        self.lock = FolderLock(out)
        try:
            self.record = self._read(settings, space, command)
            for arm in arms:
                entry = ArmRecord(arm.run, dict(arm.point), dict(arm.left_out))
                self.record.arms.setdefault(arm.name, entry)
            recorded = max(len(self.record.arms[arm.name].trials) for arm in arms)
            if recorded > settings.trials:
                raise UserError(
                    f"{out} holds {recorded} trials of an arm; give --trials {recorded} or more."
                )
            # The number at a time is recorded, so that TPE goes on with the same trials.
            self.settings = Settings(**{**vars(settings), "at_a_time": self.record.at_a_time})
            self.trials = Trials(
                out / TRIALS, arms, self.settings, self.record.arms, self.record.trial_runs,
                self.write,
            )  # fmt: skip
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock of the folder."""
        self.lock.release()

    def _read(
        self, settings: Settings, space: Mapping[str, str], command: Sequence[str]
    ) -> TuningRecord:
        """Read the record, or begin one; raise if it belongs to another tuning."""
        new = TuningRecord(
            list(command), dict(space), list(self.arms[0].point), settings.sampler,
            settings.tuning_seed, list(settings.seeds), dict(settings.tuned_on),
            settings.at_a_time,
        )  # fmt: skip
        path = self.out / TUNING
        if not path.exists():
            return new
        record = from_fields(TuningRecord, read_fields(path), str(path))
        record.seeds, record.keys = list(record.seeds), list(record.keys)
        new.tuned_on = record.tuned_on | new.tuned_on
        record.tuned_on = new.tuned_on | record.tuned_on  # arms may have been added
        for name in ("space", "keys", "sampler", "tuning_seed", "seeds", "tuned_on"):
            recorded, asked = getattr(record, name), getattr(new, name)
            if recorded != asked:
                title = name.replace("_", " ")
                raise UserError(
                    f"{self.out} holds a tuning with another {title}, {_shown(recorded)}, not "
                    f"{_shown(asked)}. Give --out DIR."
                )
        for name, arm in record.arms.items():
            names = {run for trial in arm.trials for run in trial.runs}
            numbers = [trial.number for trial in arm.trials]
            if names - set(record.trial_runs) or numbers != list(range(len(numbers))):
                raise UserError(f"{path} is damaged: the trials of '{name}' are incomplete.")
        record.command = list(command)
        return record

    def write(self) -> None:
        """Write ``tuning.json``, and the record of the winners as one of a sweep."""
        self.trials.update()
        _write(self.out / TUNING, self.record)
        path = self.out / WINNERS / "sweep.json"  # by which tables say what is missing
        if self.record.winner_runs or path.exists():
            _write(path, SweepRecord(self.record.keys, self.record.winner_runs))

    def choose(self) -> None:
        """Choose the winner of every arm, once all trials have ended."""
        for arm in self.arms:
            record = self.record.arms[arm.name]
            best = record.best(self.settings.trials)
            record.winner = best.number if best else None
        self.write()

    @property
    def chosen(self) -> dict[str, ArmRecord]:
        """Records of the arms of this command, by name."""
        return {arm.name: self.record.arms[arm.name] for arm in self.arms}

    def confirm(self, count: int) -> RunQueue:
        """Plan the runs of the winners with new seeds, the same for all arms.

        Runs of an earlier winner, which had the best score before there were more trials, are
        moved to another folder.

        Args:
            count: of seeds.
        """
        planned, stems = [], []
        for arm in self.arms:
            record = self.record.arms[arm.name]
            if record.winner is None:
                continue
            stem = f"{arm.name}-trial{record.winner:02}".removeprefix("-")
            values = record.trials[record.winner].values
            stems.append(f"{stem}-seed")
            for seed in new_seeds(count, self.settings.seeds):
                config = arm.configure(values, seed)
                point = {**arm.point, **values}
                planned.append(PlannedRun(f"{stem}-seed{seed}", arm.run, point, seed, config))
        self._move_former(stems)
        runs = self.record.winner_runs
        return RunQueue(self.out / WINNERS, planned, runs, self.write)

    def _move_former(self, stems: Sequence[str]) -> None:
        """Move runs between the folders of winners, so that only present winners are in theirs.

        Args:
            stems: beginnings of the names of the runs of present winners.
        """
        winners, former = self.record.winner_runs, self.record.former_winner_runs
        names = [f"{arm.name}-trial".removeprefix("-") for arm in self.arms]
        for name in [*winners, *former]:
            wins = any(name.startswith(stem) for stem in stems)
            if not any(name.startswith(start) for start in names) or wins == (name in winners):
                continue  # of an arm that is not asked for, or in its place
            old, new = (FORMER, WINNERS) if wins else (WINNERS, FORMER)
            source, target = self.out / old / name, self.out / new / name
            if source.exists():
                with attempt(f"move {source} to {target}"):
                    make_folder(target.parent)
                    os.replace(source, target)
            source_runs, target_runs = (former, winners) if wins else (winners, former)
            target_runs[name] = source_runs.pop(name)
        self.write()


def _check_first_trials(
    arms: Sequence[Arm], settings: Settings, check: Callable[[Config], object]
) -> None:
    """Raise if the first trial of an arm, or the whole run with its values, cannot be built."""
    runs = len(arms) * settings.trials * len(settings.seeds)
    if runs > MOST_RUNS:
        raise UserError(f"{runs:,} runs of trials are over {MOST_RUNS:,}.")
    for arm in arms:
        values = arm.trial_values(random_values(arm.space, settings.tuning_seed, 0))
        whole, count = arm.configure(values, 0), settings.tuned_on[arm.name]
        where = f"{arm.name}, trial 0".removeprefix(", ") + f" ({describe_values(values)})"
        try:
            check(whole)
            where += f", on {count} of {arm.experiences} experiences (--tune-on)"
            if 0 < count < len(whole.stream):
                check(first_experiences(whole, count))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _write(path: Path, record: TuningRecord | SweepRecord) -> None:
    write_text(path, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")


def _shown(value: object) -> str:
    """Return a value of the record on a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={part}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
