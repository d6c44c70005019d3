"""Optimizers and copies that are bound to a network follow it; a forgotten optimizer is noticed."""

import gc
import io
from copy import deepcopy
from weakref import ref

import pytest
import torch
from random_networks import TASKS, Lion, assert_near, assert_same, case_of
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from thalnet_mtl.errors import UserError
from thalnet_mtl.topology.spec import ModuleSpec

NEW = ModuleSpec("new", 2, 2, reads=("input_a",))
RANDOM = ModuleSpec("new", 2, 2, reads=("input_a",), reading="random")
# A change of case_of(), and those that have to come before.
CHANGES = {
    "attach": ([], ("attach", [NEW], {"read_by": ["output_a"]})),
    "attach, unread": ([], ("attach", [NEW], {})),
    "attach, random": ([], ("attach", [RANDOM], {"read_by": ["output_a"]})),
    "clone": ([], ("clone", ["side", "twin"], {})),
    "clone_together": ([], ("clone_together", [{"side": "twin", "input_a": "other"}], {})),
    "connect": ([], ("connect", ["a"], {"output_modules": ["side"]})),
    "disconnect": ([("connect", ["a"], {"output_modules": ["side"]})],
                   ("disconnect", ["a", "side"], {})),
    "route": ([], ("route", ["output_a", "input_a"], {})),
    "close": ([("route", ["output_a", "input_a"], {})],
              ("route", ["output_a", "side"], {"open": False})),
    "detach": ([("attach", [NEW], {"read_by": ["side"]})], ("detach", ["new"], {})),
    "unfreeze": ([("freeze", ["side"], {})], ("unfreeze", ["side"], {})),
    "add_task": ([], ("add_task", ["c", TASKS["c"]], {"input_modules": ["input_a"]})),
    "remove_task": ([], ("remove_task", ["b"], {})),
}  # fmt: skip
every_change = pytest.mark.parametrize("name", CHANGES)
some_optimizers = pytest.mark.parametrize("kind", [SGD, Adagrad, Lion])


def prepared(name, kind=AdamW, reading="linear"):
    """Return a case that has been trained, and the change to make next as a function."""
    before, (verb, arguments, options) = CHANGES[name]
    case = case_of(reading, kind)
    case.train(2)
    for earlier, values, named in before:
        case.change(earlier, *values, **named)
    case.train()

    def change():
        torch.manual_seed(0)
        return getattr(case.network, verb)(*arguments, **options)

    return case, change


# Forgotten


@every_change
@some_optimizers
def test_an_optimizer_that_is_not_told_of_a_change_says_so_at_its_next_step(name, kind):
    case, change = prepared(name, kind)
    made = change()
    before = deepcopy(case.network.state_dict())
    with pytest.raises(UserError) as error:
        case.train()
    message = str(error.value)
    assert str(made) in message and message.startswith(f"{kind.__name__} has not been told")
    assert "network.bind(optimizer)" in message and "\n" not in message
    assert_same(dict(case.network.state_dict()), dict(before))
    made.update_optimizer(case.optimizer)
    case.train()


@pytest.mark.parametrize("name", ["attach", "detach", "route", "remove_task"])
def test_an_optimizer_with_parameters_that_are_gone_says_so_at_its_first_step(name):
    case, change = prepared(name)
    optimizer = SGD(case.network.parameters(), 0.1)  # has not taken a step when the change comes
    made = change()
    message = "SGD has not been told.*holds parameters that are gone"
    with pytest.raises(UserError, match=message) as error:
        optimizer.step()
    assert str(made) in str(error.value)
    made.update_optimizer(optimizer)
    optimizer.step()


def test_parameters_that_are_gone_are_not_kept_alive():
    case, change = prepared("route")
    old = [ref(parameter) for parameter in case.network.parameters()]
    case.optimizer = None
    change()
    gc.collect()
    now = {id(parameter) for parameter in case.network.parameters()}
    assert all(p() is None or id(p()) in now for p in old) and any(p() is None for p in old)


