"""``thalnet sweep``: train all combinations of values and seeds, or tune settings."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from thalnet_mtl.cli.output import announce_imports, print_table, print_unused, resume_hint
from thalnet_mtl.cli.parser import Commands, add_command, add_config_arguments, whole_number
from thalnet_mtl.cli.slurm import check_slurm, submit, submit_runs
from thalnet_mtl.config.load import key_names_something, load_configs
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import RunError, UserError, one_line
from thalnet_mtl.runs.names import TUNING, WINNERS, run_name, safe_name

if TYPE_CHECKING:
    from thalnet_mtl.sweep.plan import PlannedRun
    from thalnet_mtl.sweep.queue import RunQueue
    from thalnet_mtl.sweep.ray_tasks import RayTasks
    from thalnet_mtl.sweep.space import Sample
    from thalnet_mtl.sweep.workers import LocalWorkers

SEARCH = ("sample", "sampler", "tuning_seed", "tune_on", "confirm")  # options that need --trials
EPILOG = """The same command resumes a sweep; with more seeds or values it adds runs to it.
Fields of --grid, of --sample and flags: see 'thalnet train --help'.
Where there are GPUs, runs use all of them, K at a time on each; a run sees one
GPU. CUDA_VISIBLE_DEVICES limits them; --train.device cpu uses the cores.
With --on ray, runs go to the cluster that RAY_ADDRESS names, or to one that is
started on this machine; all nodes must share the file system of DIR.
With --on slurm, they are submitted as a job array (of several, where there are
more than SLURM's MaxArraySize) by the script DIR/slurm.sh; --jobs N limits how
many run at a time. Given again, the command says what is done, queued or has
failed, and submits what is neither done nor queued:
  thalnet sweep digits --seeds 0 1 2 --on slurm --sbatch '--gpus=1 --time=30'
With --trials, the same command submits the winners once all trials have ended.

tuning, a search for settings:
  thalnet sweep continual/split_mnist --grid train.strategy=naive,ewc,replay
      --trials 16 --sample train.learning_rate=log:1e-4,1e-2
      model.modules=int:2,4 ewc:strategy.strength=log:1,1e4 --confirm 6

  --grid gives the arms, which all get --trials trials. A trial trains with one
  value of each field of --sample:
    log:low,high      log-uniform between two ends, both above 0; where a field
                      takes whole numbers, rounded to them
    uniform:low,high  uniform between two ends
    int:low,high      whole numbers, both ends included
    value,value,...   one of these values
  VALUE:section.field=... is for the arms that have VALUE in the grid, and
  replaces what is given for all. Numbers have four significant digits. At
  random, all arms get the same values; a field that an arm does not have is
  left out there, and the output says so.

  The best trial of each arm is chosen by its validation score (the mean over
  tasks and seeds); a failed trial counts, and is never chosen. --confirm N
  trains each winner with N new seeds, in DIR/winners: 'thalnet table
  DIR/winners' compares them. DIR/tuning.json records everything. With more
  --trials, trials are added."""


def add_sweep_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        sweep,
        epilog=EPILOG,
        usage="thalnet sweep CONFIG [CONFIG ...] [--out DIR] [--seeds N ...] [--jobs N]\n"
        "                     [--per-gpu K] [--on ray | --on slurm [--sbatch OPTIONS]]\n"
        "                     [--grid section.field=value,value ...]\n"
        "                     [--trials N --sample section.field=DISTRIBUTION ...\n"
        "                      [--sampler tpe] [--tune-on K] [--confirm N]]\n"
        "                     [--section.field value ...]",
    )
    add_config_arguments(parser)
    parser.add_argument("--grid", nargs="+", action="extend", default=[], metavar="KEY=A,B",
                        help="values of a field: runs, or arms of --trials")  # fmt: skip
    parser.add_argument("--jobs", type=whole_number, metavar="N",
                        help="runs at a time (one per GPU; without GPUs, per core)")  # fmt: skip
    parser.add_argument(
        "--per-gpu", type=whole_number, metavar="K", help="runs at a time on each GPU (1)"
    )
    parser.add_argument(
        "--on", choices=("ray", "slurm"), help="run on a cluster, not on this machine"
    )
    parser.add_argument("--sbatch", metavar="OPTIONS",
                        help="with --on slurm: options of sbatch, quoted")  # fmt: skip
    parser.add_argument("--trials", type=whole_number, metavar="N",
                        help="tuning: trials of every arm")  # fmt: skip
    parser.add_argument("--sample", nargs="+", action="extend", default=[], metavar="KEY=…",
                        help="distribution of a field in the trials; see below")  # fmt: skip
    parser.add_argument("--sampler", choices=("random", "tpe"),
                        help="tpe learns from earlier trials (random)")  # fmt: skip
    parser.add_argument("--tuning-seed", type=whole_number, metavar="N",
                        help="seed of the sampled values (0)")  # fmt: skip
    parser.add_argument("--tune-on", metavar="K",
                        help="stream: experiences that trials train on, or all (2)")  # fmt: skip
    parser.add_argument("--confirm", type=whole_number, metavar="N",
                        help="train winners with N seeds that no trial used")  # fmt: skip


def sweep(options: argparse.Namespace) -> int:
    """Train all combinations of values and seeds, or tune settings."""
    from thalnet_mtl.sweep.plan import options_without_effect, parse, plan

    check_slurm(options)
    announce_imports()
    grid, sampled = parse(options.grid), _sampled(options)
    keys = dict.fromkeys([*grid, *(sample.key for sample in sampled)])
    bases = load_configs(options.config, options.flags, swept=keys)
    planned = plan(bases, grid, [] if sampled else options.seeds, options.flags)
    for line in options_without_effect(bases, planned):
        print(f"note: {one_line(line)}")
    if not any(key_names_something(key) for key in keys if key not in grid):
        print_unused([planned_run.config for planned_run in planned])
    from thalnet_mtl.training.checks import check_joint_options
    from thalnet_mtl.training.flags import changed_values, check_effect

    configs = [planned_run.config for planned_run in planned]
    for config in configs:
        check_joint_options(config)
    check_effect(configs, options.flags)
    check_effect(configs, grid, "--grid {}")
    flags = changed_values(options.config, options.flags, keys)
    kind = "trials" if sampled else "sweep"
    name = safe_name("-".join([run_name(options.config, flags), kind, *keys]))
    out = options.out or Path("runs") / name
    if sampled:
        return _search(options, bases, planned, sampled, out)
    from thalnet_mtl.sweep.summary import sweep_table
    from thalnet_mtl.sweep.sweep import Sweep
    from thalnet_mtl.sweep.workers import make_workers

    check = _check_after(f"{out}: {len(planned)} runs")
    if options.on == "slurm":
        return _status([submit(options, bases, planned, out, check)])
    workers = make_workers(options.on, options.jobs, options.per_gpu, _find_gpus(planned))
    with closing(workers), closing(Sweep(out, bases, planned, check)) as runs:
        options.began = True
        try:
            runs.run(workers)
        except RunError as stop:
            raise RunError(f"{stop}; {resume_hint(options)}") from None
    print_table(sweep_table(planned, runs.status, runs.out, runs.failures))
    print(f"record: {one_line(str(runs.out / 'sweep.json'))}")
    return _status([runs])


def _find_gpus(planned: "Sequence[PlannedRun]") -> Callable[[], tuple[str, ...]] | None:
    """Return the function that finds the GPUs for these runs, None if they use none."""

    def find() -> tuple[str, ...]:
        from thalnet_mtl.training.devices import visible_gpus  # imports torch

        return visible_gpus()

    return find if any(run.config.train.device != "cpu" for run in planned) else None


def _sampled(options: argparse.Namespace) -> "list[Sample]":
    """Return the sampled fields of a search for settings, [] for a sweep without one.

    Raises:
        UserError: an option of a search is wrong, or stands without a search.
    """
    from thalnet_mtl.sweep.sampler import check_sampler
    from thalnet_mtl.sweep.space import parse_samples

    if options.trials is None:
        for name in SEARCH:
            if getattr(options, name) not in (None, []):
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is for tuning: give --trials N as well.")
        return []
    if not options.sample:
        raise UserError("--trials needs --sample: fields, and the values to try.")
    for name in ("trials", "confirm"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    check_sampler(options.sampler)
    return parse_samples(options.sample)


def _search(
    options: argparse.Namespace,
    bases: Mapping[str, Config],
    planned: "Sequence[PlannedRun]",
    sampled: "Sequence[Sample]",
    out: Path,
) -> int:
    """Search for the settings of every arm of a grid, and train the winners with new seeds."""
    from rich.console import Group

    from thalnet_mtl.report.layout import Note
    from thalnet_mtl.sweep.arms import experiences_to_tune_on, make_arms, trial_seeds
    from thalnet_mtl.sweep.trials import Settings
    from thalnet_mtl.sweep.tuning import Tuning
    from thalnet_mtl.sweep.tuning_summary import announcement, choice_table
    from thalnet_mtl.sweep.workers import make_workers
    from thalnet_mtl.training.flags import reason_without_effect

    arms = make_arms(bases, planned, sampled, options.flags, reason_without_effect)
    find_gpus, slurm = _find_gpus(planned), options.on == "slurm"
    workers = None if slurm else make_workers(options.on, options.jobs, options.per_gpu, find_gpus)
    settings = Settings(
        trials=options.trials,
        sampler=options.sampler or "random",
        tuning_seed=options.tuning_seed or 0,
        seeds=trial_seeds(arms, options.seeds, options.flags),
        tuned_on=experiences_to_tune_on(options.tune_on, {a.name: a.experiences for a in arms}),
        at_a_time=-(-workers.count // len(arms)) if workers else 1,
    )
    space, command = {s.name: s.text for s in sampled}, ["thalnet", *options.command]
    check = _check_after(f"{out}: {options.trials} trials of {len(arms)} arms")
    with (
        closing(workers) if workers else nullcontext(),
        closing(Tuning(out, arms, settings, space, command, check)) as tuning,
    ):
        options.began = True
        print_table(Group(*map(Note, announcement(arms, settings))))
        try:
            _train(options, tuning.trials, workers, "trial runs")
            if slurm and not tuning.trials.has_ended:
                print("when all trials have ended, the same command chooses the winners")
                _print_failures(tuning.trials)
                return _status([tuning.trials])
            tuning.choose()
            print_table(choice_table(tuning.chosen, settings))
            winners = tuning.confirm(options.confirm or 0)
            if options.confirm:
                print(f"winners with {options.confirm} new seeds:")
                _train(options, winners, workers)
        except RunError as stop:
            raise RunError(f"{stop}; {resume_hint(options)}") from None
    _print_failures(tuning.trials)
    _print_failures(winners)
    if options.confirm:
        print(f"winners: thalnet table {shlex.quote(str(out / WINNERS))}")
    print(f"record: {one_line(str(out / TUNING))}")
    without = [name for name, record in tuning.chosen.items() if record.winner is None]
    return _status([winners, *([tuning.trials] if without else [])])


def _train(
    options: argparse.Namespace,
    queue: "RunQueue",
    workers: "LocalWorkers | RayTasks | None",
    noun: str = "runs",
) -> None:
    """Train the runs of a queue, or, without workers, submit them to SLURM."""
    if workers:
        queue.run(workers, noun)
    else:
        submit_runs(options, queue, noun)


def _print_failures(queue: "RunQueue") -> None:
    """Print the runs that have failed and are tried again, if there are any."""
    from rich.console import Group

    from thalnet_mtl.report.layout import Note

    if queue.failures:
        again = "the same command tries again what has not diverged:"
        print_table(Group(*map(Note, [again, *queue.failures])))


def _check_after(line: str) -> Callable[[Config], None]:
    """Return a function that raises if a configuration cannot be built.

    It prints the line before it imports PyTorch, which a finished sweep does not need.
    """

    def check(config: Config) -> None:
        if "torch" not in sys.modules:
            print_table(Note(line))
        from thalnet_mtl.training.setup import check_buildable

        check_buildable(config)

    from thalnet_mtl.report.layout import Note

    return check


def _status(queues: "Sequence[RunQueue]") -> int:
    """Return 0 if no run failed, 2 if all that failed are mistakes of the user, otherwise 1."""
    failed = [
        queue.entries[name]
        for queue in queues
        for name, status in queue.status.items()
        if status == "failed"
    ]
    by_user = [entry for entry in failed if entry.exit_status == 2]
    return 0 if not failed else 2 if failed == by_user else 1
