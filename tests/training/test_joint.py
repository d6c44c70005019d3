"""Several tasks in one run: what they share, how they are drawn, and nets that grow meanwhile."""

import json
from collections import Counter

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at, lines
from stream_fixtures import scripted
from toy_tasks import GROWTH, JOINT, toy

from thalnet_mtl import cli, load_model
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.export import Step
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.training import monitor
from thalnet_mtl.training.checkpoint import resume_run
from thalnet_mtl.training.sampling import sample_tasks
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

UNEQUAL = JOINT["modules"] | {"trunk": {"features": 9}}
PAIR = {  # one after another, with nothing in common
    "tasks": {"toy_rows": {}, "toy_wide": {}},
    "stream": [{"tasks": [name], "steps": 20} for name in ("toy_rows", "toy_wide")],
    "modules": {
        f"m_{name}": {"input": True, "output": True, "tasks": [name]}
        for name in ("toy_rows", "toy_wide")
    },
}


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


# Which task is next


def draws(tasks, count=3000, **options):
    run = set_up(toy(**JOINT | {"tasks": tasks}, train=options), fetch=print)
    names = []
    for run.state.step in range(count):
        [name] = sample_tasks(run)
        names.append(name)
    return run, names


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_tasks_are_drawn_by_their_tempered_sizes(temperature):
    run, names = draws({"toy_rows": {}, "toy_text": {"batch": 2}}, draw=temperature)
    sizes = {"toy_rows": 30, "toy_text": 1999 // 2 // 7}
    assert {name: run.batches_per_epoch(name) for name in sizes} == sizes
    odds = {name: size ** (1 / temperature) for name, size in sizes.items()}
    for name, count in Counter(names).items():
        assert count / len(names) == pytest.approx(odds[name] / sum(odds.values()), abs=0.03)


def test_given_shares_are_the_odds():
    _, names = draws({"toy_rows": {"share": 1}, "toy_text": {"share": 3}}, draw=1.0)
    assert Counter(names)["toy_text"] / len(names) == pytest.approx(0.75, abs=0.03)


def test_draws_depend_on_seed_and_step_alone():
    tasks = {"toy_rows": {}, "toy_text": {}}
    assert draws(tasks, 50, draw=1.0)[1] == draws(tasks, 50, draw=1.0)[1]
    assert draws(tasks, 50, draw=1.0)[1] != draws(tasks, 50, draw=1.0, seed=1)[1]


def test_a_task_that_is_not_drawn_is_not_a_loss_and_keeps_its_place(tmp_path):
    train(toy(**JOINT, train={"draw": 1.0, "steps": 40}), tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert sum(saved["batches_seen"].values()) == 40 and min(saved["batches_seen"].values()) > 0
    losses = [x["value"] for x in lines(tmp_path) if (x["split"], x["metric"]) == ("train", "loss")]
    assert min(losses) > 0


def test_a_task_that_does_not_improve_leaves_and_the_run_ends_with_the_last(tmp_path):
    options = {"patience": 2, "learning_rate": 1e-30, "steps": 200}
    result = train(toy(**JOINT, train=options), tmp_path).to_json()
    assert result["steps"] == 60  # best at 20, and two validations after it
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert {own["since"] for own in saved["scores"]["best_by_task"].values()} == {2}
    run = set_up(toy(**JOINT, train=options), fetch=print)
    run.state.scores.best_by_task = {"toy_text": {"step": 20, "value": 1.0, "since": 2}}
    assert sample_tasks(run) == ["toy_rows"]


# Growth


def test_changes_are_made_where_they_are_due_and_are_told(tmp_path):
    result = train(toy(**JOINT, changes=GROWTH), tmp_path).to_json()
    history = json.loads((tmp_path / "topology.json").read_text())["history"]
    assert [(x["step"], x["verb"]) for x in history] == [(c["step"], c["verb"]) for c in GROWTH]
    assert history[0]["about"] == "late, read by trunk, text"
    sizes = [x["parameters"] for x in history]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3] == sizes[4] > sizes[5]
    best = [x for x in history if x["step"] < result["best_step"]]
    assert result["parameters"]["total"] == best[-1]["parameters"]
    network = load_model(tmp_path / "model")
    assert "twin" in network.active_modules("toy_rows") and "twin" not in network.active_modules(
        "toy_text"
    )


def test_a_frozen_module_stands_still_while_the_others_learn(tmp_path):
    changes = [{"step": 20, "verb": "freeze", "name": "trunk"}]
    train(toy(**JOINT, changes=changes, train={"weight_decay": 0.1}), tmp_path)
    last = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert not any(".trunk." in name for name in last["optimizer"]["state"])
    config = toy(**JOINT, changes=changes, train={"weight_decay": 0.1})
    run = set_up(config, fetch=print)
    resume_run(tmp_path / "checkpoint" / "last.pt", run)
    frozen = [n for n, p in run.network.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith("body.cells.trunk.") for name in frozen)


def test_modules_may_be_frozen_from_the_start(tmp_path):
    modules = JOINT["modules"] | {"trunk": {"frozen": True}}
    config = toy(**JOINT | {"modules": modules})
    before = set_up(config, fetch=print).network.state_dict()
    result = train(config, tmp_path).to_json()
    after = load_model(tmp_path / "model").state_dict()
    assert result["parameters"]["frozen"] > 0
    for name in before:
        if name.startswith("body.cells."):
            assert torch.equal(before[name], after[name]) == (".trunk." in name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verb": "attach", "name": "trunk"}, "attach trunk after step 9: there is a module"),
        ({"verb": "detach", "name": "rows"}, "task 'toy_rows' needs module 'rows'"),
        ({"verb": "detach", "name": "trnk"}, "unknown module 'trnk'.*Did you mean 'trunk'"),
        ({"verb": "route", "name": "rows", "source": "absent"}, "unknown module 'absent'"),
        ({"verb": "route", "name": "rows", "source": "trunk"}, "reads 'trunk' already"),
        ({"verb": "atach", "name": "x"}, "unknown value 'atach'.*Did you mean 'attach'"),
        ({"verb": "attach"}, "every change needs a step, a verb and a name"),
        ({"verb": "attach", "name": "x", "module": {"tasks": ["toy"]}}, "unknown task 'toy'"),
        ({"verb": "attach", "name": "x", "module": {"features": 400}}, "over model.budget 50,000"),
        ({"verb": "attach", "name": "x", "step": 60}, "there are only 60 steps"),
        ({"verb": "clone", "name": "x"}, "clone x: it needs a source"),
        ({"verb": "attach", "name": "x", "module": {"output": True}},
         "input and output modules cannot be attached"),
        ({"verb": "clone", "name": "x", "source": "trunk", "module": {"tasks": ["toy"]}},
         "unknown task 'toy'"),
        ({"verb": "detach", "name": "trunk", "read_by": ["text"]}, "it takes no read_by"),
        ({"verb": "attach", "name": "x", "open": False}, "it takes no open"),
        ({"verb": "clone", "name": "x", "source": "rows", "module": {"features": 2}},
         "a clone can differ"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made_is_refused_before_anything_is_written(
    tmp_path, change, message
):
    with pytest.raises(UserError, match=message) as error:
        train(toy(**JOINT, changes=[{"step": 9} | change]), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"combine": "upgrade"}}, "unknown weighting 'upgrade'.*'upgrad'"),
        ({"modules": {"trunk": {"tasks": ["toy"]}}}, "unknown task 'toy'"),
        ({"model": {"body": "gru"}}, "modules are those of a ThalNet"),
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


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"tasks": JOINT["tasks"], "model": {"body": "gru"}}, "only a ThalNet has modules"),
        (
            JOINT | {"modules": UNEQUAL, "model": {"features": 0}},
            "width .* is ambiguous",
        ),
    ],
)
def test_attaching_needs_modules_and_a_width(tmp_path, sections, message):
    with pytest.raises(UserError, match=message):
        train(toy(**sections, changes=GROWTH[:1]), tmp_path)