def test_several_changes_are_told_in_one_line():
    case, change = prepared("attach")
    made = [change(), case.network.freeze("side"), case.network.add_task("c", TASKS["c"])]
    with pytest.raises(UserError, match="; ".join(map(str, made))):
        case.train()
    for each in made:
        each.update_optimizer(case.optimizer)
    case.train()


def test_what_came_and_went_again_need_not_be_told():
    case, change = prepared("attach, unread")
    change()
    case.network.detach("new")
    case.train()


def test_frozen_parameters_do_no_harm_in_an_optimizer():
    case = case_of()
    case.train()
    case.network.freeze(task="a")
    before = case.logits("a")
    case.train(2)
    assert torch.equal(case.logits("a"), before)


@pytest.mark.parametrize("way", ["new", "group", "other", "before"])
def test_an_optimizer_that_has_all_it_needs_is_not_stopped(way):
    case, change = prepared("attach, unread", SGD)
    if way == "before":  # it has not taken a step yet
        case.optimizer = SGD(case.network.parameters(), lr=0.01)
    made = change()
    if way == "new":
        case.optimizer = SGD(case.network.parameters(), lr=0.01)
    elif way == "group":
        case.optimizer.add_param_group({"params": list(made.added.values())})
    elif way == "other":
        made.update_optimizer(case.optimizer, None)
    case.train(2)


def test_of_two_optimizers_only_that_of_old_parameters_has_to_be_told():
    case = case_of()
    body = Adam(case.network.body.parameters(), lr=0.01)
    heads = SGD(case.network.adapters.parameters(), lr=0.1)  # built after the tasks were added
    for case.optimizer in (body, heads):
        case.train()
    case.network.attach(NEW, read_by=["side"]).update_optimizer(body)
    for case.optimizer in (heads, body):
        case.train()
    change = case.network.attach(ModuleSpec("newer", 2, 2), read_by=["side"])
    change.update_optimizer(heads, None)
    case.optimizer = heads
    case.train()
    case.optimizer = body
    with pytest.raises(UserError, match=r"it holds parameters that are gone: 1\. Call"):
        case.train()


def test_other_networks_and_optimizers_are_left_alone():
    case, change = prepared("attach")
    other = case.duplicate()
    other.train()
    line = torch.nn.Linear(2, 1)
    plain = Adam(line.parameters())
    line(torch.rand(3, 2)).sum().backward()
    plain.step()
    change()
    plain.step()
    other.train()


# Bound


@every_change
@some_optimizers
def test_a_bound_optimizer_follows_as_if_it_was_told(name, kind):
    case, change = prepared(name, kind)
    again, change_again = prepared(name, kind)
    case.network.bind(case.optimizer)
    change()
    change_again().update_optimizer(again.optimizer)
    assert_same(case.snapshot(), again.snapshot())
    case.train()
    again.train()
    assert_same(case.snapshot(), again.snapshot())


def test_telling_a_bound_optimizer_again_changes_nothing():
    case, change = prepared("attach")
    case.network.bind(case.optimizer)
    made = change()
    before = case.snapshot()
    made.update_optimizer(case.optimizer)
    assert_same(case.snapshot(), before)


def test_copies_of_a_network_are_not_bound_and_can_be_pickled():
    case, _ = prepared("attach")
    case.network.bind(case.optimizer)
    before = case.snapshot()
    copy = deepcopy(case.network)
    copy.attach(NEW, read_by=["side"])
    torch.save(case.network, io.BytesIO())
    assert_same(case.snapshot(), before)
    case.train()


def test_a_bound_optimizer_is_not_kept_alive():
    case, change = prepared("attach")
    case.network.bind(case.optimizer)
    optimizer = ref(case.optimizer)
    case.optimizer = None
    gc.collect()
    assert optimizer() is None
    change()


