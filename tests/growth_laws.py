"""The laws of growth, tested on random networks in training; as a script also on a GPU::

    python tests/growth_laws.py --device cuda --examples 50

A law is a function of a case. It changes the network and raises if a guarantee is broken.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from random_networks import (
    BATCH,
    FAVORED,
    TIME,
    Case,
    assert_carried,
    assert_near,
    assert_same,
    assert_unchanged,
)
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.search.edges import closed_edges, growing_modules
from thalnet_mtl.training.search.prune import can_be_removed, remove


def attaching_leaves_outputs_unchanged(case: Case) -> None:
    """Check law 1, with and without opened modules, from initial and from carried states."""
    case.walk(2)
    for _ in range(2):
        states, active = case.states(), case.active()
        outputs, later = case.outputs(), case.outputs(states)
        _, (module,), options = case.proposal(["attach"])
        try:
            change = case.change("attach", module, **options)
        except UserError:
            continue
        updated = {task: change.update_state(task, state) for task, state in states.items()}
        assert_unchanged(case, outputs, active, opened=options["read_by"])
        assert_unchanged(case, later, active, updated, options["read_by"])
        case.train()


def frozen_tasks_do_not_change(
    case: Case, wrap: Callable[[nn.Module], nn.Module] = lambda network: network
) -> None:
    """Check law 2: a frozen task is unaffected by training and changes for other tasks."""
    case.walk(2)
    task = case.random.choice(list(case.network.adapters))
    before = case.logits(task)
    case.change("freeze", task=task)
    assert torch.equal(case.logits(task), before)
    uses = set(case.network.active_modules(task))
    seen = {name for m in uses for name in case.network.body.graph[m].reads}

    def allows(verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> bool:
        touched = {"detach": seen | uses, "route": uses, "remove_task": {task}}
        return verb != "unfreeze" and arguments[:1] not in [[x] for x in touched.get(verb, ())]

    bf16 = case.dtype == torch.float32
    for _ in range(3):
        case.walk(1, allows, clip=0.1, bf16=bf16, wrap=wrap)
        trained = [name for name in case.network.adapters if name != task]
        case.train(2, trained, clip=0.1, bf16=bf16, wrap=wrap)
        assert torch.equal(case.logits(task), before)
    case.train(2)
    assert torch.equal(case.logits(task), before)


def optimizers_follow_every_change(case: Case) -> None:
    """Check law 3 after every change; learning rate schedulers continue unaffected."""
    never = case.duplicate()
    schedules = [ExponentialLR(each.optimizer, 0.9) for each in (case, never)]
    for _ in range(3):
        case.walk(2)
        never.train()
        for schedule in schedules:
            schedule.step()
        rates = [[group["lr"] for group in each.optimizer.param_groups] for each in (case, never)]
        assert rates[0] == rates[1] == schedules[0].get_last_lr()


def detaching_undoes_attaching(case: Case) -> None:
    """Check law 4, with and without opened modules."""
    case.walk(2)
    for _ in range(2):
        before, outputs = case.snapshot(), case.outputs()
        _, (module,), options = case.proposal(["attach"])
        try:
            case.change("attach", module, **options)
        except UserError:
            continue
        case.change("detach", module.name)
        assert_same(case.snapshot(), before)
        assert_same(case.outputs(), outputs)
        case.train()


def unread_modules_disturb_nobody(case: Case) -> None:
    """Check law 5: a module that nobody reads leaves training bit-identical."""
    case.walk(2)
    never = case.duplicate()
    for verb in ("attach", "clone"):
        _, arguments, options = case.proposal([verb])
        try:
            case.change(verb, *arguments, **options | ({"read_by": []} if verb == "attach" else {}))
        except UserError:
            continue
        for each in (case, never):
            each.train(2, clip=0.1)
        assert_same(case.outputs(), never.outputs())
    now, then = case.snapshot(), never.snapshot()
    for part in ("weights", "state"):
        assert_same({name: now[part][name] for name in then[part]}, then[part])


def saved_networks_continue(case: Case) -> None:
    """Check law 6: a saved and loaded case trains and grows on, bit for bit the same."""
    case.walk(3)
    again = case.saved_and_loaded()
    for changes in (0, 1):
        for each in (case, again):
            torch.manual_seed(0)
            each.walk(changes)
            each.train(1 + changes, clip=0.1)
        now, then = again.snapshot(), case.snapshot()
        for group in (*now["groups"], *then["groups"]):
            group["params"].sort()
        assert_same(now, then)
        assert_same(again.outputs(), case.outputs())


def clones_equal_their_source(case: Case) -> None:
    """Check that a clone has the features of its source and is trainable."""
    case.walk(3)
    draw, body = case.random, case.network.body
    source, name = draw.choice(list(body.graph)), "clone"
    if draw.random() < 0.5:
        case.change("freeze", source)
    outputs, active, before = case.outputs(), case.active(), case.snapshot()
    change = case.change("clone", source, name, tasks=draw.choice([None, ["a"], ["zebra"]]))
    assert_carried(before, case.snapshot(), change)
    assert_unchanged(case, outputs, active)
    modules = body.graph
    assert modules[name].reads == tuple(
        other
        for other in modules
        if other in {name if seen == source else seen for seen in modules[source].reads}
    )
    xs = {
        other: torch.rand(BATCH, TIME, modules[other].inputs, dtype=case.dtype, device=case.device)
        for other in body.input_modules
    }
    if modules[source].inputs:
        xs[name] = xs[source]
    with torch.no_grad(), evaluation_mode(body):
        features = [body(xs, outputs=[which])[0] for which in (source, name)]
    assert_near({"": features[1]}, {"": features[0]})
    assert not modules[name].frozen
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    for parameter in body.cells[name].parameters():
        assert parameter.requires_grad and id(parameter) in held
    case.change("detach", name)
    assert_same(case.snapshot(), before)


def opened_routes_change_nothing(case: Case) -> None:
    """Check that opening a route changes no output, and that closing it restores everything."""
    case.walk(3)
    modules = case.network.body.graph
    pairs = [(r, s) for r in modules for s in modules if s not in modules[r].reads]
    for reader, source in case.random.sample(pairs, min(2, len(pairs))):
        states, before = case.states(), case.snapshot()
        outputs, later = case.outputs(), case.outputs(states)
        try:
            change = case.change("route", reader, source)
        except UserError:  # frozen, or no task runs both
            continue
        assert_carried(before, case.snapshot(), change)
        assert_unchanged(case, outputs, {})
        assert_unchanged(
            case, later, {}, {t: change.update_state(t, state) for t, state in states.items()}
        )
        case.change("route", reader, source, open=False)
        assert_same(case.snapshot(), before)
        assert_same(case.outputs(), outputs)


def connected_modules_change_nothing(case: Case) -> None:
    """Check that a head that reads a further module gives the same logits, until it disconnects."""
    case.walk(2)
    for _ in range(2):
        _, arguments, options = case.proposal(["connect"])
        graph, (task,) = case.network.body.graph, arguments
        run = case.network.active_modules(task)
        read_as_zero = {slot for name in run for slot in graph[name].reads} - set(run)
        if read_as_zero & set(options["output_modules"]):
            continue
        states, before = case.states(), case.snapshot()
        outputs, later = case.outputs(), case.outputs(states)
        try:
            change = case.change("connect", *arguments, **options)
        except UserError:  # frozen, or nothing left to read
            continue
        assert_carried(before, case.snapshot(), change)
        assert_unchanged(case, outputs, {})
        updated = {task: change.update_state(task, state) for task, state in states.items()}
        assert_unchanged(case, later, {}, updated)
        again = case.duplicate()
        again.change("disconnect", task, *options["output_modules"])
        assert_same(again.snapshot(), before)
        case.train()


def paths_cloned_together_equal_their_source(case: Case) -> None:
    """Check that copies which read each other give a task the logits of what they copy."""
    case.walk(2)
    task = case.random.choice(list(case.network.adapters))
    spec, path = case.network.adapter(task).spec, case.network.active_modules(task)
    before, outputs = case.snapshot(), case.outputs()
    copies = {name: f"copy_{name}" for name in path}
    change = case.change("clone_together", copies, tasks=())
    assert_carried(before, case.snapshot(), change)
    assert_same(case.outputs(), outputs)
    case.change(
        "add_task",
        "copied",
        spec.task,
        input_modules=[copies[name] for name in spec.input_modules if name in copies],
        output_modules=[copies[name] for name in spec.output_modules],
        sub_steps=spec.sub_steps,
        extra_steps=spec.extra_steps,
    )
    old, new = (case.network.adapter(name) for name in (task, "copied"))
    new.head.load_state_dict(old.head.state_dict())
    for module, encoder in old.encoders.items():
        new.encoders[copies.get(module, module)] = encoder
    assert set(case.network.active_modules("copied")) == set(copies.values())
    with torch.no_grad(), evaluation_mode(case.network):
        logits, _ = case.network("copied", case.batch(task, 1)[0])
    assert_near({"": logits}, {"": outputs[task]})


def growth_and_pruning_of_a_task_touch_no_other(case: Case) -> None:
    """Check that what the search opens, attaches and takes out leaves a frozen task as it is."""
    case.walk(2)
    grown, frozen = case.random.sample(list(case.network.adapters), 2)
    case.change("freeze", task=frozen)
    if not any(p.requires_grad for p in case.network.adapter(grown).parameters()):
        return
    before = case.logits(frozen)

    def trains_on() -> None:
        case.train(2, [grown], clip=0.1)
        assert torch.equal(case.logits(frozen), before)

    edges = closed_edges(case.network, grown)
    for reader, source in case.random.sample(edges, min(2, len(edges))):
        try:
            case.change("route", reader, source)
        except UserError:  # its columns are fixed, for one
            continue
        trains_on()
    name, spec = f"m{case.modules}", case.network.adapter(grown).spec
    width = case.network.body.graph[spec.input_modules[0]].inputs
    case.change("attach", ModuleSpec(name, 2, 2, inputs=width, reads=(name,)))
    assert name not in case.network.active_modules(grown)
    case.change("connect", grown, input_modules=[name], output_modules=[name])
    trains_on()
    assert name in growing_modules(case.network, grown)
    assert not set(growing_modules(case.network, grown)) & set(case.network.active_modules(frozen))
    for module in case.random.sample(growing_modules(case.network, grown), 1):
        if can_be_removed(case.network, grown, [module]):
            snapshot = case.duplicate()
            for change in remove(case.network, grown, [module]):
                change.update_optimizer(case.optimizer)
            trains_on()
            assert module not in case.network.body.graph
            assert torch.equal(snapshot.logits(frozen), before)  # where it is rolled back


LAWS = (
    attaching_leaves_outputs_unchanged,
    frozen_tasks_do_not_change,
    optimizers_follow_every_change,
    detaching_undoes_attaching,
    unread_modules_disturb_nobody,
    saved_networks_continue,
    clones_equal_their_source,
    opened_routes_change_nothing,
    connected_modules_change_nothing,
    paths_cloned_together_equal_their_source,
    growth_and_pruning_of_a_task_touch_no_other,
)


def main() -> int:
    """Try all laws on a device and return the exit status."""
    parser = argparse.ArgumentParser(description="Try the laws of growth on random networks.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--examples", type=int, default=20)
    options = parser.parse_args()
    broken = 0
    for law in LAWS:
        verdict = "holds"
        for seed in range(options.examples):
            favored = FAVORED[seed % len(FAVORED)]
            try:
                law(Case(seed, favored, device=options.device))
            except Exception as error:  # the remaining laws are still tried
                of = ", ".join(favored)
                verdict = f"BROKEN at seed {seed} ({of}): {type(error).__name__}: {error}"
                broken += 1
                break
        print(f"{law.__name__}: {seed + 1} examples, {verdict}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
