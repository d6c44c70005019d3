"""Experiences one after another: spans, rates, rows of the accuracy matrix, and what is refused."""

import json
import math

import pytest
import yaml
from run_fixtures import lines, matrix
from toy_tasks import GROWING, STREAM, toy

from thalnet_mtl import cli
from thalnet_mtl.avalanche.names import STRATEGIES
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.tasks.stream import make_stream
from thalnet_mtl.training.sampling import sample_tasks
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trainer import train

TASKS = list(STREAM["tasks"])


def spans(entries, **options):
    config = toy(tasks=STREAM["tasks"], stream=entries, train=options)
    sizes = {"toy_rows": 30, "toy_wide": 20, "toy_text": 28}
    found = make_stream(config, lambda tasks: min(sizes[name] for name in tasks))
    return [(one.number, one.tasks, one.start, one.stop) for one in found]


def test_experiences_follow_one_another_each_as_long_as_it_says():
    entries = [
        {"tasks": ["toy_wide"], "steps": 5},
        {"tasks": ["toy_rows", "toy_text"], "steps": 7},
        {"tasks": ["toy_wide", "toy_rows"]},
    ]
    assert spans(entries, steps=11) == [
        (1, ("toy_wide",), 0, 5),
        (2, ("toy_rows", "toy_text"), 5, 12),
        (3, ("toy_wide", "toy_rows"), 12, 23),
    ]


def test_an_experience_without_steps_has_epochs_of_its_own_tasks():
    entries = [{"tasks": ["toy_rows"]}, {"tasks": ["toy_rows", "toy_wide", "toy_text"]}]
    found = spans(entries, steps=0, epochs=3)
    assert [stop - start for *_, start, stop in found] == [90, 60]


def test_without_a_stream_all_tasks_are_one_experience():
    assert spans([], steps=9) == [(1, tuple(TASKS), 0, 9)]
    assert spans([], steps=0, epochs=2) == [(1, tuple(TASKS), 0, 40)]


def test_the_next_step_belongs_to_the_experience_that_it_is_in():
    run = set_up(toy(**STREAM), fetch=print)
    numbers = []
    for run.state.step in (0, 19, 20, 39, 40, 59, 60):
        numbers.append(run.experience.number)
    assert numbers == [1, 1, 2, 2, 3, 3, 3] and run.total_steps == 60
    run.state.step = 25
    assert run.active_tasks == sample_tasks(run) == ["toy_wide"] and run.epoch == 20


def test_the_learning_rate_begins_anew_with_every_experience():
    entries = [
        {"tasks": ["toy_rows"], "steps": 10},
        {"tasks": ["toy_wide", "toy_text"], "steps": 6},
    ]
    options = {"schedule": "cosine", "warmup": 2, "learning_rate": 0.5}
    run = set_up(toy(tasks=STREAM["tasks"], stream=entries, train=options), fetch=print)
    rates = []
    for run.state.step in range(16):
        rates.append(run.learning_rate())
    expected = []
    for steps in (10, 6):
        expected += [0.25, 0.5]
        expected += [0.25 * (1 + math.cos(math.pi * k / (steps - 2))) for k in range(steps - 2)]
    assert rates == pytest.approx(expected)


# What is written


def scores_of(folder) -> dict[int, dict[str, str]]:
    """Logged test scores by step and task."""
    found: dict[int, dict[str, str]] = {}
    for x in lines(folder):
        if x["split"] == "test" and x["metric"] in ("accuracy", "bits_per_character"):
            assert x["task"] not in found.setdefault(x["step"], {})
            found[x["step"]][x["task"]] = str(x["value"])
    return found


def test_the_accuracy_matrix_holds_all_tasks_before_and_after_every_experience(tmp_path):
    result = train(toy(**STREAM), tmp_path).to_json()
    header, rows = matrix(tmp_path)
    assert header == ["stage", *TASKS]
    assert [row.pop("stage") for row in rows] == ["0", "1", "2", "3"]
    logged = scores_of(tmp_path)
    assert rows == [logged[step] for step in (0, 20, 40, 60)]
    assert all(row[name] for row in rows for name in TASKS)
    assert len({tuple(row.values()) for row in rows}) == 4
    for name, task in result["tasks"].items():
        assert rows[0][name] == str(task["untrained"][task["metric"]])
        assert rows[-1][name] == str(task["test"][task["metric"]])
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["continual"]["trained"] == [[name] for name in TASKS]
    assert result["continual"]["strategy"] == "naive"
    assert result["best_step"] == result["steps"] == 60


