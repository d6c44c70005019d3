"""A learner that is not told of boundaries knows nothing of them, whatever its strategy."""

from copy import deepcopy

import kill_and_resume
import pytest
import torch
from stream_fixtures import save_scored, train_plainly
from toy_tasks import knobs_of, toy

from thalnet_mtl import load_run, registry
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries
from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.training.checkpoint import resume_run
from thalnet_mtl.training.growth.base import GrowthRule
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.trainer import train

BY_STEP = [n for n, s in entries("strategy").items() if not getattr(s, "needs_boundaries", n)]
TASKS = {"a": {"name": "toy_rows", "head": "h"}, "b": {"name": "toy_turned", "head": "h"}}
STREAM = [{"tasks": [task], "steps": n} for task, n in (("a", 5), ("b", 6), ("a", 4))]
every_strategy = pytest.mark.parametrize("strategy", BY_STEP)


def config_of(strategy="naive", tasks=TASKS, stream=STREAM, knobs=None, evaluate=None, **options):
    options = {"boundaries": "hidden", "optimizer": "adam", "batch": 8, "clip": 1.0} | options
    return toy(
        tasks=tasks,
        stream=stream,
        strategy=knobs_of(strategy, memory=12, interval=4, strength=3.0) | (knobs or {}),
        train=options | {"strategy": strategy, "steps": 0},
        **({"evaluate": evaluate} if evaluate else {}),
    )


def step_until(run, until):
    """Take steps without a log."""
    train_step = TrainStep(run)
    while run.step < until:
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1


def trained(config):
    run = set_up(config, fetch=print)
    step_until(run, run.total_steps)
    return run


def assert_same_bits(run, other):
    weights, others = run.network.state_dict(), other.network.state_dict()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    first, second = (kill_and_resume.flatten(r.state.strategy.state_dict()) for r in (run, other))
    assert first.keys() == second.keys()
    assert [n for n in first if not kill_and_resume.equal(first[n], second[n])] == []


def blurred(blur):
    """Return the stream with blurry boundaries."""
    return [STREAM[0], *(entry | {"blur": blur} for entry in STREAM[1:])]


def renamed(entries, names):
    return [entry | {"tasks": [names[name] for name in entry["tasks"]]} for entry in entries]


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(ewc, "SAMPLES", 10)


@every_strategy
@pytest.mark.parametrize("blur", [0, 4])
def test_other_names_of_the_tasks_in_another_order_change_no_bit(strategy, blur):
    stream = blurred(blur)
    names = {"a": "z", "b": "a"}
    tasks = {names[name]: TASKS[name] for name in ("b", "a")}
    run = trained(config_of(strategy, stream=stream))
    other = trained(config_of(strategy, tasks, renamed(stream, names)))
    assert_same_bits(run, other)
    if strategy == "naive":
        swapped = {"a": TASKS["b"], "b": TASKS["a"]}
        with pytest.raises(AssertionError):
            assert_same_bits(run, trained(config_of(strategy, swapped, stream)))


@every_strategy
def test_a_boundary_between_equal_tasks_changes_no_bit(strategy):
    cut = [{"tasks": ["a"], "steps": 3}, {"tasks": ["a"], "steps": 2}, *STREAM[1:]]
    options = {"warmup": 2, "dropout": 0.2}
    assert_same_bits(
        trained(config_of(strategy, **options)), trained(config_of(strategy, stream=cut, **options))
    )


