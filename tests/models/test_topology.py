"""Modules that come, go, freeze and are rewired between optimizer steps: laws, verbs, mistakes."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from growth_laws import LAWS, frozen_tasks_do_not_change, optimizers_follow_every_change
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from properties import DESIGNS, LEARNED_READINGS, READINGS, assert_close, examples, seeds
from random_networks import (
    FAVORED,
    OPTIMIZERS,
    TASKS,
    Case,
    assert_carried,
    assert_near,
    assert_same,
    case_of,
)
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW

from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec

# A smaller seed is no simpler case: nothing is gained by looking for one.
some = partial(examples, phases=[Phase.generate])

every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
every_reading = pytest.mark.parametrize("reading", READINGS)
every_design = pytest.mark.parametrize("design", DESIGNS)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def weights_of(case, *starts):
    weights = case.snapshot()["weights"]
    return {name: value for name, value in weights.items() if name.startswith(starts)}


def held(case):
    return {name for group in case.snapshot()["groups"] for name in group["params"]}


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 250


# The laws


@every_law
@pytest.mark.parametrize("favored", FAVORED, ids="-".join)
@given(seed=seeds)
@some(max_examples=3)
def test_growth_keeps_its_laws_with_every_reading_and_design(law, favored, seed):
    law(Case(seed, favored))


@every_optimizer
@given(seed=seeds)
@some(max_examples=4)
def test_every_optimizer_follows_every_change(optimizer, seed):
    optimizers_follow_every_change(Case(seed, optimizer=optimizer))


@given(seed=seeds, reading=st.sampled_from(READINGS))
@some(max_examples=2)
def test_a_frozen_task_survives_twenty_attachments_in_mixed_precision(seed, reading):
    case = Case(seed, [reading], AdamW, torch.float32)
    case.train(3)
    case.change("freeze", task="a")
    before, attached = case.logits("a"), 0
    while attached < 20:
        _, (module,), options = case.proposal(["attach"])
        try:
            case.change("attach", module, **options)
        except UserError:
            continue
        attached += 1
        case.train(1, clip=0.1, bf16=True)
        assert torch.equal(case.logits("a"), before)
    case.train(1, clip=0.1, bf16=True)
    assert case.logits("b").isfinite().all()
    assert torch.equal(case.logits("a"), before)


@pytest.fixture
def process_group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
@given(seed=seeds)
@some(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_frozen_task_does_not_change_while_others_train_in_data_parallel(process_group, seed):
    wrap = partial(DistributedDataParallel, find_unused_parameters=True)
    frozen_tasks_do_not_change(Case(seed), wrap)


# Attach


@pytest.mark.parametrize("reading", LEARNED_READINGS)
def test_an_opened_slot_is_trained(reading):
    case = case_of(reading=reading)
    case.train(2)
    before = case.snapshot()
    change = case.change(
        "attach", ModuleSpec("new", 2, 2, reads=("input_a",)), read_by=["output_a"]
    )
    assert_carried(before, case.snapshot(), change)
    assert "new" in case.network.active_modules("a")
    case.train(3)
    ways = case.network.body.reading_weights({"input_a": case.batch("a", 0)[0]})["output_a"]
    assert ways[:, case.network.body.slots["new"]].any()
    with torch.no_grad():
        outputs = case.logits("a")
        for parameter in case.network.body.cells["new"].design.parameters():
            parameter.zero_()
    assert not torch.equal(case.logits("a"), outputs)


def test_a_random_reading_keeps_its_initial_weights_through_training_and_growth():
    case = case_of(reading="random")
    before = weights_of(case, "body.cells.output_a.reading")
    assert not [name for name, _ in case.network.named_parameters() if "reading" in name]
    case.change("attach", ModuleSpec("new", 2, 2, reads=("input_a",)), read_by=["output_a"])
    case.train(3)
    ((name, weight),) = weights_of(case, "body.cells.output_a.reading").items()
    assert torch.equal(weight[:, :3], before[name])
    assert weight.shape == (2, 5) and not weight[:, 3:].any()
    again = case.saved_and_loaded()
    assert_same(weights_of(again, name), {name: weight})
    case.change("detach", "new")
    assert_same(weights_of(case, name), before)


@every_reading
def test_weights_of_a_slot_are_kept_when_another_slot_is_opened(reading):
    case = case_of(reading=reading)
    case.change("attach", ModuleSpec("new", 2, 2, reads=("input_a",)), read_by=["output_a"])
    case.train(3)
    before, outputs, state = case.snapshot(), case.outputs(), case.states()["a"]
    later = case.logits("a", 1, state)
    change = case.change("attach", ModuleSpec("newer", 3, 2), read_by=["side", "output_a"])
    assert_carried(before, case.snapshot(), change)
    assert_near(case.outputs(), outputs)
    assert_close(case.logits("a", 1, change.update_state("a", state)), later)
    case.train()
    case.change("route", "output_a", "input_a")
    case.train()
    before = case.snapshot()
    change = case.change("detach", "new")
    assert_carried(before, case.snapshot(), change)


def test_a_new_module_has_the_type_of_the_others():
    case = Case(0, dtype=torch.float64)
    case.change("attach", ModuleSpec("new", 2, 2))
    assert {p.dtype for p in case.network.parameters()} == {torch.float64}


def test_a_new_module_reads_all_modules_of_its_tasks_by_default():
    case = case_of()
    case.change("attach", ModuleSpec("mine", 2, 2, tasks=("a",)))
    case.change("attach", ModuleSpec("yours", 2, 2, tasks=("b",)))
    case.change("attach", ModuleSpec("ours", 2, 2))
    first, second, third = list(case.network.body.graph.values())[-3:]
    old = ("input_a", "side", "output_a", "input_b", "output_b")
    assert first.reads == (*old, "mine") and second.reads == (*old, "yours")
    assert third.reads == (*old, "mine", "yours", "ours")


def test_a_task_that_may_not_run_a_module_does_not_pay_for_it():
    case = case_of()
    case.change("attach", ModuleSpec("new", 2, 2, tasks=("b",)), read_by=["side", "output_b"])
    assert case.network.active_modules("a") == ("input_a", "side", "output_a")
    assert "new" in case.network.active_modules("b")


@pytest.mark.parametrize("group", [0, 1, None])
def test_new_parameters_join_the_requested_parameter_group(group):
    case = case_of()
    body, ports = case.network.body.parameters(), case.network.adapters.parameters()
    case.optimizer = AdamW([{"params": body}, {"params": ports, "lr": 0.1}])
    case.train()
    before = [list(options["params"]) for options in case.optimizer.param_groups]
    change = case.network.attach(ModuleSpec("new", 2, 2))
    change.update_optimizer(case.optimizer, group)
    for k, options in enumerate(case.optimizer.param_groups):
        expected = {id(p) for p in before[k]}
        expected |= {id(p) for p in change.added.values()} if k == group else set()
        in_order = [id(p) for p in case.network.parameters() if id(p) in expected]
        assert [id(p) for p in options["params"]] == in_order


def test_two_optimizers_can_share_a_growing_network():
    case = case_of()
    ports = AdamW(case.network.adapters.parameters(), lr=0.1)
    body = Adam(case.network.body.parameters(), lr=0.01)
    case.optimizer = body
    case.train(2)
    change = case.network.attach(ModuleSpec("new", 2, 2), read_by=["output_a"])
    change.update_optimizer(ports, None)
    change.update_optimizer(body)
    inside = {id(p) for p in body.param_groups[0]["params"]}
    assert inside == {id(p) for p in case.network.body.parameters()}
    outside = {id(p) for p in ports.param_groups[0]["params"]}
    assert outside == {id(p) for p in case.network.adapters.parameters()}


@pytest.mark.parametrize(
    ("kind", "key"), [(torch.optim.Adafactor, "row_var"), (torch.optim.LBFGS, "al")]
)
def test_optimizers_with_other_than_elementwise_state_are_refused_and_left_unchanged(kind, key):
    case = case_of()
    optimizer = kind(case.network.parameters(), lr=0.01)
    xs, _ = case.batch("a", 0)

    def closure():
        loss = case.network("a", xs)[0].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    before = deepcopy(optimizer.state_dict())
    held = [id(p) for p in optimizer.param_groups[0]["params"]]
    change = case.network.attach(ModuleSpec("new", 2, 2), read_by=["output_a"])
    with pytest.raises(UserError, match=f"{kind.__name__} cannot follow.*'{key}'.*AdamW") as error:
        change.update_optimizer(optimizer)
    one_line(error)
    assert_same(optimizer.state_dict(), before)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == held


@pytest.mark.parametrize("group", [-1, 1, 7])
def test_unknown_parameter_groups_are_refused(group):
    case = case_of()
    case.train()
    change = case.network.attach(ModuleSpec("new", 2, 2))
    before = deepcopy(case.optimizer.state_dict())
    with pytest.raises(UserError, match=f"group must be from 0 to 0, got {group}") as error:
        change.update_optimizer(case.optimizer, group)
    one_line(error)
    assert_same(case.optimizer.state_dict(), before)


# Freeze


@every_optimizer
@pytest.mark.parametrize("what", [{"task": "a"}, {"modules": ["input_a", "side"]}])
def test_frozen_parameters_do_not_change_until_they_are_unfrozen(optimizer, what):
    case = case_of(optimizer=optimizer)
    modules, task = what.get("modules", ["input_a", "side", "output_a"]), what.get("task")
    starts = [f"body.cells.{name}." for name in modules] + (["adapters.a."] if task else [])
    case.train(2)
    case.change("freeze", *what.get("modules", []), task=task)
    frozen = weights_of(case, *starts)
    assert held(case) == set(case.snapshot()["weights"]) - set(frozen)
    case.train(3)
    assert_same(weights_of(case, *starts), frozen)
    case.change("unfreeze", *what.get("modules", []), task=task)
    assert_same(weights_of(case, *starts), frozen)
    assert held(case) == set(case.snapshot()["weights"])
    moments = [m for name in frozen for m in case.snapshot()["state"].get(name, {}).values()]
    assert not any(moment.any() for moment in moments)  # Adagrad has some from the start
    case.train(2)
    learned = weights_of(case, *starts)
    assert not any(torch.equal(learned[name], frozen[name]) for name in frozen)


def test_gradients_pass_through_frozen_modules():
    case = case_of()
    case.change("freeze", "side", "output_a")
    before = weights_of(case, "body.cells.input_a.design")
    case.train()
    changed = weights_of(case, "body.cells.input_a.design")
    assert not any(torch.equal(changed[name], before[name]) for name in before)


def test_modules_shared_by_frozen_tasks_stay_frozen_until_both_are_unfrozen():
    case = case_of()
    case.change("add_task", "c", TASKS["c"], input_modules=["input_a"], output_modules=["side"])
    case.change("freeze", task="a")
    case.change("freeze", task="c")
    before = case.logits("a")
    case.change("unfreeze", task="c")
    case.train(2)
    assert torch.equal(case.logits("a"), before)
    assert {name for name in held(case) if name.startswith("adapters.c.")}
    case.change("unfreeze", task="a")
    assert held(case) == set(case.snapshot()["weights"])


def test_freezing_between_backward_and_step_leaves_no_gradient_behind():
    case = case_of()
    xs, _ = case.batch("a", 0)
    case.network("a", xs)[0].sum().backward()
    case.change("freeze", task="a")
    assert all(p.grad is None for p in case.network.task_parameters("a").values())


def test_a_frozen_task_of_a_baseline_does_not_change():
    network = build(ModelConfig(body="gru", features=4, layers=1), {"a": TASKS["a"]})
    network.add_task("c", TASKS["c"])
    case = Case(0, dtype=torch.float32)
    case.network, case.optimizer = network, SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    case.train(2)
    case.change("freeze", task="a")
    before = case.outputs()
    case.train(2)
    after = case.outputs()
    assert torch.equal(after["a"], before["a"]) and not torch.equal(after["c"], before["c"])
    again = Network.from_description(network.describe())
    again.load_state_dict(network.state_dict())
    assert torch.equal(again("a", case.batch("a", 0)[0])[0], case.logits("a"))
    learns = {name: p.requires_grad for name, p in again.named_parameters()}
    assert learns == case.snapshot()["learns"]
    case.change("unfreeze", task="a")
    case.train(2)
    assert not torch.equal(case.outputs()["a"], before["a"])


# Tasks, and modules that do not run for all of them


def test_removing_a_task_removes_its_adapter_and_its_moments():
    case = case_of()
    case.train()
    outputs = case.outputs()
    change = case.change("remove_task", "b")
    assert list(case.network.adapters) == ["a"]
    assert {"adapters.b.head.weight", "adapters.b.head.bias"} <= change.removed.keys()
    assert held(case) == set(case.snapshot()["weights"])
    assert torch.equal(case.outputs()["a"], outputs["a"])


def test_a_module_may_read_nothing_that_runs_for_a_task():
    case = case_of()
    case.change("attach", ModuleSpec("new", 2, 2, reads=("input_b",)), read_by=["output_a"])
    assert case.network.active_modules("a") == ("input_a", "side", "output_a", "new")
    assert case.logits("a").isfinite().all()
    case.train()


def test_an_input_module_that_the_head_does_not_depend_on_is_not_run():
    network = Network(ThalNet(modules=list(case_of().network.body.graph.values())))
    network.add_task(
        "c", TASKS["c"], input_modules=["input_a", "input_b"], output_modules=["output_a"]
    )
    assert network.active_modules("c") == ("input_a", "side", "output_a")
    assert network("c", torch.rand(2, 3, 2))[0].shape == (2, 3, 4)


@every_design
def test_a_carried_state_follows_attached_and_detached_modules(design):
    case = case_of()
    case.change("attach", ModuleSpec("last", 2, 2, module=design), read_by=["output_a", "output_b"])
    case.train(2)
    state = case.states()["b"]
    whole = case.logits("b", 1, state)
    change = case.change(
        "attach", ModuleSpec("new", 2, 2, module=design), read_by=["output_b", "last"]
    )
    assert_close(case.logits("b", 1, change.update_state("b", state)), whole)
    back = case.change("detach", "new")
    again = back.update_state("b", change.update_state("b", state))
    assert_same(again._asdict(), state._asdict())
    assert change.update_state("b", None) is None


# Mistakes


def grown():
    """A case with a module ``new`` that ``output_a`` reads, and with ``side`` frozen."""
    case = case_of()
    case.train()
    case.change("attach", ModuleSpec("new", 2, 2, reads=("input_a",)), read_by=["output_a"])
    case.change("freeze", "side")
    case.train()
    return case


NEW = partial(ModuleSpec, "newer", 2, 2)


@pytest.mark.parametrize(
    ("verb", "arguments", "options", "message"),
    [
        ("attach", [ModuleSpec("input_a", 2, 2)], {}, "a module 'input_a' already"),
        ("attach", [ModuleSpec("a.b", 2, 2)], {}, "'a.b'"),
        ("attach", [ModuleSpec("training", 2, 2)], {}, "'training'"),
        ("attach", [NEW(reads=("inptu_a",))], {}, "Did you mean 'input_a'"),
        ("attach", [NEW(reads=("input_a", "input_a"))], {}, "different"),
        ("attach", [NEW(reads=())], {}, "reads no slot"),
        ("attach", [NEW(reads=("newer",))], {}, "'newer' would read only newer"),
        ("attach", [NEW(module="ffgru")], {}, "Did you mean 'ff_gru'"),
        ("attach", [NEW(reading="liner")], {}, "Did you mean 'linear'"),
        ("attach", [ModuleSpec("newer", 0, 2)], {}, "at least 1"),
        ("attach", [NEW()], {"read_by": ["outptu_a"]}, "Did you mean 'output_a'"),
        ("attach", [NEW()], {"read_by": ["output_a", "output_a"]}, "different"),
        ("attach", [NEW()], {"read_by": ["output_a", "side"]}, "'side' is frozen"),
        ("attach", [NEW()], {"read_by": ["newer"]}, "newer"),
        ("clone", ["inptu_a", "newer"], {}, "Did you mean 'input_a'"),
        ("clone", ["input_a", "side"], {}, "a module 'side' already"),
        ("clone", ["input_a", "a.b"], {}, "'a.b'"),
        ("detach", ["ner"], {}, "Did you mean 'new'"),
        ("detach", ["input_a"], {}, "task 'a' needs module 'input_a'"),
        ("detach", ["output_a"], {}, "task 'a' needs module 'output_a'"),
        ("route", ["output_a", "inptu_b"], {}, "Did you mean 'input_b'"),
        ("route", ["outptu_a", "input_b"], {}, "Did you mean 'output_a'"),
        ("route", ["output_a", "new"], {}, "reads 'new' already"),
        ("route", ["output_a", "input_b"], {"open": False}, "does not read 'input_b' already"),
        ("route", ["side", "input_b"], {}, "'side' is frozen"),
        ("route", ["side", "input_a"], {"open": False}, "'side' is frozen"),
        ("route", ["input_b", "input_b"], {"open": False}, "reads only 'input_b'"),
        ("freeze", [], {}, "freeze: name at least one"),
        ("freeze", ["inptu_a"], {}, "Did you mean 'input_a'"),
        ("freeze", [], {"task": "z"}, "unknown task 'z'"),
        ("unfreeze", [], {}, "unfreeze: name at least one"),
        ("unfreeze", ["input_a", "outptu_a"], {}, "Did you mean 'output_a'"),
        ("remove_task", ["z"], {}, "unknown task 'z'"),
        ("add_task", ["a", TASKS["a"]], {}, "a task 'a' already"),
        (
            "add_task",
            ["c", TASKS["c"]],
            {"input_modules": ["input_b"], "output_modules": ["output_a"]},
            "no path",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line_and_change_nothing(verb, arguments, options, message):
    case = grown()
    before, outputs = case.snapshot(), case.outputs()
    with pytest.raises(UserError, match=message) as error:
        case.change(verb, *arguments, **options)
    one_line(error)
    assert_same(case.snapshot(), before)
    assert_same(case.outputs(), outputs)


def test_a_task_keeps_a_path_from_its_input_to_its_head():
    case = case_of()
    case.change("route", "output_a", "output_a")
    before = case.snapshot()
    with pytest.raises(UserError, match=r"'output_a'.*no input|no path|nothing yet") as error:
        case.change("route", "output_a", "side", open=False)
    one_line(error)
    assert_same(case.snapshot(), before)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("attach", [ModuleSpec("new", 2, 2)]),
        ("detach", ["new"]),
        ("clone", ["old", "new"]),
        ("route", ["old", "new"]),
        ("freeze", ["old"]),
        ("unfreeze", ["old"]),
    ],
)
def test_a_baseline_has_no_modules(verb, arguments):
    network = build(ModelConfig(body="gru", features=4, layers=1), {"a": TASKS["a"]})
    with pytest.raises(UserError, match=f"{verb}: only a ThalNet has modules") as error:
        getattr(network, verb)(*arguments)
    one_line(error)
