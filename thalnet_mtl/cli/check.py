"""``thalnet data check``: what the data of a configuration looks like, before it is trained."""

import argparse

from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import UserError


def check_data(options: argparse.Namespace) -> int:
    """Print shapes, ranges, classes, lengths and examples of every task of a configuration."""
    if not options.names:
        raise UserError("data check needs a configuration: thalnet data check CONFIG.")
    configs = load_configs(options.names, options.flags)
    from thalnet_mtl.console import Console
    from thalnet_mtl.tasks.description import describe_task
    from thalnet_mtl.training.setup import check_tasks, fetch_with, make_tasks

    console, shown = Console(), []
    for config in configs.values():
        if config.named_tasks in shown:  # the runs of a file often differ in their body only
            continue
        shown.append(config.named_tasks)
        tasks = make_tasks(config)
        for number, task in enumerate(tasks.values()):
            if task.source:
                fetch_with(console)(task.source)
            if number or len(shown) > 1:
                console.print("")
            for line in describe_task(task.load("cpu"), config.train.chunk):
                console.print(line)
        check_tasks(config, tasks)
    return 0
