"""The command line: ``thalnet VERB …``. Exit status 0, 2 for a user's mistake, 1 otherwise."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from thalnet_mtl.cli.parser import Parser, split_flags
from thalnet_mtl.config.load import config_names, described_fields, load_configs, with_seeds
from thalnet_mtl.errors import RunError, UserError, unknown
from thalnet_mtl.runs.names import run_folders, run_name, safe_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors that a person can act on are one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        rest, flags = split_flags(given)
        options = parser().parse_args(rest)
        if flags and options.run not in (train, sweep):
            raise UserError(f"--{next(iter(flags))} is a flag of 'thalnet train' and 'sweep' only.")
        options.flags, options.command = flags, given
        return options.run(options)
    except UserError as error:
        print(f"thalnet: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"thalnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("thalnet: interrupted; what was saved before is kept", file=sys.stderr)
        return 1


def train(options: argparse.Namespace) -> int:
    """Train as configured, show the results and write the report."""
    runs = load_configs(options.config, options.flags)
    name = run_name(options.config, options.flags)
    if options.seeds or options.stacked:
        runs, name = with_seeds(runs, options.seeds, options.flags), f"{name}-seeds"
    out = options.out or Path("runs") / name
    from thalnet_mtl.console import Console
    from thalnet_mtl.training.stacked import check, train_stacked
    from thalnet_mtl.training.trainer import Interrupted, train

    screen = Console()
    folders = {out / name if name else out: config for name, config in runs.items()}
    count = len(options.seeds) if options.stacked else 1  # of runs at a time
    pairs = iter(folders.items())
    for config in runs.values() if options.stacked else ():
        check(config)  # all of them, before the first is trained
    while job := dict(islice(pairs, count)):
        folder, config = next(iter(job.items()))
        if len(runs) > 1:
            names = ", ".join(folder.name for folder in job)
            screen.print(f"{names}: {config.model.body} on {', '.join(config.named_tasks)}")
        try:
            if options.stacked:
                train_stacked(job, screen)
            elif config.train.strategy.startswith("avalanche:"):
                from thalnet_mtl.avalanche.runner import train as train_by_avalanche

                train_by_avalanche(config, folder, screen)
            else:
                train(config, folder, screen)
        except (Interrupted, KeyboardInterrupt) as stop:
            what = str(stop) or "interrupted; the last checkpoint is kept"
            raise RunError(f"{what}. {_to_go_on(options)}") from None
    _show(list(folders))
    _write_report(list(folders), out / "report.html")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Train all combinations of values and seeds, each in a process."""
    from thalnet_mtl.sweep import plan as grid

    bases, values = load_configs(options.config, options.flags), grid.parse(options.grid)
    plan = grid.plan(bases, values, options.seeds, options.flags)
    name = safe_name("-".join([run_name(options.config, options.flags), "sweep", *values]))
    from thalnet_mtl.report import terminal as tables
    from thalnet_mtl.sweep.sweep import Sweep
    from thalnet_mtl.sweep.workers import make_workers

    workers = make_workers(options.on, options.jobs)
    with closing(workers), closing(Sweep(options.out or Path("runs") / name, bases, plan)) as made:
        try:
            made.run(workers)
        except RunError as stop:
            raise RunError(f"{stop}. {_to_go_on(options)}") from None
    _console().print(tables.sweep_table(plan, made.status, made.out, made.failures))
    print(f"record: {made.out / 'sweep.json'}")
    failed = [name for name, status in made.status.items() if status == "failed"]
    mistakes = [name for name in failed if made.entries[name].exit_status == 2]
    return 0 if not failed else 2 if failed == mistakes else 1


