"""Several tasks are trained jointly in one run."""

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at, lines
from toy_tasks import GROWTH, JOINT, toy

from thalnet_mtl import cli, load_model
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.programs import Step
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training import monitor
from thalnet_mtl.training.sampling import sample_tasks
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train


@pytest.mark.parametrize(
    ("body", "combine"), [("gru", "fixed"), ("gru", "uncertainty"), ("thalnet", "upgrad")]
)
def test_tasks_of_different_shapes_learn_in_one_run(tmp_path, body, combine):
    sections = JOINT if body == "thalnet" else {"tasks": JOINT["tasks"]}
    options = {"steps": 320, "combine": combine, "optimizer": "adam", "batch": 20}
    model = {"body": body, "features": 12, "layers": 1}
    config = toy(**sections, model=model, train=options, evaluate={"every": 80, "batch": 5})
    scores = train(config, tmp_path).to_json()["tasks"]
    assert scores["toy_rows"]["test"]["accuracy"] > 0.7
    assert scores["toy_rows"]["untrained"]["accuracy"] < 0.5
    text = scores["toy_text"]
    assert text["validation"]["bits_per_character"] < 1.2
    assert text["untrained"]["bits_per_character"] > 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"combine": "uncertainty", "draw": 2.0},
        {"combine": "fixed", "reading": "fast_softmax", "precision": "bf16"},
        {"combine": "nash_mtl", "optimizer": "adamw", "weight_decay": 0.1},
        {"combine": "pcgrad", "optimizer": "sgd", "patience": 2},
    ],
)
def test_a_joint_run_that_grows_goes_on_to_the_same_bits(tmp_path, monkeypatch, options):
    options = dict(options)
    model = {"reading": options.pop("reading", "weight_norm")}
    config = toy(**JOINT, model=model, changes=GROWTH, train=options | {"clip": 1.0})
    train(config, tmp_path / "whole")
    for step in (9, 22) if "nash_mtl" in options.values() else (9, 11, 20, 22, 33, 50):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_all_tasks_have_a_row_in_everything_that_is_written(tmp_path):
    result = train(toy(**JOINT), tmp_path).to_json()
    assert list(result["tasks"]) == ["toy_rows", "toy_text"]
    header, *rows = (tmp_path / "accuracy_matrix.csv").read_text().splitlines()
    assert header == "stage,toy_rows,toy_text" and len(rows) == 2
    for stage, part in enumerate(("untrained", "test")):
        values = [str(task[part][task["metric"]]) for task in result["tasks"].values()]
        assert rows[stage] == ",".join([str(stage), *values])
    logged = {(x["task"], x["split"], x["metric"]) for x in lines(tmp_path)}
    assert {("toy_rows", "validation", "accuracy"), ("toy_text", "train", "loss")} <= logged
    for name, task in result["tasks"].items():
        values = {
            x["step"]: x["value"]
            for x in lines(tmp_path)
            if (x["task"], x["split"], x["metric"]) == (name, "validation", task["metric"])
        }
        best = max if task["metric"] == "accuracy" else min
        assert (
            task["own_best"]["value"] == best(values.values()) == values[task["own_best"]["step"]]
        )
        assert task["validation"][task["metric"]] == values[result["best_step"]]


def test_the_kept_weights_are_the_best_for_all_tasks_together(tmp_path):
    options = {"steps": 120, "learning_rate": 0.1}
    result = train(toy(**JOINT, train=options, evaluate={"every": 10}), tmp_path).to_json()
    rows, text = (
        {x["step"]: x["value"] for x in lines(tmp_path)
         if (x["task"], x["split"], x["metric"]) == (task, "validation", metric)}
        for task, metric in (("toy_rows", "accuracy"), ("toy_text", "bits_per_character"))
    )  # fmt: skip
    third, five = 1 / 3, torch.log2(torch.tensor(5.0, dtype=torch.float64)).item()
    level = {k: (rows[k] - third) / (1 - third) + 1 - text[k] / five for k in rows}
    assert level[result["best_step"]] == pytest.approx(max(level.values()))


def test_tasks_may_have_their_own_batch_and_weight(tmp_path):
    tasks = {"toy_rows": {"batch": 30, "weight": 0.0}, "toy_text": {"batch": 4}}
    run = set_up(toy(**JOINT | {"tasks": tasks}), fetch=print)
    assert (run.batches_per_epoch("toy_rows"), run.batches_per_epoch("toy_text")) == (
        10,
        1999 // 4 // 7,
    )
    assert run.epoch == 10
    result = train(toy(**JOINT | {"tasks": tasks}), tmp_path).to_json()
    before = set_up(toy(**JOINT | {"tasks": tasks}), fetch=print).network.state_dict()
    after = load_model(tmp_path / "model").state_dict()
    assert result["steps"] == 60
    for name in before:
        own = name.startswith(("adapters.toy_rows.", "body.cells.rows."))
        assert torch.equal(before[name], after[name]) == own, name


def test_one_task_kind_may_come_several_times_under_other_names(tmp_path):
    result = train(
        toy(tasks={"a": {"name": "toy_rows"}, "b": {"name": "toy_rows"}}), tmp_path
    ).to_json()
    assert [task["kind"] for task in result["tasks"].values()] == ["toy_rows"] * 2


