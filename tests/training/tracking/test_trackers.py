"""Laws of every registered tracker, checked in what the library that it is for reads back."""

import json
import math
import socket
import sys
import warnings
from itertools import pairwise

import pytest
from run_fixtures import interrupt_at
from toy_tasks import GROWING, STREAM, toy
from tracker_logs import READERS, of_tasks, run_log

from thalnet_mtl import registry
from thalnet_mtl.registry import entries, lookup
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.tracking.callback import Callback
from thalnet_mtl.training.tracking.tracker import Tracker, final_scores
from thalnet_mtl.training.trainer import train

OFFLINE = {"wandb": {"mode": "offline"}}
BUILT_IN = [n for n, entry in entries("tracker").items() if entry.__module__.startswith("thalnet")]


def grown(*trackers, **sections):
    """A stream of two tasks of which the second gets a module; killed at step 33, it repeats 32."""
    tasks = {name: STREAM["tasks"][name] for name in ("toy_rows", "toy_wide")}
    return toy(
        tasks=tasks,
        stream=STREAM["stream"][:2],
        growth=GROWING["shared"],
        trackers=[{"name": name} | OFFLINE.get(name, {}) for name in trackers],
        **sections,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that all trackers have followed, which was killed and resumed; no network is there."""

    def refuse(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    connect, folder = socket.socket.connect, tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries
        patch.setattr(socket.socket, "connect", refuse)
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        with patch.context() as again, pytest.raises(SystemExit):
            interrupt_at(33, again)
            train(grown(*BUILT_IN), folder / "run", group="several")
        log = (folder / "run" / "metrics.jsonl").read_text()
        assert log.count('"step": 32') == 2  # after the checkpoint of step 30: they come again
        result = train(grown(*BUILT_IN), folder / "run", group="several")
        yield folder / "run", result


def test_every_tracker_has_a_reader_here():
    assert set(BUILT_IN) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_what_a_tracker_holds_is_what_the_run_has_logged_also_when_it_was_killed(name, run):
    folder, result = run
    values, texts, facts = READERS[name](folder)
    logged, changes = run_log(folder)

    # Every value is there once, and no other one.
    shown = dict(of_tasks(values))
    assert shown.keys() == logged.keys()
    for key, numbers in logged.items():
        assert shown[key] == pytest.approx(numbers, rel=1e-6), key
    assert all(len(numbers) == 1 for numbers in values.values())

    # The text, too, and what only trackers get.
    if entries("tracker")[name].log_text is not Tracker.log_text:
        assert texts == changes and len(texts) == 3
    norms = [step for step, metric in values if metric == "training/gradient_norm"]
    rates = [step for step, metric in values if metric == "training/steps_per_second"]
    assert norms == rates == [8, 16, 20, 24, 32, 40]
    matrix = result.continual.scores
    assert values[40, "stream/forgetting"] == pytest.approx([matrix[1][0] - matrix[2][0]])
    assert values[20, "stream/average_accuracy"] == pytest.approx([matrix[1][0]])
    final = {metric: [value] for metric, value in final_scores(result)}
    assert {m: v for (step, m), v in values.items() if m.startswith("final/")} == {
        metric: pytest.approx(value, rel=1e-6) for metric, value in final.items()
    }
    assert final["final/toy_rows/accuracy/test"] == [result.tasks["toy_rows"].test]

    # The run is one run there, in its group, with its configuration.
    if "config" in facts:
        assert str(facts["config"]["train.learning_rate"]) == "0.01"
        assert facts["group"] == "several"
    assert facts.get("runs", 1) == len(facts.get("ids", "1")) == 1
    assert facts.get("exits", [1, 0]) == [1, 0] and facts.get("status", "FINISHED") == "FINISHED"
    if "text" in facts:
        assert "learning_rate: 0.01" in facts["text"]


def test_by_default_there_is_tensorboard_alone_and_without_trackers_nothing(tmp_path):
    for name, trackers in {"default": {}, "none": {"trackers": []}}.items():
        train(toy(train={"steps": 8}, **trackers), tmp_path / name)
    files = {p.name for p in (tmp_path / "default").iterdir()}
    assert files - {p.name for p in (tmp_path / "none").iterdir()} == {"tensorboard"}
    assert (tmp_path / "default" / "metrics.jsonl").exists() and "trackers.json" not in files


@pytest.mark.parametrize("step", [21, 33])
def test_a_change_or_a_measure_is_there_once_wherever_a_run_is_killed(step, tmp_path, monkeypatch):
    """Killed right after an experience began, or after a change that follows a checkpoint."""
    if step == 21:
        config = grown("tensorboard", "csv")
    else:
        late = {"step": 32, "verb": "attach", "name": "late"}
        config = toy(changes=[late], trackers=["tensorboard", "csv"])
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(step, patch)
        train(config, tmp_path)
    train(config, tmp_path)
    values, texts, _ = READERS["tensorboard"](tmp_path)
    logged, changes = run_log(tmp_path)
    assert texts == changes and changes
    for name in ("tensorboard", "csv"):
        values, _, _ = READERS[name](tmp_path)
        assert dict(of_tasks(values)).keys() == logged.keys()
        assert all(len(numbers) == 1 for numbers in values.values()), name
        assert ((20, "stream/average_accuracy") in values) == (step == 21)


@pytest.mark.parametrize("where", ["after the changes of step 20", "while step 20 is saved"])
def test_a_tracker_of_a_user_gets_no_value_twice_either(where, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._entries, "tracker", dict(entries("tracker")))
    path = tmp_path / "log.txt"

    @registry.register("tracker", "text")
    class Text(Tracker):
        """A tracker that appends to a file, and keeps nothing."""

        def log(self, step, values):
            with path.open("a") as file:
                file.writelines(f"{step} {name} {value}\n" for name, value in values.items())

        def log_text(self, step, name, text):
            self.log(step, {text.replace(" ", "_"): 0})

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        if where == "while step 20 is saved":  # all that ends the experience comes again
            save = Trainer.save
            patch.setattr(Trainer, "save", lambda t: sys.exit() if t.run.step == 20 else save(t))
        interrupt_at(21, patch)
        train(grown("text"), tmp_path / "run")
    train(grown("text"), tmp_path / "run")
    found = [line.rsplit(" ", 1)[0] for line in path.read_text().splitlines()]
    of_run = [line for line in found if line.split()[1].split("/")[0] in ("toy_rows", "toy_wide")]
    assert sorted(of_run) == sorted(f"{s} {n}" for s, n in run_log(tmp_path / "run")[0])
    assert len(found) == len(set(found))


def test_a_cut_line_of_a_csv_file_is_dropped(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(33, patch)
        train(grown("csv"), tmp_path)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3")  # of step 33
    train(grown("csv"), tmp_path)
    values, _, _ = READERS["csv"](tmp_path)
    assert dict(of_tasks(values)).keys() == run_log(tmp_path)[0].keys()


def test_the_rate_of_steps_is_that_of_the_seconds_in_the_log(run):
    values, _, _ = READERS["csv"](run[0])
    seconds = {0: 0.0}
    for line in map(json.loads, (run[0] / "metrics.jsonl").read_text().splitlines()):
        if line["split"] == "train" and line["step"] <= 24:  # then it was killed
            seconds[line["step"]] = line["seconds"]
    for last, step in pairwise(seconds):
        [rate] = values[step, "training/steps_per_second"]
        assert rate == pytest.approx((step - last) / (seconds[step] - seconds[last]))
        assert math.isfinite(rate)


def test_registered_trackers_are_callbacks_with_a_line_on_what_they_are():
    for name, entry in entries("tracker").items():
        assert issubclass(entry, Callback), name
        assert (entry.__doc__ or "").partition("\n")[0].endswith("."), name


@pytest.mark.parametrize("name", ["tensorboard", "csv"])
def test_a_tracker_that_has_not_started_ends_without_a_word(name):
    """A run may be refused after its trackers were built, before they start."""
    lookup("tracker", name)().on_exit(None)
