"""Memories: which sequences they hold, and how likely each is to be among them."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from toy_tasks import toy

from thalnet_mtl import registry
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.setup import set_up

SEEDS = 400


SPLITS = ("train", "validation", "test")


def numbered(name: str, count: int, classes: int = 2) -> None:
    """A task whose sequences hold their own number; class 0 is half of them, 1 a fourth, …"""

    def make() -> SequenceTask:
        xs = torch.arange(float(count)).reshape(-1, 1, 1).expand(-1, 2, 3)
        ys = torch.tensor(
            [min((k & -k).bit_length() - 1, classes - 1) for k in range(1, count + 1)]
        )
        return SequenceTask(
            name,
            lambda: dict.fromkeys(SPLITS, (xs, ys)),
            TaskSpec(3, classes, steps=2),
            scale=float(count),
        )

    register("task", name)(make)


numbered("toy_40", 40)


numbered("toy_20", 20)


numbered("toy_19", 19)


numbered("toy_rare", 320, classes=4)


@register("task", "toy_places")
def toy_places() -> TextTask:
    """A text whose tokens are their own places: 20 chunks of 7."""
    text = torch.arange(141)
    return TextTask("toy_places", lambda: dict.fromkeys(SPLITS, text), vocabulary=141)


def memory_run(tasks, experiences, **knobs) -> RunContext:
    stream = [{"tasks": names, "steps": 2} for names in experiences]
    sections = {"tasks": {name: {} for name in tasks}, "stream": stream}
    return set_up(toy(**sections, strategy=knobs, train={"strategy": "replay"}), fetch=print)


def fill(run: RunContext, seed: int = 0) -> dict[str, list[int]]:
    """Return the numbers of the sequences stored after all experiences, without training."""
    run.config = replace(run.config, train=replace(run.config.train, seed=seed))
    run.state.strategy.stored = {}
    for experience in run.stream:
        run.state.step = experience.stop
        run.state.strategy.after_experience(experience)
    numbers = {}
    for task, ((xs, ys, *_), keys) in run.state.strategy.stored.items():
        assert len(xs) == len(ys) == len(keys)
        first = xs.flatten(1)[:, 0] * (run.tasks[task].scale if xs.ndim == 3 else 1 / 7)
        numbers[task] = first.round().long().tolist()
    return numbers


@pytest.mark.parametrize("memory", [1, 7, 16, 500])
@pytest.mark.parametrize(
    "experiences",
    [
        [["toy_40"], ["toy_20"], ["toy_places"]],
        [["toy_40", "toy_20", "toy_places"], ["toy_19"]],
        [["toy_40", "toy_rare"], ["toy_20"], ["toy_40"]],
        [["toy_20", "toy_places"]],  # equally many of both
    ],
)
def test_a_memory_holds_as_many_sequences_as_it_may_and_each_once(memory, experiences):
    tasks = list(dict.fromkeys(name for names in experiences for name in names))
    run = memory_run(tasks, experiences, memory=memory)
    sizes = {"toy_40": 40, "toy_20": 20, "toy_19": 19, "toy_rare": 320, "toy_places": 20}
    stored = fill(run)
    assert sum(map(len, stored.values())) == min(memory, sum(sizes[name] for name in tasks))
    for numbers in stored.values():
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    "experiences",
    [
        [["toy_40"], ["toy_20"], ["toy_places"]],
        [["toy_places"], ["toy_19"]],
        [["toy_40", "toy_20"], ["toy_19"]],
        [["toy_40"], ["toy_20"], ["toy_40"]],
    ],
)
def test_a_reservoir_holds_every_sequence_of_all_tasks_equally_often(experiences):
    """Pearson's χ² of how often each is kept; the bound is passed by chance once in 10,000."""
    tasks = list(dict.fromkeys(name for names in experiences for name in names))
    run = memory_run(tasks, experiences, memory=12)
    counts: Counter = Counter()
    for seed in range(SEEDS):
        for task, numbers in fill(run, seed).items():
            counts.update((task, number) for number in numbers)
    sizes = {"toy_40": 40, "toy_20": 20, "toy_19": 19, "toy_places": 20}
    cells = [(task, number) for task in tasks for number in range(sizes[task])]
    assert counts.keys() <= set(cells)
    share = 12 / len(cells)
    squares = sum((counts[cell] - SEEDS * share) ** 2 for cell in cells)
    freedom = len(cells) - 1
    statistic = squares / (SEEDS * share * (1 - share)) * freedom / len(cells)
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5
    for task in tasks:  # and no task more than its share, to four standard deviations
        total = sum(counts[task, number] for number in range(sizes[task]))
        part = sizes[task] / len(cells)
        spread = (SEEDS * 12 * part * (1 - part)) ** 0.5
        assert abs(total - SEEDS * 12 * part) < 4 * spread, task