def evaluate(options: argparse.Namespace) -> int:
    """Score the best weights of a run on one part of its data."""
    from thalnet_mtl.console import Console
    from thalnet_mtl.training.evaluate import evaluate as score
    from thalnet_mtl.training.evaluate import lesions
    from thalnet_mtl.training.setup import choose_device, set_matmul_precision
    from thalnet_mtl.training.trained_run import load_run

    run = load_run(options.folder)
    screen, device = Console(), choose_device(run.config.train.device)
    run.network.to(device)
    if device.type == "cuda":
        set_matmul_precision(run.config.train.precision, device)
    look, chunk = run.config.evaluate, run.config.train.chunk
    if (options.batches or 0) < 0:
        raise UserError(f"--batches must be at least 0, got {options.batches}.")
    batches = look.batches if options.batches is None else options.batches
    limit = f" in {batches} batches" if batches else ""
    for name in [options.task] if options.task else run.tasks:
        task = run.task(name)
        if task.source:
            screen.fetch(task.source)
        data = task.load(device), options.split, look.batch, chunk, batches
        values = score(run.network, *data)
        metric, which = task.metric, f"{name}: " if len(run.tasks) > 1 else ""
        screen.print(
            f"{which}{options.split} {metric.name} {metric.format(values[metric.name])}, loss "
            f"{values['loss']:.4f} nats, {values['count']:,} answers{limit}, "
            f"weights of step {run.step:,}"
        )
        for module, found in (lesions(run.network, *data) if options.lesions else {}).items():
            screen.print(f"  without {module}: {metric.format(found[metric.name])}")
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print runs side by side, and against single-task runs if some are named."""
    _show(options.runs, options.baseline)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write one HTML file on one or several runs."""
    _write_report(options.runs, options.out or options.runs[0] / "report.html", options.baseline)
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Print the modules of a run, its tasks, and what was changed in training."""
    from thalnet_mtl.report import terminal as tables

    _console().print(tables.topology_table(options.folder))
    return 0


def data(options: argparse.Namespace) -> int:
    """Fetch data, or list what is there."""
    from rich.table import Table

    from thalnet_mtl.console import Console
    from thalnet_mtl.tasks import datasets

    for name in options.names:
        if name not in ("all", *datasets.SOURCES):
            raise unknown("data set", name, ["all", *datasets.SOURCES])
    names = options.names if options.names and "all" not in options.names else datasets.SOURCES
    if options.action == "fetch":
        if not options.names:
            raise UserError(f"fetch what? Allowed: all, {', '.join(datasets.SOURCES)}.")
        for name in names:
            Console().fetch(name)
    table = Table("data", "size", "from", "license", box=None, pad_edge=False)
    for status in (status for status in datasets.statuses() if status.name in names):
        size = f"{status.bytes / 1e6:.1f} MB" if status.stored else "absent"
        table.add_row(status.name, size, status.source, status.license)
    _console().print(table)
    print(datasets.root())
    return 0


def list_entries(options: argparse.Namespace) -> int:
    """Print the names that a configuration may use."""
    from rich.table import Table

    if options.kind == "configs":
        rows = config_names()
    else:
        from thalnet_mtl.registry import entries

        singular = {"bodies": "body", "strategies": "strategy"}
        kind = singular.get(options.kind, options.kind.removesuffix("s"))
        found = entries(kind)
        rows = {name: (entry.__doc__ or "").partition("\n")[0] for name, entry in found.items()}
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows.items():
        table.add_row(name, text)
    _console().print(table)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a run's network in a form that other programs read."""
    from thalnet_mtl.models.export import export as write
    from thalnet_mtl.training.trained_run import load_run

    print(write(load_run(options.folder), options.to, options.out, options.task))
    return 0


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = Parser(prog="thalnet", description="Train, compare and look at ThalNet.")
    verbs = top.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    def verb(run: Any, name: str = "", **options: Any) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name or run.__name__,
            help=run.__doc__,
            description=run.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        made.set_defaults(run=run)
        return made

    alone = verb(
        train,
        epilog=_fields(),
        usage="thalnet train CONFIG [CONFIG ...] [--out DIR] [--seeds N ... [--stacked]]\n"
        "                     [--section.field value ...]",
    )
    many = verb(
        sweep,
        epilog="The same command again resumes; more seeds or values add to what is there.\n"
        "--on ray: the cluster that RAY_ADDRESS names, else one on this machine. DIR must\n"
        "be on a file system that all nodes share. Fields: thalnet train --help",
        usage="thalnet sweep CONFIG [CONFIG ...] [--out DIR] [--seeds N ...] [--jobs N]\n"
        "                     [--grid section.field=value,value ...] [--on ray]\n"
        "                     [--section.field value ...]",
    )
    for made in alone, many:
        made.add_argument("config", nargs="+", metavar="CONFIG", help="name or YAML; later win")
        made.add_argument("--out", type=Path, metavar="DIR", help="directory (runs/CONFIG)")
        made.add_argument(
            "--seeds", type=int, nargs="+", default=[], metavar="N", help="a run each"
        )
    alone.add_argument("--stacked", action="store_true", help="all seeds side by side")
    many.add_argument("--grid", nargs="+", action="extend", default=[], metavar="KEY=A,B",
                      help="values of a field, a run each")  # fmt: skip
    many.add_argument("--jobs", type=int, metavar="N", help="runs at a time (as many as cores)")
    many.add_argument("--on", choices=("ray",), help="a cluster, instead of this machine")
    made = verb(evaluate)
    made.add_argument("folder", type=Path, metavar="RUN")
    made.add_argument("--task", metavar="NAME", help="one of the run's tasks; else all")
    made.add_argument("--split", default="test", choices=("train", "validation", "test"))
    made.add_argument("--batches", type=int, metavar="N", help="at most so many; 0: all")
    made.add_argument("--lesions", action="store_true", help="and with each module silent")
    for made in (verb(compare), verb(report)):
        made.add_argument("runs", type=Path, nargs="+", metavar="RUN")
        made.add_argument("--baseline", type=Path, nargs="+", action="extend", default=[],
                          metavar="RUN", help="finished runs of a single task each")  # fmt: skip
    made.add_argument("--out", type=Path, metavar="FILE", help="RUN/report.html")
    made = verb(inspect)
    made.add_argument("folder", type=Path, metavar="RUN")
    made = verb(data)
    made.add_argument("action", choices=("fetch", "ls"))
    made.add_argument("names", nargs="*", metavar="NAME", help="data sets, or all")
    made = verb(list_entries, "list")
    kinds = "configs", "tasks", "bodies", "modules", "readings", "strategies"
    made.add_argument("kind", choices=kinds)
    made = verb(export)
    made.add_argument("folder", type=Path, metavar="RUN")
    made.add_argument("--to", required=True, choices=("safetensors", "torch", "onnx"))
    made.add_argument("--task", metavar="NAME", help="torch, onnx: whose step, of several tasks")
    made.add_argument("--out", type=Path, metavar="FILE", help="RUN/export/…")
    return top


def _fields() -> str:
    lines = [f"  --{name}\n      {text} ({default})" for name, default, text in described_fields()]
    return "\n".join(["fields and defaults:", *lines])


def _to_go_on(options: argparse.Namespace) -> str:
    return f"To go on: {shlex.join(['thalnet', *options.command])}"


def _console() -> Any:
    """Standard output; what is not a terminal has room for long lines."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 200
    return Console(highlight=False, width=wide)


def _show(folders: Sequence[Path], baselines: Sequence[Path] = ()) -> None:
    from thalnet_mtl.report import terminal as tables

    _console().print(tables.runs_table(run_folders(folders), run_folders(baselines)))


def _write_report(folders: Sequence[Path], out: Path, baselines: Sequence[Path] = ()) -> None:
    from thalnet_mtl.report import html as report

    print(f"report: {report.write(run_folders(folders), out, run_folders(baselines))}")


if __name__ == "__main__":
    sys.exit(main())
