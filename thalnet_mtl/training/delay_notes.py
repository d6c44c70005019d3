"""Notes on tasks whose answers come too early for the last inputs of a sequence."""

from collections.abc import Iterator

from thalnet_mtl.models.delay import unseen_steps
from thalnet_mtl.training.context import RunContext


def delay_notes(run: RunContext) -> Iterator[str]:
    """Yield a line on the tasks whose answers do not depend on the last inputs, by their number.

    Only before the first step: later, connections that are still zero may hide a path.
    """
    tasks: dict[int, list[str]] = {}
    for name in run.attached_tasks if run.step == 0 else ():
        if unseen := unseen_steps(run.network, run.tasks[name].head_name):
            tasks.setdefault(unseen, []).append(name)
    for unseen, names in tasks.items():
        who = f"{names[0]} answers" if len(names) == 1 else f"{len(names)} tasks answer"
        inputs = "the last input" if unseen == 1 else f"the last {unseen} inputs"
        steps = f"extra_steps {unseen}" if run.config.model.sub_steps == 1 else "extra_steps"
        yield f"note: {who} without {inputs}: use model.{steps}"
