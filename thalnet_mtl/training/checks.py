"""Checks of a configuration before anything is built, and notices of options without effect."""

from collections.abc import Iterator

from thalnet_mtl.config.declarations import declaration, fact
from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.options import without_options
from thalnet_mtl.config.schema import Config, ModuleConfig
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.training.search.kinds import KINDS, REUSING
from thalnet_mtl.training.support import defaults_by_field, pattern

BASELINES = ("gru", "lstm", "mlp")


def check_joint_options(config: Config) -> None:
    """Raise if options contradict each other, or name what is not there; nothing is imported.

    Raises:
        UserError: with the option, and the closest name where one is unknown.
    """
    check_names(config)
    check_trackers(config)
    check_only_scored(config)
    check_inputs_of(config)
    check_epoch_of(config)
    check_stream_options(config)
    if config.start.optimizer and config.start.weights != "last":
        raise UserError(
            "start.optimizer: the state of an optimizer belongs to the last weights; give "
            "start.weights last as well."
        )


def check_names(config: Config) -> None:
    """Raise if the optimizer, the combination of losses or a part of a ThalNet does not exist."""
    model, train = config.model, config.train
    declaration("optimizer", train.optimizer)
    try:
        declaration("weighting", train.combine)
    except UserError as error:
        raise UserError(f"train.combine: {error}") from None
    if model.body == "thalnet":
        for part in config.modules.values() or [ModuleConfig()]:
            declaration("reading", part.reading or model.reading)
            declaration("module", part.module or model.module)


def check_trackers(config: Config) -> None:
    """Raise if a tracker does not exist, or is named twice."""
    names = [tracker.name for tracker in config.trackers]
    for number, name in enumerate(names):
        try:
            declaration("tracker", name)
        except UserError as error:
            raise UserError(f"trackers: {error}") from None
        if name in names[:number]:
            raise UserError(f"trackers: '{name}' is given twice.")


def check_only_scored(config: Config) -> None:
    """Raise if every task is only scored, or one has a head that no other task trains."""
    named, trained = config.named_tasks, config.trained_tasks
    if not trained:
        raise UserError("every task is only scored, so there is none to train.")
    heads = [named[name].head or name for name in trained]
    for name, entry in named.items():
        head = entry.head or name
        if entry.only_scored and head not in heads:
            raise UserError(
                f"tasks.{name}.only_scored: nothing trains its head '{head}'. Give it the head of "
                f"a trained task with 'head': {', '.join(dict.fromkeys(heads))}."
            )


def check_inputs_of(config: Config) -> None:
    """Raise if a task cannot take its inputs from the task that it names."""
    for name, entry in config.tasks.items():
        if not entry.inputs_of:
            continue
        where, names = f"tasks.{name}.inputs_of", [task for task in config.tasks if task != name]
        if entry.inputs_of not in names:
            raise UserError(f"{where}: {unknown('task', entry.inputs_of, names)}")
        source = config.tasks[entry.inputs_of]
        if source.inputs_of:
            raise UserError(
                f"{where} {entry.inputs_of}: that task has its inputs from '{source.inputs_of}'; "
                f"name '{source.inputs_of}'."
            )
        size = source.batch or config.train.batch
        if entry.batch not in (0, size):
            raise UserError(
                f"tasks.{name}.batch {entry.batch}: the task takes the batches of "
                f"'{entry.inputs_of}', of {size} sequences; leave it at its default."
            )
        if config.train.draw:
            raise UserError(
                f"{where}: with train.draw a step trains one task, so that no pass serves two; "
                f"leave one of the two options at its default."
            )


def check_epoch_of(config: Config) -> None:
    """Raise if ``train.epoch_of`` names a task that an experience does not train."""
    choice = config.train.epoch_of
    if choice in ("shortest", "longest"):
        return
    if choice not in config.trained_tasks:
        allowed = ["shortest", "longest", *config.trained_tasks]
        raise UserError(f"train.epoch_of: {unknown('task', choice, allowed)}")
    for number, experience in enumerate(config.stream, 1):
        if choice not in experience.tasks:
            raise UserError(
                f"train.epoch_of {choice}: experience {number} does not train that task. Allowed: "
                f"shortest, longest, or a task of every experience."
            )


def check_stream_options(config: Config) -> None:
    """Raise if the stream names a task that is not there, or other options contradict it."""
    for task in (task for experience in config.stream for task in experience.tasks):
        if task not in config.named_tasks:
            raise UserError(f"stream: {unknown('task', task, config.named_tasks)}")
    if config.changes and fact("growth", config.growth.when, "grows", True):
        raise UserError("growth and changes cannot be combined; give one of them.")
    check_expected(config)