@pytest.mark.parametrize("strategy", ["si", "lwf"])
def test_a_whole_training_leaves_the_bits_of_its_steps_and_a_row_at_each_hidden_change(
    strategy, tmp_path
):
    config = config_of(strategy, evaluate={"every": 4, "checkpoint_every": 3, "log_every": 3})
    result = train(config, tmp_path / "run")
    network, run = load_run(tmp_path / "run").network, trained(config)
    weights = network.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in run.network.state_dict().items())
    rows = (tmp_path / "run" / "accuracy_matrix.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 and all("" not in row.split(",") for row in rows)
    assert result.continual.scenario == "domain-incremental, hidden boundaries"
    assert result.continual.ends == [5, 11, 15]


@every_strategy
def test_a_run_that_is_resumed_anywhere_goes_on_to_the_same_bits(strategy, tmp_path):
    config = config_of(strategy, stream=blurred(4))
    whole, cut = trained(config), set_up(config, fetch=print)
    for stop in (3, 7, 14):
        step_until(cut, stop)
        save_scored(tmp_path / "run.pt", cut)
        cut = set_up(config, fetch=print)
        resume_run(tmp_path / "run.pt", cut)
    step_until(cut, 15)
    assert_same_bits(whole, cut)


def test_naive_training_is_that_of_a_plain_loop_over_the_stream():
    run = set_up(config_of(optimizer="sgd", clip=0.0, learning_rate=0.05), fetch=print)
    run.network.double()
    network, mixed = deepcopy(run.network), run.task_stream
    data = [mixed.training_batch(step, 8, 1, 0)[:2] for step in range(15)]
    step_until(run, 15)
    train_plainly(network, "h", data)
    for name, weight in run.network.state_dict().items():
        torch.testing.assert_close(weight, network.state_dict()[name], rtol=2e-5, atol=2e-6)


REFUSED = {
    "one experience": ({"stream": STREAM[:1]}, "at least two experiences"),
    "a long blur": ({"stream": blurred(9)}, "experience 2 has 2 steps before .* a blur of 9"),
    "a blur of nothing": ({"stream": [STREAM[0] | {"blur": 2}, *STREAM[1:]]}, "a blur of 2 does"),
    "a schedule": ({"schedule": "cosine"}, "train.schedule cosine .* leave it at constant"),
    "early stopping": ({"patience": 2}, "train.patience 2"),
    "heads": ({"tasks": {n: {"name": t["name"]} for n, t in TASKS.items()}}, "share one head"),
    "shapes": (
        {"tasks": TASKS | {"b": {"name": "toy_wide", "head": "h"}}},
        "task 'b' has another shape",
    ),
    "a text": (
        {"tasks": {n: {"name": "toy_text", "head": "h"} for n in TASKS}},
        "is a TextTask; only tasks whose sequences are read whole",
    ),
    "weights": ({"tasks": TASKS | {"b": TASKS["b"] | {"weight": 2}}}, "tasks.b.weight would tell"),
    "unknown": ({"tasks": TASKS | {"b": TASKS["b"] | {"unknown": True}}}, "tasks.b.unknown has no"),
    "batches": ({"tasks": TASKS | {"b": TASKS["b"] | {"batch": 9}}}, "tasks.b.batch"),
    "losses": (
        {"tasks": TASKS | {"b": TASKS["b"] | {
            "loss": {"name": "cross_entropy", "class_weights": "balanced"}}}},
        "the loss of task 'b' is not that of 'a'",
    ),
    "too many steps": ({"stream": [*STREAM, {"tasks": ["a"], "steps": 30}]}, "has 300 training"),
    "shares": ({"stream": [{"tasks": ["a", "b"], "shares": [1.0]}, *STREAM]}, "1 shares for a, b"),
    "no share": ({"stream": [{"tasks": ["a"], "shares": [0.0]}, *STREAM]}, "must be above 0"),
    "gem": ({"strategy": "gem"}, "gem does not work there: .*Allowed: agem, lwf, naive, .*, si"),
    "ewc": ({"strategy": "ewc"}, "it has a penalty for each experience"),
    "avalanche": ({"strategy": "avalanche:naive"}, "another library takes its steps"),
    "a balanced memory": (
        {"strategy": "replay", "knobs": {"choice": "per_class"}},
        "counts the classes of all tasks before they come",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_tell_the_learner_of_boundaries_is_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        set_up(config_of(**options), fetch=print)


ANNOUNCED = {
    "shares": ({"stream": [{"tasks": ["a"], "shares": [1.0]}, *STREAM]}, "shares mixes tasks"),
    "blur": ({"stream": blurred(2)}, "blur mixes tasks within a batch; set train.boundaries"),
    "interval": ({"strategy": "si", "knobs": {"interval": 4}}, "interval 4 has no effect"),
}


@pytest.mark.parametrize("case", ANNOUNCED)
def test_what_has_no_effect_where_boundaries_are_announced_is_refused(case):
    options, message = ANNOUNCED[case]
    with pytest.raises(UserError, match=message):
        set_up(config_of(**{"boundaries": "announced"} | options), fetch=print)


def test_growth_is_refused():
    config = config_of()
    grown = toy(tasks=TASKS, stream=STREAM, train={"boundaries": "hidden"},
                growth={"when": "per_task", "modules": {"m": {"output": True}}})  # fmt: skip
    assert set_up(config, fetch=print).task_stream
    with pytest.raises(UserError, match=r"growth.when per_task does not work there: it acts"):
        set_up(grown, fetch=print)


def test_an_experience_without_steps_is_a_pass_in_its_shares():
    stream = [{"tasks": ["a", "b"], "shares": [3, 1]}, {"tasks": ["b"], "steps": 5}]
    run = set_up(config_of(stream=stream), fetch=print)
    # 37 batches of a in an epoch, and three quarters of every batch are of a.
    assert [e.stop for e in run.stream] == [49, 54]
    assert run.task_stream.counts[:49].sum(0).tolist() == [294, 98]


def test_a_strategy_and_a_rule_of_ones_own_say_that_they_work_by_step(monkeypatch):
    strategy = type("Own", (Strategy,), {})
    monkeypatch.setitem(registry._entries["strategy"], "own", strategy)
    with pytest.raises(UserError, match="own does not work there: it does not say that it works"):
        set_up(config_of("own"), fetch=print)
    strategy.needs_boundaries = ""
    assert isinstance(set_up(config_of("own"), fetch=print).state.strategy, strategy)
    rule = type("Rule", (GrowthRule,), {})
    monkeypatch.setitem(registry._entries["growth"], "rule", rule)
    grown = toy(tasks=TASKS, stream=STREAM, train={"boundaries": "hidden"}, growth={"when": "rule"})
    with pytest.raises(UserError, match=r"growth.when rule does not work there: it acts when"):
        set_up(grown, fetch=print)
    rule.needs_boundaries = ""
    assert isinstance(set_up(grown, fetch=print).state.rule, rule)