def test_what_is_kept_of_one_task_says_nothing_of_another_learned_with_it():
    """The number kept of one of two equal tasks is hypergeometric, not half of the room."""
    run = memory_run(["toy_20", "toy_places"], [["toy_20", "toy_places"]], memory=12)
    counts = torch.tensor([len(fill(run, seed)["toy_20"]) for seed in range(SEEDS)]).double()
    variance = 12 * 0.25 * (40 - 12) / 39
    assert counts.mean().item() == pytest.approx(6, abs=4 * (variance / SEEDS) ** 0.5)
    assert counts.var().item() == pytest.approx(variance, rel=0.3)


def test_an_earlier_member_of_a_reservoir_never_comes_back():
    """A reservoir only loses what it had, but for tasks that are learned again."""
    run = memory_run(["toy_40", "toy_20", "toy_19"], [["toy_40"], ["toy_20"], ["toy_19"]], memory=9)
    before: set = set()
    for experience in run.stream:
        run.state.step = experience.stop
        run.state.strategy.after_experience(experience)
        now = {
            (task, x)
            for task, ((xs, *_), _) in run.state.strategy.stored.items()
            for x in xs.flatten(1)[:, 0].tolist()
        }
        new = set(experience.tasks)
        assert {cell for cell in now if cell[0] not in new} <= before
        before = now


def test_a_memory_is_the_same_for_the_same_seed_only():
    run = memory_run(["toy_40", "toy_20"], [["toy_40"], ["toy_20"]], memory=12)
    assert fill(run, 5) == fill(run, 5) != fill(run, 6)


def test_the_answers_that_are_kept_are_those_of_their_sequences():
    run = memory_run(["toy_rare", "toy_places"], [["toy_rare"], ["toy_places"]], memory=50)
    numbers = fill(run)
    (_, ys, *_), _ = run.state.strategy.stored["toy_rare"]
    right = run.tasks["toy_rare"].split("train").ys[torch.tensor(numbers["toy_rare"])]
    assert torch.equal(ys, right)
    (xs, ys, *_), _ = run.state.strategy.stored["toy_places"]
    assert torch.equal(xs + 1, ys) and xs.shape[1] == 7


@pytest.mark.parametrize("memory", [8, 13, 40])
def test_per_class_keeps_as_many_of_each_class_of_each_task(memory):
    tasks = ["toy_rare", "toy_40", "toy_places"]
    run = memory_run(tasks, [[task] for task in tasks], memory=memory, choice="per_class")
    quota = memory // (4 + 2 + 1)  # a text is of one class
    for seed in range(5):
        numbers = fill(run, seed)
        assert sum(map(len, numbers.values())) == 7 * quota <= memory
        for task, classes in (("toy_rare", 4), ("toy_40", 2)):
            ys = run.state.strategy.stored[task].data.ys.tolist()
            assert Counter(ys) == dict.fromkeys(range(classes), quota), task
        assert len(numbers["toy_places"]) == quota


