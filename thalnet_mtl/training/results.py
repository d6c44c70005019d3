"""The results of a run: scores of its best weights, its costs, its topology and its readings."""

import time
from collections import ChainMap
from pathlib import Path
from typing import Any

from thalnet_mtl.files import write_text
from thalnet_mtl.metrics.summary import (
    ContinualSummary,
    StageCost,
    stream_measures,
    summarize,
)
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.size import parameter_counts
from thalnet_mtl.models.snapshot import topology_snapshot
from thalnet_mtl.runs.decisions import count_decisions
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.results import BestScore, ParameterCounts, RunResult, SplitScores, TaskResult
from thalnet_mtl.runs.topology_file import ChangeEntry, DecisionEntry
from thalnet_mtl.training.checkpoint import load_matching, load_network, save_checkpoint
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.readings import save_readings
from thalnet_mtl.training.unknown_task import fit_paths, unknown_task_scores


def write_results(run: RunContext, directory: RunDirectory) -> RunResult:
    """Score the best weights of a run on all splits, and write everything that it leaves.

    From then on the network of the run is the best one.
    """
    start = time.monotonic()
    folder, scores = directory.folder, run.state.scores
    load_best(run, best := folder / "checkpoint" / "best.pt")
    if run.continual:  # by now it refers to files of parts; for itself it can be moved
        save_checkpoint(best, load_matching(best, run.config))
    fit_paths(run, [name for e in run.stream for name in e.tasks])  # that of an early stop
    result = RunResult(
        body=run.config.model.body,
        tasks=task_results(run),
        best_step=scores.best_step,
        steps=run.step,
        parameters=ParameterCounts(**parameter_counts(run.network)),
        seed=run.seed,
        seconds=round(run.state.timers.seconds + time.monotonic() - start, 2),
        train_seconds=round(run.state.timers.train_seconds, 2),
        evaluation_batches=run.config.evaluate.batches,
        continual=continual_summary(run) if run.continual else None,
        decisions=count_decisions(run.config.stream, decision_entries(run)),
    )
    run.network.save(folder / "model", config=run.config, result=result.to_json())
    if run.config.unknown_tasks:
        run.state.paths.save(folder / "model")
    save_readings(run, folder / "model" / "reading_weights.safetensors")
    write_accuracy_matrix(run, result, folder / "accuracy_matrix.csv")
    write_topology(run, directory, scores.best_step)
    directory.write_result(result)
    return result


def load_best(run: RunContext, path: Path) -> None:
    """Give a run the network of its best step."""
    run.state.network = load_network(load_matching(path, run.config), path).to(run.device)
    run.configure_network(run.network)


def task_results(run: RunContext) -> dict[str, TaskResult]:
    """Return the results on all tasks, with scores of the network as it is."""
    with evaluation_mode(run.network):
        return {name: task_result(run, name) for name in run.tasks}


def task_result(run: RunContext, name: str) -> TaskResult:
    """Return the results on a task, with scores of the network as it is.

    As many batches of the training split are scored as of the test split, for scores to compare.
    """
    task, state, options = run.tasks[name], run.state.scores, run.config.named_tasks[name]
    values = {
        "train": run.score(name, "train", run.test_batches(name)),
        "validation": run.score(name, "validation"),
        "test": run.score(name, "test"),
        "untrained": state.untrained[name],
    }
    best = state.best_by_task[name]
    return TaskResult(
        label=task.label,
        kind=options.name,
        source=task.source,
        classes=task.spec.outputs,
        metrics=task.metrics,
        scores={
            split: SplitScores(
                {metric.name: scores[metric.name] for metric in task.metrics},
                scores["loss"],
                int(scores["count"]),
            )
            for split, scores in values.items()
        },
        guess={split: run.guess(name, split) for split in ("validation", "test")},
        best_validation=BestScore(int(best["step"]), best["value"]),
        unknown_task=unknown_task_scores(run, name) if options.unknown else None,
    )


def continual_summary(run: RunContext) -> ContinualSummary:
    """Summarize a run over several experiences."""
    growth, grows = run.config.growth, run.state.rule.grows
    return summarize(
        {name: task.metric for name, task in run.tasks.items()},
        [experience.tasks for experience in run.stream],
        run.state.scores.accuracy_matrix,
        scenario=scenario(run),
        strategy=run.config.train.strategy,
        growth=f"{growth.when}, {growth.policy}" if grows else growth.when,
        ends=[experience.stop for experience in run.stream],
        stages=stage_costs(run),
        guess={name: run.guess(name, "test")[task.metric.name] for name, task in run.tasks.items()},
        kept=run.state.stopping.kept,
    )


