"""Optimizers follow a network that changes: their groups, the order and names of parameters."""

from functools import partial

import pytest
import torch
from hypothesis import Phase, given
from properties import examples, seeds
from random_networks import Case, assert_same, case_of
from torch.optim import SGD, Adagrad, Adam, AdamW

from thalnet_mtl.models.network import Network
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.optimizers import optimizer_state

some = partial(examples, phases=[Phase.generate])
NEW = ModuleSpec("new", 2, 2)


def trainable(network):
    return [p for p in network.parameters() if p.requires_grad]


def state_by_name(optimizer, network):
    return optimizer_state(optimizer, dict(network.named_parameters()))["state"]


def names_of_groups(case):
    names = {id(p): name for name, p in case.network.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in case.optimizer.param_groups]


def names_of_network(case):
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    return [name for name, p in case.network.named_parameters() if id(p) in held]


def decayed(network, optimizer=AdamW):
    """Return an optimizer as it is usual: weight decay for matrices, none for vectors."""
    parameters = trainable(network)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return optimizer(groups, lr=0.01)


@given(seed=seeds)
@some(max_examples=6)
def test_a_state_saved_after_growth_loads_into_a_new_optimizer_of_a_loaded_network(seed):
    case = Case(seed, optimizer=Adam)
    case.optimizer = Adam(trainable(case.network), lr=0.01)
    case.train()
    case.walk(4)
    network = Network.from_description(case.network.describe()).to(dtype=case.dtype)
    network.load_state_dict(case.network.state_dict())
    again = Adam(trainable(network), lr=0.01)
    again.load_state_dict(case.optimizer.state_dict())
    assert_same(state_by_name(again, network), state_by_name(case.optimizer, case.network))


@given(seed=seeds)
@some(max_examples=6)
def test_vectors_without_weight_decay_stay_without(seed):
    case = Case(seed, optimizer=AdamW)
    case.optimizer = decayed(case.network)
    case.walk(3)
    for task in case.network.adapters:
        case.change("freeze", task=task)
    assert not names_of_groups(case)[0] & {n for n, _ in case.network.named_parameters("adapters")}
    case.change("attach", NEW)  # nothing like it is held, but what is frozen is remembered
    for task in case.network.adapters:
        case.change("unfreeze", task=task)
    case.walk(2)
    matrices, vectors = names_of_groups(case)
    parameters = dict(case.network.named_parameters())
    assert {parameters[name].ndim > 1 for name in matrices} == {True}
    assert {parameters[name].ndim > 1 for name in vectors} == {False}
    assert len(matrices | vectors) == len(trainable(case.network))
    again = decayed(case.network)  # of the same order
    again.load_state_dict(case.optimizer.state_dict())
    assert_same(state_by_name(again, case.network), state_by_name(case.optimizer, case.network))


@pytest.mark.parametrize("saved", [False, True])
def test_what_was_frozen_returns_to_its_own_group(saved):
    case = case_of()
    cells = case.network.body.cells
    first = [p for name in ("side", "output_a") for p in cells[name].parameters()]
    rest = [p for p in case.network.parameters() if all(p is not other for other in first)]
    groups = [{"params": rest}, {"params": first, "lr": 0.5}]
    case.optimizer = AdamW(groups, lr=0.01)
    before = names_of_groups(case)
    case.change("freeze", "side", "output_a")
    assert names_of_groups(case) == [before[0], set()]
    if saved:
        again = AdamW([{"params": rest}, {"params": []}])
        again.load_state_dict(case.optimizer.state_dict())
        case.optimizer = again
    case.change("unfreeze", "side")
    case.change("unfreeze", "output_a")
    assert names_of_groups(case) == before
    assert not any("frozen" in group for group in case.optimizer.param_groups)


def test_a_group_forgets_a_frozen_module_that_is_detached():
    case = case_of()
    case.change("attach", NEW)
    case.change("freeze", "new")
    case.change("detach", "new")
    assert not any("frozen" in group for group in case.optimizer.param_groups)


def test_a_saved_group_may_name_frozen_parameters_of_another_network():
    case = case_of()
    case.optimizer.param_groups[0]["frozen"] = ["body.cells.other.reading.weight"]
    case.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    case.change("attach", NEW)
    assert len(names_of_network(case)) == len(trainable(case.network))
    assert not any("frozen" in group for group in case.optimizer.param_groups)


def test_a_new_head_joins_the_heads_and_a_new_module_the_modules():
    case = case_of()
    body, adapters = case.network.body.parameters(), case.network.adapters.parameters()
    case.optimizer = SGD([{"params": adapters}, {"params": body, "lr": 0.5}], lr=0.01)
    case.change("add_task", "c", case.network.adapter("a").task, input_modules=["input_a"])
    case.change("attach", NEW)
    heads, modules = names_of_groups(case)
    assert {name.split(".")[0] for name in heads} == {"adapters"}
    assert {name.split(".")[0] for name in modules} == {"body"}


def test_names_of_parameters_in_an_optimizer_follow():
    case = case_of()
    case.optimizer = AdamW(
        [(f"mine.{name}", p) for name, p in case.network.named_parameters()], lr=0.01
    )
    case.change("attach", NEW, read_by=["side"])
    case.change("freeze", "input_a")
    case.change("unfreeze", "input_a")
    case.change("detach", "new")
    case.change("attach", NEW)
    [group] = case.optimizer.param_groups
    names = dict(zip(group["param_names"], group["params"], strict=True))
    for name, parameter in case.network.named_parameters():
        known = f"mine.{name}" in names
        assert known != name.startswith(("body.cells.new", "body.cells.input_a"))
        assert names[f"mine.{name}" if known else name] is parameter
    AdamW([*names.items()]).load_state_dict(case.optimizer.state_dict())


def test_the_initial_state_of_adagrad_is_that_of_its_group():
    case = case_of()
    case.optimizer = Adagrad(case.network.parameters(), initial_accumulator_value=0.5)
    change = case.change("attach", NEW)
    for parameter in change.added.values():
        assert (case.optimizer.state[parameter]["sum"] == 0.5).all()
    case.train()


@pytest.mark.parametrize("verb", ["attach", "route", "add_task", "freeze"])
def test_gradients_accumulated_before_a_change_survive_it(verb):
    arguments = {
        "attach": [NEW], "route": ["output_a", "input_a"], "freeze": ["input_b"],
        "add_task": ["c", case_of().network.adapter("a").task],
    }[verb]  # fmt: skip
    options = {"attach": {"read_by": ["output_a"]}}.get(verb, {})
    case = case_of()
    for task in ("a", "b"):
        case.network(task, case.batch(task, 0)[0])[0].square().sum().backward()
    before = {name: p.grad.clone() for name, p in case.network.named_parameters()}
    assert sum(gradient.any() for gradient in before.values()) > len(before) / 2
    change = case.change(verb, *arguments, **options)
    assert bool(change.grown) == (verb in ("attach", "route"))
    for name, gradient in before.items():
        parameter = case.network.get_parameter(name)
        if name in change.removed:
            assert parameter.grad is None
        else:
            expected = change.grown[name].remap(gradient) if name in change.grown else gradient
            assert torch.equal(parameter.grad, expected)
