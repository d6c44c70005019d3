"""Costs of a long stream: operations are counted, because seconds depend on the machine."""

import json
import re
import sys
from io import StringIO

import pytest
from page_parts import panels
from rich import console as rich_console
from toy_tasks import toy, toy_rows

from thalnet_mtl.console import Console
from thalnet_mtl.models import cost
from thalnet_mtl.report import html
from thalnet_mtl.report.terminal import runs_table
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.trainer import train

COUNT = 20
# Experiences whose operations are counted.
EARLY, MIDDLE, LATE = range(3, 7), range(10, 14), range(17, 21)
NAMES = [f"t{number:02}" for number in range(COUNT)]
STREAM = {
    "tasks": {name: {} for name in NAMES},
    "stream": [{"tasks": [name], "steps": 2} for name in NAMES],
}
SIDE = {"features": 3, "output": True, "tasks": ["new"], "reads": ["input", "side"]}
GROWTH = {"when": "per_task", "modules": {"side": SIDE}}


class Counter:
    """Calls of functions, in Python and in C, by experience."""

    def __init__(self):
        self.calls, self.experience = dict[int, int](), 0

    def begin(self, experience):
        self.experience = experience
        self.resume()

    def resume(self):
        sys.setprofile(self.add if self.experience in (*EARLY, *MIDDLE, *LATE) else None)

    def add(self, frame, event, argument):
        if event in ("call", "c_call"):
            self.calls[self.experience] = self.calls.get(self.experience, 0) + 1

    def without(self, function):
        """A function whose calls are not counted."""

        def call(*arguments, **options):
            sys.setprofile(None)
            try:
                return function(*arguments, **options)
            finally:
                self.resume()

        return call

    def mean(self, experiences):
        return sum(self.calls[number] for number in experiences) / len(experiences)


def count_operations(patch, config, folder):
    """Train, and return the counter, the tasks whose multiply-adds were counted, and the output.

    The scores of all tasks, which grow with the matrix of scores, are left out.
    """
    counter, counted, said = Counter(), [], StringIO()
    real = Trainer.after_step

    def after_step(trainer, losses):
        real(trainer, losses)
        if trainer.run.step == trainer.run.last_experience.stop:
            counter.begin(trainer.run.last_experience.number + 1)

    def count_macs(network, task, xs):
        counted.append(task)
        return count(network, task, xs)

    count = counter.without(cost.count_macs)
    patch.setattr(Trainer, "after_step", after_step)
    patch.setattr(RunContext, "scores", counter.without(RunContext.scores))
    patch.setattr(RunDirectory, "log", counter.without(RunDirectory.log))
    patch.setattr(cost, "count_macs", count_macs)
    try:
        console = rich_console.Console(file=said, width=100, soft_wrap=True)
        train(config, folder, Console(console), {name: toy_rows() for name in NAMES})
    finally:
        sys.setprofile(None)
    return counter, counted, said.getvalue()


def configuration(**sections):
    evaluate = {"every": 2, "batches": 1, "batch": 10, "log_every": 1}
    return toy(**STREAM, train={"batch": 4}, evaluate=evaluate, **sections)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A finished stream of many tasks, its counts and its output."""
    folder = tmp_path_factory.mktemp("never") / "run"
    with pytest.MonkeyPatch.context() as patch:
        return folder, *count_operations(patch, configuration(), folder)


def test_an_experience_at_the_end_costs_what_one_at_the_start_does(stream):
    _, counter, _, _ = stream
    assert counter.mean(LATE) < 1.1 * counter.mean(EARLY)


def test_multiply_adds_are_counted_once_for_a_task_whose_network_does_not_change(stream):
    folder, _, counted, _ = stream
    assert sorted(counted) == NAMES
    stages = json.loads((folder / "result.json").read_text())["continual"]["stages"]
    assert [list(stage["multiply_adds"]) for stage in stages] == [NAMES] * (COUNT + 1)
    assert len({str(stage["multiply_adds"]) for stage in stages}) == 1


def test_a_network_that_grows_is_counted_and_looked_through_a_few_times_an_experience(
    tmp_path, monkeypatch
):
    counter, counted, _ = count_operations(monkeypatch, configuration(growth=GROWTH), tmp_path)
    assert sorted(counted) == NAMES  # frozen tasks keep theirs
    # What is done for each module is done once, not once for every other module or task.
    early, middle, late = map(counter.mean, (EARLY, MIDDLE, LATE))
    assert late - middle < 1.3 * (middle - early)


def test_the_output_of_a_long_stream_can_be_read(stream):
    folder, _, _, said = stream
    lines = said.splitlines()
    assert len(lines) < 6 * COUNT
    validations = [line for line in lines if "validation:" in line]
    assert len(validations) == COUNT
    assert max(map(len, validations)) < 200
    score = r"accuracy [\d.]+ %"
    expected = (
        rf"step 40 +validation: t19 {score}; mean accuracy of 20 tasks so far .*, worst t\d\d"
    )
    assert re.search(expected, validations[-1])
    shown = StringIO()
    rich_console.Console(file=shown, width=80).print(runs_table([folder]))
    assert "mean of 20 tasks" in shown.getvalue() and shown.getvalue().count("worst:") == 3
    assert len(shown.getvalue().splitlines()) < 60


def test_the_report_of_a_long_stream_can_be_opened(stream):
    folder, _, _, _ = stream
    page = html.write([folder], folder / "report.html").read_text()
    assert len(page) < 1_000_000
    [curves], [splits] = panels(page, "curves"), panels(page, "splits")
    assert len(curves["tasks"]) == len(splits["metrics"][0]["rows"]) == 20
    [matrix] = panels(page, "matrix")
    assert len(matrix["scores"]) == COUNT + 1
    assert "<img" not in page
