"""``thalnet evaluate``: score a trained network on one split of its data."""

import argparse

from thalnet_mtl.cli.parser import RUN, Commands, add_command, path, whole_number
from thalnet_mtl.errors import UserError


def add_evaluate_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, evaluate)
    parser.add_argument("folder", type=path, metavar="RUN", help=RUN)
    parser.add_argument("--task", metavar="NAME", help="one task of the run; default: all")
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="part of the data (default: test)",
    )
    parser.add_argument(
        "--batches", type=whole_number, metavar="N",
        help="maximum number of batches; 0: all (default: as in the run)",
    )  # fmt: skip
    parser.add_argument(
        "--lesions",
        action="store_true",
        help="also score the network with each module lesioned, and record it for 'thalnet report'",
    )


def evaluate(options: argparse.Namespace) -> int:
    """Score the best weights of a run on one split of its data."""
    from thalnet_mtl.console import Console
    from thalnet_mtl.metrics.metric import format_scores
    from thalnet_mtl.published import is_published
    from thalnet_mtl.runs.lesions import TaskLesions, record_lesions
    from thalnet_mtl.tasks.description import column_scores, shown_columns
    from thalnet_mtl.tasks.evaluation import Evaluation
    from thalnet_mtl.training.devices import choose_device, set_matmul_precision
    from thalnet_mtl.training.evaluate import evaluate as score
    from thalnet_mtl.training.evaluate import lesions
    from thalnet_mtl.training.setup import fetch_with
    from thalnet_mtl.training.trained_run import load_run

    run = load_run(options.folder)
    console, device = Console(), choose_device(run.config.train.device)
    run.network.to(device)
    if device.type == "cuda":
        set_matmul_precision(run.config.train.precision)
    settings, chunk = run.config.evaluate, run.config.train.chunk
    if (options.batches or 0) < 0:
        raise UserError(f"--batches must be at least 0, got {options.batches}.")
    batches = settings.batches if options.batches is None else options.batches
    limit = f" in {batches} batches" if batches else ""
    tasks = {name: run.task(name) for name in ([options.task] if options.task else run.tasks)}
    console.print(f"scoring the weights of step {run.step:,} …")
    recorded = dict[str, TaskLesions]()
    for name, task in tasks.items():
        if task.source:
            fetch_with(console)(task.source)
        data = task.load(device), options.split, settings.batch, chunk, batches
        evaluation = Evaluation(task, shown_columns(task))
        values = score(run.network, *data, evaluation=evaluation)
        prefix = f"{name}: " if len(run.tasks) > 1 else ""
        scaled = " (standardized)" if task.scalings[1] else ""  # scores are in units of the data
        console.print(
            f"{prefix}{options.split} {format_scores(task.metrics, values)}, loss "
            f"{values['loss']:.4f}{scaled}, {values['count']:,} targets{limit}"
        )
        for line in column_scores(task, evaluation):
            console.print(line)
        if options.lesions:
            without = lesions(run.network, *data)
            for module, scores in without.items():
                console.print(f"  without {module}: {format_scores(task.metrics, scores)}")
            names = [metric.name for metric in task.metrics]
            each = {module: {n: s[n] for n in names} for module, s in without.items()}
            intact = {n: values[n] for n in names}
            recorded[name] = TaskLesions(run.step, options.split, batches, intact, each)
    if recorded and not is_published(options.folder):
        console.print(f"recorded for reports: {record_lesions(run.folder, recorded)}")
    return 0
