"""Random networks in training, whose tasks, modules and routing change between optimizer steps."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import torch
import yaml
from properties import DESIGNS, READINGS, assert_close, drawn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, Optimizer, RMSprop

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.designs.options import with_options
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import lookup
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec
from thalnet_mtl.training.optimizers import load_optimizer_state, optimizer_state


class Lion(Optimizer):
    """An optimizer as users write it: Chen et al., "Symbolic Discovery of Optimization", 2023."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                moment = self.state[p].setdefault("moment", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (0.9 * moment + 0.1 * p.grad).sign())
                moment.mul_(0.99).add_(0.01 * p.grad)


OPTIMIZERS = [SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, Lion]
OPTIONS = {
    SGD: [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}],
    Adam: [{}, {"amsgrad": True, "weight_decay": 0.1}, {"foreach": True}],
    AdamW: [{"weight_decay": 0.1}, {"amsgrad": True}, {"fused": True}],
    RMSprop: [{}, {"momentum": 0.5, "weight_decay": 0.1}, {"centered": True, "momentum": 0.5}],
    Adagrad: [{}, {"weight_decay": 0.1}],
    Adamax: [{"weight_decay": 0.1}],
    Lion: [{}, {"weight_decay": 0.1}],
}
TASKS = {
    "a": TaskSpec(inputs=3, outputs=2),
    "b": TaskSpec(inputs=4, outputs=3, tokens=True, every_step=True),
    "c": TaskSpec(inputs=2, outputs=4, every_step=True),
    "d": TaskSpec(inputs=5, outputs=2, tokens=True),
}
VERBS = ["attach"] * 3 + ["clone", "route", "route", "freeze", "unfreeze", "detach", "add_task"]
VERBS += ["clone_together", "connect", "disconnect"]
BATCH, TIME = 2, 3
# Options of modules. A module gets those that its design can follow.
MODULE_OPTIONS = [
    {},
    {},
    {},
    {"normalize": "context", "trainable_start": True},
    {"normalize": "features", "zoneout": 0.3},
    {"normalize": "gates"},
    {"dropout": 0.3, "zoneout": 0.2},
    {"orthogonal": True, "chrono": 5, "trainable_start": True},
    {"same_step": True},
]

# Every reading and every design, with one of the others.
FAVORED = [
    (READINGS[k % len(READINGS)], DESIGNS[k % len(DESIGNS)])
    for k in range(max(len(READINGS), len(DESIGNS)))
]