@pytest.mark.parametrize("growing", ["frozen", "plateau"])
def test_a_cell_is_empty_until_its_task_has_a_head(tmp_path, growing):
    result = train(toy(**STREAM, growth=GROWING[growing]), tmp_path).to_json()
    _, rows = matrix(tmp_path)
    there = [[bool(row[name]) for name in TASKS] for row in rows]
    assert there == [
        [True, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    logged = scores_of(tmp_path)
    assert {name: value for name, value in rows[2].items() if value and name != "stage"} == {
        name: logged[40][name] for name in TASKS[:2]
    }
    # A task is scored untrained when it gets its head: before its first step.
    assert list(logged) == [0, 20, 40, 60]
    assert logged[20].keys() == {"toy_rows", "toy_wide"}
    for name, step in zip(TASKS, (0, 20, 40), strict=True):
        task = result["tasks"][name]
        assert logged[step][name] == str(task["untrained"][task["metric"]])


def test_tasks_that_share_a_head_are_scored_from_when_it_is_there(tmp_path):
    tasks = {
        "a": {"name": "toy_rows", "head": "rows"},
        "wide": {"name": "toy_wide"},
        "b": {"name": "toy_turned", "head": "rows"},
    }
    entries = [{"tasks": [name], "steps": 6} for name in tasks]
    train(toy(tasks=tasks, stream=entries, growth=GROWING["shared"]), tmp_path)
    _, rows = matrix(tmp_path)
    assert [[bool(row[name]) for name in tasks] for row in rows] == [
        [True, False, True],
        [True, False, True],
        [True, True, True],
        [True, True, True],
    ]
    topology = json.loads((tmp_path / "topology.json").read_text())
    assert list(topology["tasks"]) == ["rows", "wide"]


def test_a_training_loss_is_logged_only_for_what_was_learned_since_the_last_line(tmp_path):
    train(toy(**STREAM), tmp_path)
    steps: dict[str, list[int]] = {}
    for x in lines(tmp_path):
        if (x["split"], x["metric"]) == ("train", "loss"):
            steps.setdefault(x["task"], []).append(x["step"])
    assert steps == {"toy_rows": [8, 16, 20], "toy_wide": [24, 32, 40], "toy_text": [48, 56, 60]}


def test_a_logged_training_loss_is_the_mean_since_the_last_line(tmp_path, monkeypatch):
    seen = []
    real = TrainStep.__call__

    def watching(self, inputs):
        losses = real(self, inputs)
        seen.append(
            {name: x for name, x in zip(self.run.tasks, losses.tolist(), strict=True) if x >= 0}
        )
        return losses

    monkeypatch.setattr(TrainStep, "__call__", watching)
    entries = [
        {"tasks": ["toy_rows"], "steps": 13},
        {"tasks": ["toy_rows", "toy_wide"], "steps": 9},
    ]
    tasks = {"toy_rows": {}, "toy_wide": {}}
    train(toy(tasks=tasks, stream=entries), tmp_path)
    logged = {
        x["step"]: x["value"]
        for x in lines(tmp_path)
        if (x["task"], x["split"], x["metric"]) == ("toy_rows", "train", "loss")
    }
    losses = [one["toy_rows"] for one in seen]
    last = 0
    assert list(logged) == [8, 13, 16, 22]
    for step, value in logged.items():
        assert value == pytest.approx(sum(losses[last:step]) / (step - last), rel=1e-6)
        last = step


def test_a_stream_of_one_experience_is_the_run_without_a_stream(tmp_path):
    tasks = {"toy_rows": {}, "toy_wide": {}}
    short = {"tasks": tasks, "train": {"steps": 20}}
    one = train(toy(**short), tmp_path / "a").to_json()
    other = train(toy(**short, stream=[{"tasks": list(tasks)}]), tmp_path / "b").to_json()
    assert {**one, "seconds": 0, "train_seconds": 0} == {**other, "seconds": 0, "train_seconds": 0}
    assert "stream" not in other
    for name in ("model/model.safetensors", "accuracy_matrix.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_task_that_is_learned_again_goes_on_in_its_data_and_its_text(tmp_path, monkeypatch):
    entries = [{"tasks": [name], "steps": 10} for name in ("toy_text", "toy_rows", "toy_text")]
    seen = []
    real = TrainStep.__call__

    def watching(self, inputs):
        run = self.run
        if "toy_text" in inputs.batches:
            state = run.state.carried_states.get("toy_text")
            seen.append((run.state.batches_seen["toy_text"], state is not None))
        return real(self, inputs)

    monkeypatch.setattr(TrainStep, "__call__", watching)
    tasks = {"toy_rows": {}, "toy_text": {}}
    train(toy(tasks=tasks, stream=entries), tmp_path)
    assert seen == [(k + 1, k > 0) for k in range(20)]


def test_a_run_of_a_stream_is_reported(tmp_path, capsys):
    train(toy(**STREAM, growth=GROWING["frozen"]), tmp_path)
    [*records] = read_run(tmp_path).records
    assert [record.task for record in records] == TASKS
    assert cli.main(["report", str(tmp_path)]) == 0
    assert cli.main(["inspect", str(tmp_path)]) == 0
    assert not capsys.readouterr().err


# What is refused

ROWS, WIDE = {"tasks": ["toy_rows"], "steps": 9}, {"tasks": ["toy_wide"], "steps": 9}
BOTH = {"tasks": {"toy_rows": {}, "toy_wide": {}}}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"stream": [ROWS, {"tasks": ["toy_wid"]}]}, "unknown task 'toy_wid'.*'toy_wide'"),
        ({"stream": [ROWS]}, "stream: no experience has task 'toy_wide'"),
        ({"stream": [ROWS, {}]}, "stream: every experience needs tasks"),
        ({"stream": [ROWS, {"tasks": []}]}, "stream: every experience needs tasks"),
        ({"stream": [ROWS, WIDE | {"steps": -1}]}, "steps: must be at least 0, got -1"),
        ({"stream": [ROWS, WIDE | {"step": 3}]}, "unknown field 'step'.*'steps'"),
        ({"stream": {"tasks": ["toy_rows"]}}, "stream: expected a list"),
        ({"stream": [ROWS, {"tasks": ["toy_wide", "toy_wide"]}]}, "'toy_wide' twice"),
        ({"stream": [ROWS, WIDE], "train": {"warmup": 9}},
         r"warmup \(9\) must be smaller.* \(9 steps\)"),
        ({"stream": [ROWS, WIDE], "train": {"patience": 2},
          "changes": [{"step": 3, "verb": "freeze", "name": "toy_rows"}]},
         "train.patience and changes: .*leave one of them out"),
        ({"stream": [ROWS, WIDE], "train": {"patience": 2},
          "growth": {"when": "on_plateau", "policy": "shared"}},
         "train.patience: growth.when on_plateau changes the network within"),
        ({"stream": [ROWS, WIDE], "train": {"strategy": "si_"}}, "unknown strategy 'si_'.*'si'"),
        ({"stream": [ROWS, WIDE], "train": {"strategy": "gem"}, "strategy": {"choice": "perclass"}},
         "strategy.choice: .*'per_class'"),
        ({"stream": [ROWS, WIDE], "train": {"strategy": "replay"}, "strategy": {"memory": 0}},
         "strategy.memory: must be at least 1, got 0"),
        ({"stream": [ROWS, WIDE], "growth": {"when": "pertask"}}, "'per_task'"),
        ({"stream": [{"tasks": ["toy_row"]}, WIDE], "growth": {"when": "per_task"}},
         "unknown task 'toy_row'.*'toy_rows'"),
    ],
)  # fmt: skip
def test_what_makes_no_stream_is_one_line_and_status_2(tmp_path, capsys, sections, message):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(BOTH | sections))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        set_up(overlay(Config(), BOTH | sections, "test"), fetch=print)
    assert cli.main(["train", str(tmp_path / "config.yaml"), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("thalnet: ") and not out.exists()


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        (STREAM, "stream"),
        ({"growth": GROWING["plateau"]}, "growth.when on_plateau"),
    ],
)
def test_what_changes_by_seed_or_step_is_not_stacked(tmp_path, capsys, sections, what):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": {"name": "toy_rows"}} | sections))
    path = tmp_path / "config.yaml"
    if "tasks" in sections:
        path.write_text(yaml.safe_dump(sections))
    arguments = ["train", str(path), "--seeds", "0", "1", "--stacked", "--out", str(tmp_path / "o")]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"thalnet: --stacked does not support {what}; run without it."


def test_the_command_line_lists_the_strategies(capsys):
    assert cli.main(["list", "strategies"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    ours = ["naive", "replay", "ewc", "online_ewc", "si", "lwf", "agem", "gem"]
    assert shown == [*ours, *(f"avalanche:{name}" for name in STRATEGIES)]
