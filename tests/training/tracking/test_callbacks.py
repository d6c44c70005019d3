"""Callbacks: what they are told, what they can ask for, and what becomes of their failures."""

import json
import math
from ast import literal_eval

import kill_and_resume
import pytest
from run_fixtures import interrupt_at, lines
from toy_tasks import TOY, toy

from thalnet_mtl import Callback, Tracker, cli, register, registry
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.metrics.summary import MEASURES
from thalnet_mtl.runs.names import sweep_of
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.setup import check_buildable
from thalnet_mtl.training.trainer import train

TWO = {
    "tasks": {name: {"head": "all"} for name in ("toy_rows", "toy_turned")},
    "stream": [{"tasks": ["toy_rows"]}, {"tasks": ["toy_turned"]}],
    "train": {"steps": 16, "learning_rate": 0.05},
}


class Recorder(Callback):
    """What each hook was called with, in order."""

    def __init__(self):
        self.calls = []

    def on_start(self, run):
        self.calls.append(("start", run.step, run.resumed_at, run.folder.name))

    def on_step_end(self, run, losses):
        losses = {name: float(loss) for name, loss in losses.items()}
        self.calls.append(("step", run.step, run.experience.number, losses))

    def on_log(self, run, step, values):
        gradients = [p.grad.double() for p in run.network.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        self.calls.append(("log", step, dict(values), norm))

    def on_evaluation(self, run, step, split, scores):
        self.calls.append(("evaluation", step, split, dict(scores)))

    def on_change(self, run, change):
        self.calls.append(("change", change.step, change.verb))

    def on_experience_end(self, run, experience, measures):
        self.calls.append(("end", experience.number, dict(measures)))

    def on_finish(self, run, result):
        self.calls.append(("finish", result))

    def on_exit(self, run):
        self.calls.append(("exit",))

    def of(self, kind):
        return [call[1:] for call in self.calls if call[0] == kind]


class StopAt(Callback):
    """Asks to stop after a step, from one hook or another."""

    def __init__(self, step=12, hook="step"):
        self.step, self.hook = step, hook

    def on_step_end(self, run, losses):
        if run.step == self.step and self.hook == "step":
            run.stop("enough")

    def on_evaluation(self, run, step, split, scores):
        if step == self.step and self.hook == "evaluation":
            run.stop()


def differences(one, other):
    """What differs between two runs, but for times, configurations and where a stop is recorded."""
    found = set[str]()
    for text in kill_and_resume.differences(one, other):
        name, _, keys = text.partition(" differs in ")
        ours = ("/stopping/", "/config/")
        found |= {f"{name}{key}" for key in literal_eval(keys or "[]") if not key.startswith(ours)}
        found |= set() if keys or text == "config.yaml" else {text}
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run of two experiences, and what a callback was told."""
    folder, recorder = tmp_path_factory.mktemp("told") / "run", Recorder()
    change = {"step": 20, "verb": "attach", "name": "extra"}
    train(toy(**TWO, changes=[change]), folder, callbacks=[recorder])
    return folder, recorder


def test_hooks_are_called_in_order_with_what_the_log_and_the_result_say(told):
    folder, recorder = told
    assert recorder.calls[0] == ("start", 0, None, "run") and recorder.calls[-1] == ("exit",)
    [[result]] = recorder.of("finish")
    assert result.to_json() == RunResult.load(folder).to_json()
    logged = lines(folder)
    scored = [
        (x["step"], x["split"], x["task"], x["metric"], x["value"])
        for x in logged
        if x["split"] != "train"
    ]
    assert scored == [
        (step, split, task, metric, value)
        for step, split, scores in recorder.of("evaluation")
        for task, values in scores.items()
        for metric, value in values.items()
    ]
    trained = [(x["step"], x["value"]) for x in logged if x["split"] == "train"]
    told_of = [
        (step, value)
        for step, values, _ in recorder.of("log")
        for name, value in values.items()
        if name.endswith("/train")
    ]
    assert told_of == trained
    assert recorder.of("change") == [(20, "attach")]


def test_the_losses_of_the_steps_are_those_of_which_the_log_has_the_means(told):
    _, recorder = told
    steps = recorder.of("step")
    assert [step for step, _, _ in steps] == list(range(1, 33))
    assert [number for _, number, _ in steps] == [1] * 16 + [2] * 16
    first = [losses["toy_rows"] for step, _, losses in steps if step <= 8]
    assert steps[0][2]["toy_turned"] == -math.inf  # it is not part of the step
    assert recorder.of("log")[0][1]["toy_rows/loss/train"] == pytest.approx(sum(first) / 8)


def test_the_norm_of_the_gradient_is_that_of_all_parameters_in_double_precision(told):
    for _, values, norm in told[1].of("log"):
        assert values["training/gradient_norm"] == pytest.approx(norm, rel=1e-5) and norm > 0


def test_the_norm_of_the_gradient_is_that_before_clipping(tmp_path):
    norms = {}
    for clip in (0.0, 0.01):
        recorder = Recorder()
        config = toy(train={"steps": 1, "clip": clip}, evaluate={"log_every": 1})
        train(config, tmp_path / str(clip), callbacks=[recorder])
        [[_, values, norms[clip]]] = recorder.of("log")
        assert values["training/gradient_norm"] == pytest.approx(norms[0.0], rel=1e-5)
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3) and norms[0.0] > 0.1


def test_the_measures_of_a_stream_are_those_of_its_matrix_so_far(told):
    folder, recorder = told
    rows = [row.split(",") for row in (folder / "accuracy_matrix.csv").read_text().splitlines()]
    (first, after_first), (second, after_second) = recorder.of("end")
    scores = [[float(cell) for cell in row[1:]] for row in rows[1:]]
    assert (first, second) == (1, 2)
    assert after_first == pytest.approx(
        {"average_accuracy": scores[1][0], "average_incremental_accuracy": scores[1][0]}
    )
    assert after_second["average_accuracy"] == pytest.approx(sum(scores[2]) / 2)
    assert after_second["forgetting"] != 0
    assert after_second["forgetting"] == pytest.approx(scores[1][0] - scores[2][0])
    result = recorder.of("finish")[0][0].continual.measures
    assert after_second == {n: result[n].mean for n in MEASURES if result[n].mean is not None}


def test_a_run_that_is_stopped_is_the_run_of_so_many_steps(tmp_path, capsys):
    train(toy(train={"steps": 40}), tmp_path / "stopped", callbacks=[StopAt(12)])
    train(toy(train={"steps": 12}), tmp_path / "planned")
    assert differences(tmp_path / "stopped", tmp_path / "planned") == set()
    assert "step 12  stopped by a callback: enough" in capsys.readouterr().out


def test_a_run_may_be_stopped_when_it_is_validated(tmp_path):
    stopped = train(toy(train={"steps": 40}), tmp_path, callbacks=[StopAt(20, "evaluation")])
    planned = train(toy(train={"steps": 20}), tmp_path / "planned")
    assert stopped.tasks == planned.tasks and stopped.steps == stopped.best_step == 20
    logs = [lines(folder) for folder in (tmp_path, tmp_path / "planned")]
    one, other = ([(x["step"], x["split"], x["value"]) for x in log] for log in logs)
    assert sorted(one) == sorted(other)  # a planned run logs its losses before the validation


def test_a_run_that_was_stopped_goes_on_when_it_is_asked_for_more_steps(tmp_path):
    train(toy(train={"steps": 40}), tmp_path / "run", callbacks=[StopAt(12)])
    train(toy(train={"steps": 40}), tmp_path / "run")  # it has finished
    assert RunResult.load(tmp_path / "run").steps == 12
    train(toy(train={"steps": 30}), tmp_path / "run")
    train(toy(train={"steps": 30}), tmp_path / "at_once")
    assert RunResult.load(tmp_path / "run").steps == 30
    assert set(kill_and_resume.differences(tmp_path / "run", tmp_path / "at_once")) <= {
        "result.json"  # which knows its seconds only
    }


def test_in_a_stream_the_experience_is_stopped_and_the_next_ones_follow(tmp_path, monkeypatch):
    shorter = [TWO["stream"][0] | {"steps": 12}, TWO["stream"][1] | {"steps": 10}]
    train(toy(**TWO | {"stream": shorter}), tmp_path / "planned")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(14, patch)  # after the stop, which the checkpoint knows
        train(toy(**TWO), tmp_path / "stopped", callbacks=[StopAt(12)])
    train(toy(**TWO), tmp_path / "stopped", callbacks=[StopAt(22)])
    assert differences(tmp_path / "stopped", tmp_path / "planned") == set()


def test_with_patience_the_best_weights_of_a_stopped_experience_are_kept(tmp_path, capsys):
    config = toy(**TWO | {"train": TWO["train"] | {"patience": 5}})
    result = train(config, tmp_path, callbacks=[StopAt(12)])
    assert result.continual.ends == [12, 28]
    assert "experience 1 took 12 steps (early stop; 16 were planned)" in capsys.readouterr().out


def test_hidden_boundaries_cannot_be_moved(tmp_path):
    tasks = {name: {"head": "all"} for name in ("toy_rows", "toy_turned")}
    stream = [{"tasks": [name], "steps": 10} for name in tasks]
    config = toy(tasks=tasks, stream=stream, train={"boundaries": "hidden"})
    with pytest.raises(UserError, match="hidden boundaries"):
        train(config, tmp_path, callbacks=[StopAt(5)])


def test_a_resumed_run_says_at_which_step_and_a_run_goes_on_after_an_error_of_a_callback(tmp_path):
    class Failing(Callback):
        def on_step_end(self, run, losses):
            if run.step == 33:
                raise ZeroDivisionError("in the callback")

    config = toy()
    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path / "run", callbacks=[Failing()])
    recorder = Recorder()
    train(config, tmp_path / "run", callbacks=[recorder])
    assert recorder.calls[0] == ("start", 30, 30, "run")
    train(config, tmp_path / "whole")
    assert kill_and_resume.differences(tmp_path / "run", tmp_path / "whole") == []


def test_a_wrong_hook_is_found_when_its_class_is_defined():
    with pytest.raises(UserError, match=r"'on_finished', so.*Did you mean 'on_finish'\?"):

        class Misspelt(Callback):
            def on_finished(self, run, result): ...

    with pytest.raises(UserError, match=r"no hook is called 'on_step', so it would never run"):

        class Unknown(Callback):
            def on_step(self, run, losses): ...

    with pytest.raises(UserError, match=r"def on_log\(self, run, step, values\)"):

        class Short(Callback):
            def on_log(self, values): ...

    with pytest.raises(UserError, match=r"tracker Late: no hook is called 'finished'"):

        class Late(Tracker):
            def finished(self, result): ...


def test_what_is_no_callback_is_refused(tmp_path):
    for wrong in (Recorder, print):
        with pytest.raises(UserError, match="is no Callback of thalnet_mtl"):
            train(toy(), tmp_path, callbacks=[wrong])


@pytest.fixture
def own_trackers(monkeypatch):
    """Trackers of a user, which are forgotten after the test."""
    monkeypatch.setitem(registry._entries, "tracker", dict(registry.entries("tracker")))

    @register("tracker", "failing")
    class FailingTracker(Tracker):
        """A tracker that fails."""

        finished = 0

        def __init__(self, at: str = "log"):
            self.at = at

        def start(self, run):
            if self.at == "start":
                raise ConnectionError("no key")  # an error of the system without a number

        def log(self, step, values):
            if step >= 16 and self.at == "log":
                raise ConnectionError("the server is gone\nfor good")

        def finish(self, result):
            FailingTracker.finished += 1
            if self.at == "finish":
                raise TimeoutError

    return FailingTracker


def test_a_tracker_without_text_says_so_once(tmp_path, capsys):
    changes = [{"step": s, "verb": "attach", "name": f"extra{s}"} for s in (4, 6)]
    train(toy(train={"steps": 8}, changes=changes, trackers=["csv", "tensorboard"]), tmp_path)
    out = capsys.readouterr().out
    assert out.count("note: tracker 'csv' shows no text") == out.count("shows no text") == 1


@pytest.mark.parametrize("at", ["log", "finish"])
def test_a_tracker_that_fails_costs_one_warning_and_nothing_else(
    own_trackers, at, tmp_path, capsys
):
    config = toy(trackers=["csv", {"name": "failing", "at": at}])
    train(config, tmp_path / "failing")
    out = capsys.readouterr().out
    reason = {"log": "16 and is left out from now on: the server is gone for good."}
    reason |= {"finish": "60 and is left out from now on: TimeoutError."}
    assert out.count("warning: ") == 1
    assert f"warning: tracker 'failing' failed at step {reason[at]} Training goes on" in out
    assert own_trackers.finished >= 1
    train(toy(), tmp_path / "whole")
    assert differences(tmp_path / "failing", tmp_path / "whole") == set()
    assert "final/" in (tmp_path / "failing" / "metrics.csv").read_text()  # the other one goes on


@pytest.mark.parametrize("more", [[], ["--stacked"]])
def test_the_runs_of_one_command_are_a_group(more, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(registry._entries, "tracker", dict(registry.entries("tracker")))
    seen = []

    @register("tracker", "grouped")
    class Grouped(Tracker):
        """A tracker that looks at the names."""

        def start(self, run):
            seen.append((run.group, run.name))

        def log(self, step, values): ...

    command = ["train", *TOY, "--train.steps=2", "--trackers=grouped", "--out"]
    command.remove("--train.steps=20")
    assert cli.main([*command, str(tmp_path / "two"), "--seeds", "0", "1", *more]) == 0
    assert seen == [("two", "seed0"), ("two", "seed1")]
    if not more:
        assert cli.main([*command, str(tmp_path / "one")]) == 0 and seen[2:] == [("", "one")]
        one = tmp_path / "sweep" / "one"
        one.parent.mkdir()
        assert sweep_of(one) == ""
        (tmp_path / "sweep" / "sweep.json").touch()
        assert sweep_of(one) == "sweep" and sweep_of(one / "trials" / "x") == ""
        (one.parent / "tuning.json").touch()
        assert sweep_of(one.parent / "trials" / "x") == "sweep/trials"
        assert "note: tracker 'grouped' shows no text" not in capsys.readouterr().out  # no change


def test_a_tracker_that_cannot_start_ends_the_run_with_a_line(own_trackers, tmp_path):
    with pytest.raises(RunError, match=r"^tracker 'failing' cannot start: no key\.$"):
        train(toy(trackers=[{"name": "failing", "at": "start"}]), tmp_path)


def test_wrong_trackers_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(dump_config(toy()))
    wrong = {
        "tensorbord": "unknown tracker 'tensorbord'. Allowed: tensorboard, csv, wandb, mlflow, "
        "trackio. Did you mean 'tensorboard'?",
        "csv,csv": "trackers: 'csv' is given twice.",
        "[{name: wandb, mode: ofline}]": "Did you mean 'offline'?",
        "[{name: wandb, modus: offline}]": "unknown field 'modus'",
        "[{project: mine}]": "every tracker needs a name.",
    }
    for text, line in wrong.items():
        assert cli.main(["train", "toy.yaml", "--out", "run", "--trackers", text]) == 2
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_library_is_one_line_before_anything_is_trained(name, tmp_path, monkeypatch):
    monkeypatch.setattr("thalnet_mtl.training.tracking.tracker.find_spec", lambda package: None)
    line = rf"^tracker '{name}' needs {name}: pip install 'thalnet-mtl\[{name}\]'\.$"
    with pytest.raises(UserError, match=line):
        train(toy(trackers=[name]), tmp_path / "run")
    with pytest.raises(UserError, match=line):  # a sweep asks before its first run
        check_buildable(toy(trackers=[name]))
    assert not (tmp_path / "run").exists()


def test_trackers_may_differ_when_a_run_goes_on(own_trackers, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(33, patch)
        train(toy(trackers=[{"name": "failing", "at": "never"}]), tmp_path / "run")
    train(toy(trackers=["csv"]), tmp_path / "run")
    train(toy(), tmp_path / "whole")
    assert differences(tmp_path / "run", tmp_path / "whole") == set()
    _, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert min(int(row.split(",")[0]) for row in rows) > 30  # it was not there before
    assert "trackers:\n- csv\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_file_with_a_callback_is_named_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from thalnet_mtl import Callback, register\n\n\n"
        "@register('tracker', 'short')\n"
        "class Short(Callback):\n"
        '    """Ends a run."""\n\n'
        "    def __init__(self, after: int = 3):\n"
        "        self.after = after\n\n"
        "    def on_step_end(self, run, losses):\n"
        "        if run.step == self.after:\n"
        "            run.stop('short')\n"
    )
    flag = "[csv, {name: short, after: 7}]"
    assert cli.main(["train", *TOY, "mine.py", "--out", "run", "--trackers", flag]) == 0
    assert "step 7  stopped by a callback: short" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 7
    assert cli.main(["list", "trackers"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("tensorboard", "wandb", "mode=null", "short"))


def test_the_weights_do_not_depend_on_who_looks(told, tmp_path):
    change = {"step": 20, "verb": "attach", "name": "extra"}
    train(toy(**TWO, changes=[change], trackers=[]), tmp_path)
    assert differences(told[0], tmp_path) == set()