def test_a_name_that_is_a_task_and_a_module_is_not_guessed(tmp_path):
    modules = {"toy_rows": {"input": True, "output": True}, "trunk": {}}
    changes = [{"step": 9, "verb": "freeze", "name": "toy_rows"}]
    with pytest.raises(UserError, match="'toy_rows' is a task and a module"):
        train(toy(tasks=JOINT["tasks"], modules=modules, changes=changes), tmp_path)


@pytest.mark.parametrize("options", [{}, {"draw": 1.0}, {"combine": "upgrad"}])
def test_a_frozen_task_is_not_trained_and_stays_to_the_bit(tmp_path, options):
    freeze = [{"step": 10, "verb": "freeze", "name": "toy_rows"}]
    config = toy(**JOINT, changes=freeze, train=options, evaluate={"every": 10})
    train(config, tmp_path)
    later = {
        x["value"]
        for x in lines(tmp_path)
        if (x["task"], x["split"]) == ("toy_rows", "validation") and x["metric"] == "loss"
    }
    assert len(later) == 1  # six looks, all of them at the weights of step 10
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert saved["batches_seen"]["toy_rows"] <= 10 and sum(saved["batches_seen"].values()) >= 60


@pytest.mark.parametrize(("step", "task"), [(9, "toy_rows"), (9, "toy_wide"), (25, "toy_wide")])
def test_a_run_in_which_nothing_learns_any_more_is_refused(tmp_path, step, task):
    """Alone, or in an experience of a stream, be it a later one."""
    changes = [{"step": step, "verb": "freeze", "name": task}]
    sections = {} if (step, task) == (9, "toy_rows") else PAIR
    with pytest.raises(UserError, match=f"{task} after step {step}: nothing that {task} use"):
        train(toy(**sections, changes=changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_has_a_name_that_pytorch_bears_also_under_a_shared_head(tmp_path):
    tasks = {name: {"name": "toy_rows", "head": "both"} for name in ("a.b", "c")}
    with pytest.raises(UserError, match=r"invalid task name 'a\.b'"):
        train(toy(tasks=tasks, train={"combine": "uncertainty"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_may_be_frozen_when_it_has_had_its_turn(tmp_path):
    changes = [{"step": 20, "verb": "freeze", "name": "toy_rows"}]
    assert train(toy(**PAIR, changes=changes), tmp_path)["steps"] == 40


def test_a_run_ends_when_what_did_not_stop_early_is_frozen(tmp_path, monkeypatch):
    scripted(monkeypatch, {"toy_rows": [0.5, 0.4], "toy_text": [3.0, 2.9, 2.8]})
    changes = [{"step": 45, "verb": "freeze", "name": "toy_text"}]
    modules = {k: {"input": True, "output": True, "tasks": [name]} for k, name in
               zip("ab", JOINT["tasks"], strict=True)}  # fmt: skip
    sections = {"tasks": JOINT["tasks"], "modules": modules, "changes": changes}
    assert train(toy(**sections, train={"patience": 1}), tmp_path)["steps"] == 45


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_is_attached_and_unread_leaves_the_others_way_as_it_was(tmp_path, dropout):
    """Also where dropout draws from the generator that new weights are drawn from."""
    new = [
        {"step": step, "verb": "attach", "name": f"new{step}", "module": {"features": 5}}
        for step in (20, 30)
    ]
    weights = []
    for changes in ([], new):
        folder = tmp_path / str(len(changes))
        train(toy(changes=changes, train={"dropout": dropout}), folder)
        saved = torch.load(folder / "checkpoint" / "last.pt", weights_only=True)
        weights.append(saved["network"])
    without, grown = weights
    assert all(torch.equal(weight, grown[name]) for name, weight in without.items())
    first, second = (grown[f"body.cells.new{step}.reading.weight"] for step in (20, 30))
    assert len(grown) > len(without) and not torch.equal(first[:, :18], second[:, :18])


def test_changes_are_rehearsed_in_the_order_of_their_steps(tmp_path):
    attach = {"step": 20, "verb": "attach", "name": "late", "read_by": ["trunk"]}
    detach = {"verb": "detach", "name": "late"}
    train(toy(**JOINT, changes=[detach | {"step": 40}, attach]), tmp_path / "run")
    history = json.loads((tmp_path / "run" / "topology.json").read_text())["history"]
    assert [x["verb"] for x in history] == ["attach", "detach"]
    with pytest.raises(UserError, match="detach late after step 10: unknown module 'late'"):
        train(toy(**JOINT, changes=[attach, detach | {"step": 10}]), tmp_path / "other")


def test_a_layer_can_be_inserted_once_its_slot_was_learned(tmp_path):
    modules = {"inp": {"input": True, "reads": ["inp"]}, "out": {"output": True, "reads": ["inp"]}}
    attach = {"step": 10, "verb": "attach", "name": "mid", "read_by": ["out"]}
    attach["module"] = {"reads": ["inp"]}
    close = {"verb": "route", "name": "out", "source": "inp", "open": False}
    train(toy(modules=modules, changes=[attach, close | {"step": 40}]), tmp_path / "run")
    with pytest.raises(UserError, match="would read nothing; train first"):
        train(toy(modules=modules, changes=[attach, close | {"step": 10}]), tmp_path / "other")


def test_reading_weights_keep_their_places_beside_a_module_that_no_task_runs(tmp_path):
    changes = [
        {"step": 10, "verb": "attach", "name": "idle", "module": {"features": 4}},
        {"step": 15, "verb": "attach", "name": "late", "read_by": ["trunk"]},
    ]
    changes[1]["module"] = {"reads": ["trunk", "late"]}
    train(toy(**JOINT, changes=changes, evaluate={"every": 60}), tmp_path)
    [record, _] = read_run(tmp_path).records
    weights, slots = record.run.reading_weights, record.run.slots
    assert list(slots) == ["rows", "text", "trunk", "late"] == list(weights)
    assert {weight.shape[1] for weight in weights.values()} == {sum(slots.values())}
    whole = load_model(tmp_path / "model").body.reading_weights()["trunk"]
    assert (weights["trunk"][:, -6:] == whole[:, -6:].numpy()).all()


def test_a_run_whose_network_is_frozen_for_a_while_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    changes = [
        {"step": 10, "verb": "freeze", "name": "toy_rows"},
        {"step": 11, "verb": "freeze", "name": "toy_text"},
    ]
    with pytest.raises(UserError, match=r"nothing that .* can be trained"):
        train(toy(**JOINT, changes=changes), tmp_path / "no")
    changes[1] = {"step": 30, "verb": "unfreeze", "name": "toy_rows"}
    config = toy(**JOINT, changes=changes, train={"combine": "uncertainty"})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(15, patch)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_task_that_has_left_stays_away_though_it_improves_again(tmp_path, monkeypatch):
    run = set_up(toy(**JOINT, train={"patience": 2}), fetch=print)
    run.state.scores.best_by_task["toy_rows"] = {"step": 1, "value": -1.0, "since": 2, "taken": 0}
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


@pytest.mark.parametrize("temperature", [1e-320, 1e-9])
def test_a_temperature_near_zero_draws_the_largest(temperature):
    _, names = draws({"toy_rows": {"share": 1}, "toy_text": {"share": 3}}, 20, draw=temperature)
    assert set(names) == {"toy_text"}


def test_patience_counts_only_what_was_trained_meanwhile(tmp_path):
    tasks = {"toy_rows": {"share": 1}, "toy_text": {"share": 1e9}}
    train(toy(**JOINT | {"tasks": tasks}, train={"draw": 1.0, "patience": 1}), tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert (
        saved["batches_seen"]["toy_rows"]
        == saved["scores"]["best_by_task"]["toy_rows"]["since"]
        == 0
    )


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