def check_expected(config: Config) -> None:
    """Raise if the answer key of a stream names a candidate that no decision can choose.

    Raises:
        UserError: with the experience, and the closest name where one is unknown.
    """
    heads: list[str] = []
    for number, experience in enumerate(config.stream, 1):
        names = [config.named_tasks[task].head or task for task in experience.tasks]
        new = [head for head in dict.fromkeys(names) if head not in heads]
        where = f"stream: experience {number}: expect"
        if experience.expect and not (heads and new):
            why = "it has no new task" if heads else "it is the first"
            raise UserError(f"{where}: nothing is decided in this experience, since {why}.")
        for answer in experience.expect:
            kind, of, source = answer.partition(" of ")
            if kind not in KINDS:
                raise UserError(f"{where}: {unknown('candidate', kind, KINDS)}")
            if of and kind not in REUSING:
                raise UserError(f"{where}: '{kind}' reuses no earlier task; write '{kind}'.")
            if of and source not in heads:
                raise UserError(f"{where}: {unknown('earlier task', source, heads)}")
        heads += new


def without_effect(config: Config) -> list[str]:
    """Return a line for every option that is not at its default and has no effect, and why."""
    defaults, lines = defaults_by_field(), dict[str, str]()
    changed = [
        path
        for path, value in flatten(without_options(config)).items()
        if value != defaults.get(pattern(path))
    ]
    for option, reason in ineffective_options(config):
        if any(path == option or path.startswith(f"{option}.") for path in changed):
            lines.setdefault(option, f"{option} has no effect: {reason}")
    return list(lines.values())


def fixed_length(config: Config) -> str:
    """Return why a run of a configuration cannot go on to more steps; '' if it can."""
    train, growth = config.train, config.growth.when
    if config.stream:
        return "a stream ends with its last experience"
    if train.schedule != "constant":
        return f"its learning rates follow train.schedule {train.schedule} to the last step"
    if growth != "never":
        return f"growth.when {growth} plans with the number of steps"
    if not fact("strategy", train.strategy, "resumable", True):
        return f"train.strategy {train.strategy} cannot be saved"
    return ""


def ineffective_options(config: Config) -> Iterator[tuple[str, str]]:
    """Yield options that have no effect whatever their value, and the reason."""
    train, growth, body = config.train, config.growth, config.model.body
    joint = len(config.trained_tasks) > 1
    for name, entry in config.tasks.items():
        if entry.only_scored:
            for field in ("weight", "share", "reset", "batch"):
                yield f"tasks.{name}.{field}", "the task is only scored"
        yield from [] if joint else [(f"tasks.{name}.share", "only one task is trained")]
        yield from [] if train.draw else [(f"tasks.{name}.share", "train.draw is 0")]
    for option in () if joint else ("combine", "draw", "epoch_of"):
        yield f"train.{option}", "only one task is trained"
    late = fact("strategy", train.strategy, "only_after_experience", False)
    if len(config.stream) < 2 and late:
        yield "train.strategy", "it acts after an experience, and there is only one experience"
    for option in () if fact("growth", growth.when, "grows", True) else ("policy", "modules"):
        yield f"growth.{option}", f"growth.when is {growth.when}"
    names = [task for experience in config.stream for task in experience.tasks]
    heads = {config.named_tasks[name].head if name in config.named_tasks else "" for name in names}
    within = growth.options.get("every") or growth.options.get("prune")
    waits = fact("growth", growth.when, "needs_new_tasks", False) and not within
    if len(heads) == 1 and any(heads) and waits:
        yield "growth.when", f"all tasks share the head '{min(heads)}', so that none is new"
    answered = [number for number, experience in enumerate(config.stream) if experience.expect]
    decides = fact("growth", growth.when, "decides", True)
    for number in () if decides else answered[:1]:  # one line for all
        yield f"stream.{number}.expect", f"growth.when is {growth.when}"
    for option in () if config.start.run else ("weights", "optimizer", "frozen"):
        yield f"start.{option}", "start.run names no network"
    taken = ["modules", "model.modules", "model.layers"] if config.start.run else []
    if taken and not (config.changes or growth.when != "never"):
        sizes = ("features", "context", "hidden", "module", "reading", "budget")
        taken += [f"model.{name}" for name in sizes]
    yield from ((option, "the network is that of start.run") for option in taken)
    if body == "thalnet":
        yield "model.layers", "model.body is thalnet"
    if config.modules:
        yield "model.modules", "'modules' names them"
    if body in BASELINES:
        for option in ("modules", "module", "reading", "context", "hidden"):
            yield f"model.{option}", f"model.body is {body}"
        yield "train.ops", f"model.body is {body}"