def measures_so_far(run: RunContext) -> dict[str, float]:
    """Return the measures of a stream after its last experience so far, as far as they are known.

    They are those of ``metrics.summary.MEASURES``, of the tasks that were trained.
    """
    scores = run.state.scores.accuracy_matrix
    trained = [experience.tasks for experience in run.stream[: len(scores) - 1]]
    metrics = {name: run.tasks[name].metric for tasks in trained for name in tasks}
    kinds = {metric.name for metric in metrics.values()}
    guess = {name: run.guess(name, "test") for name in metrics} if len(kinds) > 1 else {}
    measures = stream_measures(
        metrics,
        trained,
        [[row.get(task) for task in metrics] for row in scores],
        {name: values[metrics[name].name] for name, values in guess.items()},
    )
    return {name: m.mean for name, m in measures.items() if m.mean is not None}


def scenario(run: RunContext) -> str:
    """Return the kind of continual learning, which follows from the heads and the classes.

    Tasks with heads of their own are task-incremental. Tasks of one head are class-incremental if
    those that are new to an experience have only classes that are new as well, domain-incremental
    if they have none, and both if they have some.
    """
    tasks = [run.tasks[name] for name in run.config.trained_tasks]
    heads = {task.head_name for task in tasks}
    if run.announced and len(heads) == len(tasks):
        return "task-incremental"
    if len(heads) > 1:
        return "task-incremental, some heads shared"
    seen_tasks, seen, kinds = set[str](), set[int](), set[str]()
    for experience in run.stream:
        new_tasks = set(experience.tasks) - seen_tasks
        classes = {c for name in new_tasks for c in run.tasks[name].classes_seen}
        if seen_tasks and new_tasks:
            kinds |= {"class"} if classes - seen else set()
            kinds |= {"domain"} if classes & seen or not classes else set()
        seen_tasks, seen = seen_tasks | new_tasks, seen | classes
    told = "" if run.announced else ", hidden boundaries"
    return f"{'- and '.join(sorted(kinds)) or 'domain'}-incremental{told}"


def measure_cost(run: RunContext) -> dict[str, Any]:
    """Return parameter counts, multiply-adds for a sequence of each task, and stored bytes.

    The latter are what the strategy keeps; None if it does not say. Of the multiply-adds, those are
    left out that are equal to the last ones in the state of the run.
    """
    known = dict(ChainMap(*(cost["multiply_adds"] for cost in reversed(run.state.scores.costs))))
    macs = {name: run.multiply_adds(name) for name in run.attached_tasks}
    macs = {name: count for name, count in macs.items() if count != known.get(name)}
    stored = run.state.strategy.stored_bytes()
    return parameter_counts(run.network) | {"multiply_adds": macs, "stored_bytes": stored}


def stage_costs(run: RunContext) -> list[StageCost]:
    """Return the costs of all stages, each with the multiply-adds of every task that has a head."""
    stages, known = [], dict[str, int]()
    for cost in run.state.scores.costs:
        known |= cost["multiply_adds"]
        macs = {name: known[name] for name in run.tasks if name in known}
        stages.append(StageCost(**cost | {"multiply_adds": macs}))
    return stages


def write_accuracy_matrix(run: RunContext, result: RunResult, path: Path) -> None:
    """Write test scores before training and after every experience, a row each.

    A cell is empty while a task has no head.
    """
    matrix = run.state.scores.accuracy_matrix
    if not run.continual:
        matrix = [*matrix, {name: task.test for name, task in result.tasks.items()}]
    rows = [",".join(["stage", *run.tasks])]
    for stage, row in enumerate(matrix):
        rows.append(",".join([str(stage), *(str(row.get(name, "")) for name in run.tasks)]))
    write_text(path, "\n".join(rows) + "\n")


def write_topology(run: RunContext, directory: RunDirectory, step: int) -> None:
    """Write ``topology.json``: modules and tasks after a step, and all changes so far."""
    if run.network.body.graph is not None:
        history = [ChangeEntry(**entry) for entry in run.state.topology_log]
        snapshot = topology_snapshot(run.network, step, history, decision_entries(run))
        directory.write_json("topology.json", snapshot.to_json())


def decision_entries(run: RunContext) -> list[DecisionEntry]:
    """Return all decisions of the search so far."""
    decisions = run.state.growth.decisions
    return [DecisionEntry.from_json(decision, "decisions") for decision in decisions]