def test_per_class_holds_every_sequence_of_a_class_equally_often():
    run = memory_run(["toy_40", "toy_20"], [["toy_40"], ["toy_20"]], memory=16, choice="per_class")
    counts: Counter = Counter()
    for seed in range(SEEDS // 2):
        counts.update(fill(run, seed)["toy_40"])
    ys = run.tasks["toy_40"].split("train").ys.tolist()
    for number in range(40):
        chance = 4 / ys.count(ys[number])
        spread = (SEEDS / 2 * chance * (1 - chance)) ** 0.5
        assert abs(counts[number] - SEEDS / 2 * chance) < 4 * spread


def test_a_memory_too_small_for_every_class_is_refused():
    with pytest.raises(UserError, match=r"strategy.memory 5 holds no .*must be at least 6"):
        memory_run(["toy_rare", "toy_40"], [["toy_rare"], ["toy_40"]], memory=5, choice="per_class")
    memory_run(["toy_rare", "toy_40"], [["toy_rare"], ["toy_40"]], memory=6, choice="per_class")


def rare_task(shape: str) -> SequenceTask:
    """A task of 4,000 sequences, of which 3 are of class 2; they hold their own number."""
    xs = torch.arange(4000.0).reshape(-1, 1, 1).expand(-1, 2, 3)
    ys = torch.arange(4000) % 2
    ys[[5, 1000, 3999]] = 2
    kind = "labels" if shape == "labels" else "class"
    if shape == "labels":
        ys = torch.nn.functional.one_hot(ys, 3).float()
        ys[:, 0] = 1.0  # every sequence has the common label as well
    elif shape == "every step":
        ys = torch.stack([torch.zeros_like(ys), ys], 1)
    spec = TaskSpec(3, 3, every_step=shape == "every step", steps=2)
    return SequenceTask("rare", dict.fromkeys(SPLITS, (xs, ys)), spec, target=kind, scale=4000.0)


@pytest.mark.parametrize("shape", ["one class", "every step", "labels"])
def test_a_balanced_memory_keeps_what_is_rare_whatever_the_shape_of_the_targets(shape):
    with registry.registered("task", {"toy_rare_shape": lambda: rare_task(shape)}):
        run = memory_run(
            ["toy_rare_shape", "toy_40"], [["toy_rare_shape"], ["toy_40"]],
            memory=23, choice="per_class",
        )  # fmt: skip
        for seed in range(4):
            numbers = fill(run, seed)
            assert {5, 1000, 3999} <= set(numbers["toy_rare_shape"])
            assert sum(map(len, numbers.values())) == 23
            others = [k % 2 for k in numbers["toy_rare_shape"] if k not in (5, 1000, 3999)]
            assert others.count(0) == others.count(1) == 5  # what is rare leaves room to others
            assert len(numbers["toy_40"]) == 10


def test_a_task_without_classes_in_a_balanced_memory_is_announced():
    run = memory_run(["toy_places", "toy_40"], [["toy_places"], ["toy_40"]], choice="per_class")
    assert run.state.strategy.notice.startswith("strategy.choice per_class: toy_places has no")
    assert not memory_run(["toy_places"], [["toy_places"]]).state.strategy.notice


def test_a_balanced_memory_holds_sequences_with_the_changes_of_training_batches():
    def noisy(batch, generator):
        return batch._replace(xs=batch.xs + 100)

    def make():
        xs, ys = torch.rand(20, 2, 3), torch.arange(20) % 2
        return SequenceTask("noisy", dict.fromkeys(SPLITS, (xs, ys)), transform=noisy)

    with registry.registered("task", {"toy_noisy": make}):
        for choice in ("reservoir", "per_class"):
            run = memory_run(["toy_noisy"], [["toy_noisy"]], memory=6, choice=choice)
            run.state.strategy.after_experience(run.stream[0])
            stored = run.state.strategy.stored["toy_noisy"]
            assert len(stored.keys) == 6 and (stored.data.xs > 50).all()