def test_what_cannot_follow_is_refused_before_anything_changes():
    case, change = prepared("attach")
    optimizer = LBFGS(case.network.parameters())
    case.network.bind(optimizer)
    optimizer.step(lambda: case.network("a", case.batch("a", 0)[0])[0].square().sum())
    case.optimizer.zero_grad()
    topology = case.network.describe()
    optimizer.state[next(case.network.parameters())]["history"] = [torch.zeros(3)]
    with pytest.raises(UserError, match="LBFGS cannot follow"):
        change()
    assert case.network.describe() == topology
    other = case_of().network
    for follower in (case.optimizer, AveragedModel(torch.nn.Linear(2, 3))):
        with pytest.raises(UserError, match=f"bind: {type(follower).__name__} is neither"):
            other.bind(follower)


# Copies


@every_change
@pytest.mark.parametrize(
    ("reading", "bound"), [("linear", True), ("linear", False), ("fast_gaussian", True)]
)
def test_averaged_weights_follow(name, reading, bound):
    case, change = prepared(name, reading=reading)
    average = AveragedModel(case.network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.requires_grad_(False).eval()
    case.network.bind(case.optimizer, *([average] if bound else []))
    case.train(2)
    average.update_parameters(case.network)
    copied = deepcopy(average.module)
    outputs = {task: average(task, case.batch(task, 1)[0])[0] for task in case.network.adapters}
    torch.manual_seed(1)
    rng = torch.get_rng_state()
    made = change()
    if not bound:
        after = torch.get_rng_state()
        made.update_copy(average)
        assert torch.equal(torch.get_rng_state(), after) and not torch.equal(after, rng)
    now, old = dict(average.module.named_parameters()), dict(copied.named_parameters())
    assert list(now) == [name for name, _ in case.network.named_parameters()]
    assert average.module.describe() | {"frozen": False} == case.network.describe()
    assert not any(p.requires_grad for p in now.values())
    assert not any(part.training for part in average.modules())
    for key, parameter in now.items():
        if key in made.grown:
            assert torch.equal(parameter, made.grown[key].remap(old[key]))
        elif key in old:
            assert torch.equal(parameter, old[key])
        elif made.verb != "clone":
            assert torch.equal(parameter, case.network.get_parameter(key))
    new_buffers = dict(case.network.named_buffers()).keys() - dict(copied.named_buffers()).keys()
    for key in new_buffers:
        assert torch.equal(average.module.get_buffer(key), case.network.get_buffer(key))
    if name not in ("close", "detach", "disconnect", "remove_task"):
        after = {task: average(task, case.batch(task, 1)[0])[0] for task in outputs}
        assert_near(after, outputs)
    for _ in range(2):
        case.train()
        average.update_parameters(case.network)


def test_a_copy_inside_several_wrappers_follows():
    case, change = prepared("attach")
    average = AveragedModel(torch.nn.DataParallel(case.network))
    case.network.bind(case.optimizer, average)
    change()
    assert average.module.module.describe() == case.network.describe()


def test_a_copy_that_missed_a_change_is_refused():
    case, change = prepared("attach")
    copy = deepcopy(case.network)
    change()
    later = case.network.route("output_b", "input_a")
    before = copy.describe()
    with pytest.raises(UserError, match="update a copy with every change") as error:
        later.update_copy(copy)
    assert "\n" not in str(error.value) and copy.describe() == before


def test_a_mapping_of_averages_follows_by_name():
    case, change = prepared("attach")
    shadow = {name: torch.rand_like(p) for name, p in case.network.named_parameters()}
    made = change()
    after = made.update_named(shadow)
    name, width = "body.cells.output_a.reading.weight", 3
    assert torch.equal(after[name][:, :width], shadow[name]) and not after[name][:, width:].any()
    assert after.keys() == shadow.keys()
    back = case.network.detach("new").update_named(after)
    assert torch.equal(back[name], shadow[name])