class Case:
    """A random network with an optimizer: two tasks, two to four modules, two parameter groups.

    About every second module has a favored reading or design. ``optimizer`` and ``dtype`` are
    drawn at random unless given.
    """

    def __init__(
        self,
        seed: int,
        favored: Sequence[str] = (),
        optimizer: type[Optimizer] | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ):
        torch.manual_seed(seed)
        self.random = Random(f"{seed} {favored}")
        optimizer = optimizer or self.random.choice(OPTIMIZERS)
        self.dtype = dtype or self.random.choice([torch.float32, torch.float64])
        self.readings, self.designs = (
            kinds + [name for name in kinds if name in favored] * len(kinds)
            for kinds in (READINGS, DESIGNS)
        )
        self.device, self.trained, self.modules = device, 0, 0
        while not self._drawn():
            pass
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        names = dict(self.network.named_parameters())
        first = [p for name, p in names.items() if self.random.random() < 0.5]
        second = [p for p in names.values() if not any(p is other for other in first)]
        groups = [{"params": first}, {"params": second, "lr": 0.004, "weight_decay": 0.2}]
        self.optimizer = optimizer(groups, lr=0.01, **self.random.choice(OPTIONS[optimizer]))

    def _drawn(self) -> bool:
        """Draw a network; return whether every task has a path through it."""
        names = [f"m{self.modules + k}" for k in range(self.random.randint(2, 4))]
        modules = [self.module(names) for _ in names]
        try:
            self.network = Network(ThalNet(modules=modules)).to(self.device, self.dtype)
            for name in ("a", "b"):
                self.network.add_task(name, TASKS[name], **self.ends(name))
        except UserError:
            return False
        return not self.idle()

    def idle(self) -> set[str]:
        """Return the modules that no input reaches."""
        net = self.network.body.graph
        idle = {name for name, module in net.items() if not module.inputs}
        while fed := {name for name in idle if set(net[name].reads) - idle}:
            idle -= fed
        return idle

    def module(self, names: Sequence[str], inputs: Sequence[int] = (0, 1, 3)) -> ModuleSpec:
        """Return a new module that reads a random selection, or all modules that it may read."""
        draw, name = self.random, f"m{self.modules}"
        self.modules += 1
        reads = tuple(draw.sample(sorted({*names, name}), draw.randint(1, 2)))
        spec = ModuleSpec(
            name,
            features=draw.choice([1, 2, 3, 6]),
            context=draw.choice([1, 2, 4]),
            inputs=draw.choice(inputs),
            output=draw.random() < 0.5,
            hidden=draw.choice([0, 0, 1, 4]),
            module=draw.choice(self.designs),
            reading=draw.choice(self.readings),
            reads=draw.choice([None, reads]),
            tasks=draw.choice([(), (), (), ("a",), ("b", "c"), ("b",)]),
        )
        try:
            spec = replace(spec, options=draw.choice(MODULE_OPTIONS))
            with_options(lookup("module", spec.module)(1, 1, 1), spec)
        except UserError:
            return replace(spec, options={})
        return spec

    def ends(self, task: str) -> dict[str, Any]:
        """Return random options of ``add_task`` for a new task."""
        draw, body = self.random, self.network.body
        serving = [m.name for m in body.graph.values() if m.serves([task])]
        fed = [name for name in body.input_modules if name in serving]
        return {
            "input_modules": draw.sample(fed, draw.randint(0, len(fed))),
            "output_modules": draw.choice([None, draw.sample(serving, min(len(serving), 2))]),
            "sub_steps": draw.choice([1, 1, 2]),
            "extra_steps": draw.choice([0, 1]) if not TASKS[task].every_step else 0,
            "encode": draw.random() < 0.2,
        }

    def batch(self, task: str, number: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a task, the same for the same number."""
        generator = torch.Generator().manual_seed(ord(task) + 1000 * number)
        of, shape = TASKS[task], (BATCH, TIME)
        if of.tokens:
            xs = torch.randint(of.inputs, shape, generator=generator)
        else:
            xs = torch.rand(*shape, of.inputs, generator=generator, dtype=torch.float64)
            xs = xs.to(self.dtype)
        shape = shape if of.every_step else shape[:1]
        ys = torch.randint(of.outputs, shape, generator=generator)
        return xs.to(self.device), ys.to(self.device)

    def train(
        self,
        steps: int = 1,
        tasks: Sequence[str] | None = None,
        clip: float = 0,
        bf16: bool = False,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        """Take steps on all tasks, or on the named ones, with one batch of each."""
        network = wrap(self.network)
        for _ in range(steps):
            torch.manual_seed(self.trained)  # of random masks
            for task in self.network.adapters if tasks is None else tasks:
                xs, ys = self.batch(task, self.trained)
                with torch.autocast(self.device, torch.bfloat16) if bf16 else nullcontext():
                    logits, _ = network(task, xs)
                    loss = cross_entropy(logits.flatten(0, -2), ys.flatten())
                if loss.requires_grad:
                    loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(self.network.parameters(), clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.trained += 1

    @torch.no_grad()
    def logits(self, task: str, number: int = 0, state: Any = None) -> Tensor:
        """Return the logits of a task for one of its batches, in evaluation mode."""
        with evaluation_mode(self.network):
            return self.network(task, self.batch(task, number)[0], state)[0]

    @torch.no_grad()
    def states(self) -> dict[str, Any]:
        """Return the state of every task after its first batch."""
        with evaluation_mode(self.network):
            return {
                task: self.network(task, self.batch(task, 0)[0])[1]
                for task in self.network.adapters
            }

    def outputs(self, states: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Return the logits of every task, from the initial or from given states."""
        return {t: self.logits(t, 1, (states or {}).get(t)) for t in self.network.adapters}

    def active(self) -> dict[str, tuple[str, ...]]:
        """Return the active modules of every task."""
        return {task: self.network.active_modules(task) for task in self.network.adapters}

    def change(self, verb: str, *arguments: Any, **options: Any) -> TopologyChange:
        """Change the network and update the optimizer."""
        change = getattr(self.network, verb)(*arguments, **options)
        change.update_optimizer(self.optimizer)
        return change

    def duplicate(self) -> "Case":
        """Return a deep copy, which draws the same random numbers."""
        return deepcopy(self)

    def saved_and_loaded(self) -> "Case":
        """Return the case rebuilt from its description, its weights and its optimizer state."""
        topology = self.network.describe()
        if self.random.random() < 0.5:
            topology = json.loads(json.dumps(topology))
        else:
            topology = yaml.safe_load(yaml.safe_dump(topology, sort_keys=False))
        saved = {
            "network": self.network.state_dict(),
            "optimizer": optimizer_state(self.optimizer, dict(self.network.named_parameters())),
        }
        with tempfile.TemporaryFile() as file:
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        again = copy(self)
        again.random = deepcopy(self.random)
        again.network = Network.from_description(topology).to(self.device, self.dtype)
        again.network.load_state_dict(saved["network"])
        parameters = dict(again.network.named_parameters())
        groups = [  # the options of an optimizer are those of a configuration
            {
                **{key: value for key, value in current.items() if key != "frozen"},
                "params": [parameters[name] for name in sorted(group["params"])],
            }
            for group, current in zip(
                saved["optimizer"]["groups"], self.optimizer.param_groups, strict=True
            )
        ]
        again.optimizer = type(self.optimizer)(groups, lr=1.0)
        load_optimizer_state(again.optimizer, saved["optimizer"], parameters)
        return again

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a change of the network could affect, by name."""
        named = dict(self.network.named_parameters())
        return {
            "names": list(self.network.state_dict()),
            "weights": _copied(self.network.state_dict()),
            "learns": {name: parameter.requires_grad for name, parameter in named.items()},
            "topology": self.network.describe(),
            **_copied(optimizer_state(self.optimizer, named)),
        }

    def proposal(self, verbs: Sequence[str] = ()) -> tuple[Any, ...]:
        """Return a random method of the network with arguments that are often valid."""
        draw, net = self.random, self.network.body.graph
        tasks, chosen = list(self.network.adapters), draw.choice(list(net))
        verb = draw.choice(verbs or VERBS)
        if verb == "attach":
            learning = [name for name, module in net.items() if not module.frozen]
            readers = draw.sample(learning, draw.randint(0, min(2, len(learning))))
            return verb, [self.module(list(net), inputs=(0, 0, 0, 2))], {"read_by": readers}
        if verb == "clone":
            self.modules += 1
            return (
                verb,
                [chosen, f"m{self.modules - 1}"],
                {"tasks": draw.choice([None, None, ["b"]])},
            )
        if verb == "clone_together":
            sources = draw.sample(list(net), min(2, len(net)))
            self.modules += len(sources)
            names = [f"m{self.modules - k}" for k in range(1, 1 + len(sources))]
            return verb, [dict(zip(sources, names, strict=True))], {}
        if verb == "connect":
            task = draw.choice(tasks)
            spec = self.network.adapter(task).spec
            free = [name for name in net if name not in spec.output_modules]
            return verb, [task], {"output_modules": draw.sample(free, min(1, len(free)))}
        if verb == "disconnect":
            spec = self.network.adapter(tasks[-1]).spec
            ends = list(dict.fromkeys((*spec.input_modules, *spec.output_modules)))
            return verb, [tasks[-1], draw.choice(ends)], {}
        if verb == "route":
            source = draw.choice(list(net))
            return verb, [chosen, source], {"open": source not in net[chosen].reads}
        if verb in ("freeze", "unfreeze"):
            return verb, *draw.choice([([chosen], {}), ([chosen], {}), ([], {"task": tasks[0]})])
        if verb == "detach":
            return verb, [chosen], {}
        name = draw.choice([name for name in TASKS if name not in tasks] or tasks)
        if name in tasks:
            return "remove_task", [name], {}
        return verb, [name, TASKS[name]], self.ends(name)

    def walk(
        self, changes: int, allows: Callable[..., bool] = lambda *proposal: True, **training: Any
    ) -> None:
        """Make random changes with training between them, and check the effect of each."""
        while changes:
            verb, arguments, options = self.proposal()
            if allows(verb, arguments, options):
                before = self.snapshot()
                try:
                    change = self.change(verb, *arguments, **options)
                except UserError as error:
                    assert_same(self.snapshot(), before)
                    assert len(str(error).splitlines()) == 1
                else:
                    assert_carried(before, self.snapshot(), change)
                    self.train(**training)
                    changes -= 1


def case_of(reading: str = "linear", optimizer: type[Optimizer] = AdamW) -> Case:
    """Return two tasks: ``a`` on input_a → side → output_a, ``b`` on input_b → output_b."""
    make: Any = partial(ModuleSpec, features=3, context=2, reading=reading)
    modules = [
        make("input_a", inputs=3, reads=("input_a",)),
        make("side", reads=("input_a", "side")),
        make("output_a", output=True, reads=("side",)),
        make("input_b", inputs=4, reads=("input_b",)),
        make("output_b", output=True, reads=("input_b", "output_b")),
    ]

    def network() -> Network:
        network = Network(ThalNet(modules=modules))
        network.add_task("a", TASKS["a"], input_modules=["input_a"], output_modules=["output_a"])
        network.add_task("b", TASKS["b"], input_modules=["input_b"], output_modules=["output_b"])
        return network

    case = Case(0, dtype=torch.float32)
    case.network = drawn(network, dtype=torch.float32)
    make_optimizer: Any = optimizer
    case.optimizer = make_optimizer(case.network.parameters(), lr=0.01, weight_decay=0.1)
    return case


# What the laws compare


def _copied(tree: Any) -> Any:
    """Return a copy of all tensors in nested containers."""
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_copied(value) for value in tree]
    return tree.detach().clone() if isinstance(tree, Tensor) else tree


def assert_same(actual: Any, expected: Any, about: str = "") -> None:
    """Assert that nested containers of tensors are equal, bit for bit."""
    assert type(actual) is type(expected), about
    if isinstance(expected, Mapping):
        assert actual.keys() == expected.keys(), about
        for key, value in expected.items():
            assert_same(actual[key], value, f"{about} {key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), about
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other, about)
    elif isinstance(expected, Tensor):
        assert actual.dtype == expected.dtype and torch.equal(actual, expected), about
    else:
        assert actual == expected, f"{about}: {actual} is not {expected}"


def assert_near(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert that tensors by name are equal up to rounding."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert value.isfinite().all(), name
        assert_close(actual[name].cpu(), value.cpu())


def assert_unchanged(
    case: Case,
    outputs: Mapping[str, Tensor],
    active: Mapping[str, tuple[str, ...]],
    states: Mapping[str, Any] | None = None,
    opened: Sequence[str] = (),
) -> None:
    """Assert equal logits: bit for bit if the same modules run and none of them was opened."""
    now = {task: logits for task, logits in case.outputs(states).items() if task in outputs}
    assert_near(now, outputs)
    for task, modules in active.items():
        if modules == case.network.active_modules(task) and not set(modules) & set(opened):
            assert torch.equal(now[task], outputs[task]), task


def assert_carried(before: dict[str, Any], after: dict[str, Any], change: TopologyChange) -> None:
    """Assert that parameters and moments follow their slot, and are zero for new slots.

    The optimizer must hold all trainable parameters, each in its group, and nothing else.
    """
    nets = [
        {module["name"]: module for module in snapshot["topology"]["arguments"]["modules"]}
        for snapshot in (before, after)
    ]
    outputs = [
        {task: spec["output_modules"] for task, spec in snapshot["topology"]["tasks"].items()}
        for snapshot in (before, after)
    ]
    group_of = [
        {name: k for k, group in enumerate(snapshot["groups"]) for name in group["params"]}
        for snapshot in (before, after)
    ]
    assert set(group_of[1]) == {name for name, learns in after["learns"].items() if learns}
    frozen = {
        name: k for k, group in enumerate(before["groups"]) for name in group.get("frozen", ())
    }
    for name, group in group_of[1].items():
        if name in (known := frozen | group_of[0]):
            assert group == known[name], f"{change}: {name} changed its group"
            continue
        axes = {known[n]: set() for n in known}  # of the parameters of every group
        for other in known.keys() & before["weights"].keys():
            axes[known[other]].add(before["weights"][other].ndim)
        ndim = after["weights"][name].ndim
        assert ndim in axes.get(group, ()) or not any(ndim in each for each in axes.values())
    for old, new in zip(before["groups"], after["groups"], strict=True):
        without = {"params": 0, "frozen": 0}
        assert_same({**new, **without}, {**old, **without}, str(change))
    for name in set(after["state"]) - set(before["state"]):  # Adagrad's, which is never without
        assert name in change.added and not any(v.any() for v in after["state"].pop(name).values())
    assert set(after["state"]) == set(before["state"]) & set(group_of[1])
    for name in before["weights"].keys() & after["weights"].keys():
        old, new = before["weights"][name], after["weights"][name]
        axis, source = _follow(name, old, new, nets, outputs)
        if axis is None:
            assert torch.equal(new, old), f"{change}: {name}"
        elif name in before["learns"]:
            old_places = [k for k, place in enumerate(source) if place is not None]
            assert torch.equal(
                new.index_select(axis, _index(old_places, new)),
                old.index_select(axis, _index([source[k] for k in old_places], new)),
            )
        if name not in after["state"]:
            continue
        olds, news = before["state"][name], after["state"][name]
        assert olds.keys() == news.keys()
        for key, value in olds.items():
            if axis is None or not isinstance(value, Tensor) or not value.ndim:
                assert_same(news[key], value, f"{change}: {name} {key}")
            else:
                expected = torch.zeros_like(new)
                for k, place in enumerate(source):
                    if place is not None:
                        expected.select(axis, k).copy_(value.select(axis, place))
                assert torch.equal(news[key], expected), f"{change}: {name} {key}"


def _index(places: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(places, dtype=torch.long, device=like.device)


def _follow(
    name: str,
    old: Tensor,
    new: Tensor,
    nets: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Sequence[str]]],
) -> tuple[int | None, list[int | None]]:
    """Return the axis that has another length, and the old index of each of its entries."""
    if old.shape == new.shape:
        return None, []
    (axis,) = [k for k, size in enumerate(old.shape) if new.shape[k] != size]
    if name.startswith("adapters."):
        assert name.endswith(".head.weight"), name
        task = name.split(".")[1]
        places = [
            [(module, k) for module in heads[task] for k in range(net[module]["features"])]
            for net, heads in zip(nets, outputs, strict=True)
        ]
        index = {place: k for k, place in enumerate(places[0])}
        return axis, [index.get(place) for place in places[1]]
    _, _, reader, part, *_ = name.split(".")
    assert part == "reading", name
    places = []
    for net in nets:
        module = net[reader]
        seen = module["opened"] if name.endswith(".gate") else module["reads"]
        places.append(
            [(slot, k) for slot in net if slot in seen for k in range(net[slot]["features"])]
        )
    assert [len(entries) for entries in places] == [old.shape[axis], new.shape[axis]], name
    index = {place: k for k, place in enumerate(places[0])}
    return axis, [index.get(place) for place in places[1]]