def test_the_command_line_scores_every_task_and_exports_the_step_of_one(tmp_path, capsys):
    result = train(toy(**JOINT, train={"steps": 20}), tmp_path).to_json()
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path)]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    accuracy = result["tasks"]["toy_rows"]["test"]["accuracy"]
    assert first.startswith(f"toy_rows: test accuracy {100 * accuracy:.2f} %")
    bits = result["tasks"]["toy_text"]["test"]["bits_per_character"]
    assert second.startswith(f"toy_text: test bits_per_character {bits:.4f} bits")
    assert cli.main(["evaluate", str(tmp_path), "--task", "toy_text"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [second]
    assert cli.main(["evaluate", str(tmp_path), "--task", "toy_txt"]) == 2
    assert "Did you mean 'toy_text'?" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path), "--to", "torch"]) == 2
    assert "which task? Give --task NAME" in capsys.readouterr().err
    for task in ("toy_rows", "toy_text"):
        out = str(tmp_path / f"{task}.pt2")
        assert (
            cli.main(["export", str(tmp_path), "--to", "torch", "--task", task, "--out", out]) == 0
        )
        step = Step(load_model(tmp_path / "model"), task)
        inputs = step.example(4)
        for ours, theirs in zip(
            step(*inputs), torch.export.load(out).module()(*inputs), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_a_task_that_does_not_improve_leaves_and_the_run_ends_with_the_last(tmp_path):
    options = {"patience": 2, "learning_rate": 1e-30, "steps": 200}
    result = train(toy(**JOINT, train=options), tmp_path).to_json()
    assert result["steps"] == 60  # best at 20, and two validations after it
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert {own["validations_since"] for own in saved["scores"]["best_by_task"].values()} == {2}
    run = set_up(toy(**JOINT, train=options), fetch=print)
    run.state.scores.best_by_task = {"toy_text": {"step": 20, "value": 1.0, "validations_since": 2}}
    assert sample_tasks(run) == ["toy_rows"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"combine": "upgrade"}}, "unknown weighting 'upgrade'.*'upgrad'"),
        ({"modules": {"trunk": {"tasks": ["toy"]}}}, "unknown task 'toy'"),
        ({"model": {"body": "gru"}}, "only a ThalNet has modules"),
        ({"task": {"name": "toy_text"}}, "both 'task' and 'tasks' are given"),
        ({"modules": JOINT["modules"] | {"rows": {"input": True, "tasks": ["toy_rows"]}}},
         "task 'toy_rows': no output module"),
        ({"modules": JOINT["modules"] | {"rows": {"input": True}, "far": {"output": True}}},
         "no path of readings leads"),
    ],
)  # fmt: skip
def test_what_makes_no_joint_run_is_refused_before_anything_is_written(tmp_path, sections, message):
    if "no path" in message:
        sections["modules"]["far"]["reads"] = ["far"]
        sections["modules"]["far"]["tasks"] = ["toy_rows"]
    with pytest.raises(UserError, match=message) as error:
        train(toy(**JOINT | sections), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_task_has_a_name_that_pytorch_bears_also_under_a_shared_head(tmp_path):
    tasks = {name: {"name": "toy_rows", "head": "both"} for name in ("a.b", "c")}
    with pytest.raises(UserError, match=r"invalid task name 'a\.b'"):
        train(toy(tasks=tasks, train={"combine": "uncertainty"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_that_has_left_stays_away_though_it_improves_again(tmp_path, monkeypatch):
    run = set_up(toy(**JOINT, train={"patience": 2}), fetch=print)
    run.state.scores.best_by_task["toy_rows"] = {
        "step": 1,
        "value": -1.0,
        "validations_since": 2,
        "batches_seen": 0,
    }
    monkeypatch.setattr(monitor, "save_best", lambda *args: None)
    directory = RunDirectory(tmp_path, run.config)
    monitor.Monitor(run, directory, Console()).validate()
    directory.close()
    assert run.state.scores.best_by_task["toy_rows"]["value"] > 0
    assert run.active_tasks == ["toy_text"]


def test_a_run_that_ends_early_says_so_and_which_changes_it_missed(tmp_path, capsys):
    options = {"patience": 1, "learning_rate": 1e-30, "steps": 200}
    later = [{"step": 150, "verb": "freeze", "name": "trunk"}]
    train(toy(**JOINT, changes=later, train=options), tmp_path)
    said = "early stop at step 40 of 200: no task improved; 1 scheduled changes were skipped"
    assert said in capsys.readouterr().out


def test_the_best_weights_in_place_of_the_last_are_one_line(tmp_path):
    config = toy(**JOINT)
    train(config, tmp_path)
    (tmp_path / "result.json").unlink()
    folder = tmp_path / "checkpoint"
    (folder / "last.pt").write_bytes((folder / "best.pt").read_bytes())
    with pytest.raises(UserError, match=r"last.pt is damaged: it has no 'weighting'"):
        train(config, tmp_path)


def test_modules_that_all_have_their_width_leave_nothing_to_fill(tmp_path):
    modules = {"a": {"input": True, "features": 4}, "b": {"output": True, "features": 5}}
    run = set_up(toy(modules=modules, model={"features": 0}), fetch=print)
    net = run.network.body.graph
    assert [module.features for module in net.values()] == [4, 5]


@pytest.mark.parametrize("section", ["tasks", "modules"])
def test_a_run_with_its_parts_in_another_order_is_another_run(tmp_path, section):
    train(toy(**JOINT), tmp_path)
    turned = dict(reversed(JOINT[section].items()))
    with pytest.raises(UserError, match="tasks or modules in another order"):
        train(toy(**JOINT | {section: turned}), tmp_path)
