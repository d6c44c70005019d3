"""Options of modules and of the GRU against their definitions, written down anew."""

import numpy as np
import pytest
import scipy.stats
import torch
from properties import arrays, assert_close, drawn, gradients, normal, random_lengths

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.noise import random_mask
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.topology.options import ModuleOptions
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

MEMORY = "gru", "ff_gru", "gru_ff", "block_gru", "min_gru"
every_memory = pytest.mark.parametrize("module", MEMORY)
both = pytest.mark.parametrize("make", [lambda **o: ThalNet(3, 3, 5, module="gru", **o),
                                        lambda **o: StackedGRU(3, 5, 3, **o)],
                               ids=["thalnet", "gru"])  # fmt: skip


def one_module(module="gru", **options):
    """Return a single module of 4 features that reads itself through a linear reading."""
    return drawn(lambda: ThalNet(3, 1, 4, module=module, reading="linear", **options))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(x):
    x = x.reshape(*x.shape[:-1], 3, -1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x.reshape(*x.shape[:-2], -1)


def rms(x, gain):
    return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4)


def gru(x, h, weights, gains=None):
    """Return the next state of a GRU, with normalized gates if it has gains."""
    input_weight, state_weight, input_bias, state_bias = weights
    a, b = x @ input_weight.T, h @ state_weight.T
    if gains is not None:
        a, b = layer_norm(a) * gains[0], layer_norm(b) * gains[1]
    (r, z, n), (hr, hz, hn) = np.split(a + input_bias, 3, -1), np.split(b + state_bias, 3, -1)
    z = sigmoid(z + hz)
    return (1 - z) * np.tanh(n + sigmoid(r + hr) * hn) + z * h


def run_by_hand(net, xs, context=lambda c, w: c, features=lambda f, w: f, share=0.0, gates=False):
    """Return the features of ``one_module`` after every step, for a design ``gru``."""
    weights = {k.removeprefix("cells.module."): v for k, v in arrays(net).items()}
    inner = "design.design." if any("design.design" in k for k in weights) else "design."
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    layer = [weights[f"{inner}stack.0.{n}"] for n in names]
    gains = [weights[f"{inner}stack.0.{n}_gain"] for n in ("input", "state")] if gates else None
    center = memory = np.zeros((len(xs), 4))
    steps = []
    for t in range(xs.shape[1]):
        read = context(center @ weights["reading.weight"].T, weights)
        new = gru(np.concatenate([read, xs[:, t]], -1), memory, layer, gains)
        memory = share * memory + (1 - share) * new
        center = features(memory, weights)
        steps.append(center)
    return np.stack(steps, 1)


def test_normalized_context_features_and_gates_are_what_their_formulas_say():
    xs = normal(2, 5, 3)

    def norm(values, weights):
        return rms(values, weights["design.norm.weight"])

    cases = {"context": {"context": norm}, "features": {"features": norm}, "gates": {"gates": True}}
    for where, options in cases.items():
        net = one_module(normalize=where)
        assert_close(net(xs)[0], run_by_hand(net, xs.numpy(), **options))


def test_zoneout_takes_the_expected_value_in_evaluation():
    net = one_module(zoneout=0.3).eval()
    xs = normal(2, 5, 3)
    assert_close(net(xs)[0], run_by_hand(net, xs.numpy(), share=0.3))
    assert torch.equal(net(xs)[0], net(xs)[0])


@every_memory
def test_in_training_every_unit_keeps_its_value_or_takes_the_new_one(module):
    net = drawn(lambda: ThalNet(3, 2, 50, module=module, zoneout=0.3))
    plain = drawn(lambda: ThalNet(3, 2, 50, module=module))
    plain.load_state_dict(
        {n.replace("design.design", "design"): v for n, v in net.state_dict().items()}
    )
    x = normal(40, 3)
    start = State(normal(40, net.center), normal(40, net.memory, seed=1))
    (_, end), (_, new) = net.step(x, start), plain.step(x, start)
    kept = end.memory == start.memory
    assert torch.equal(torch.where(kept, start.memory, end.memory), end.memory)
    assert (end.memory - new.memory)[~kept].abs().max() < 1e-12
    assert scipy.stats.binomtest(int(kept.sum()), kept.numel(), 0.3).pvalue > 1e-3
    columns = kept.double().mean(0)
    assert columns.min() > 0 and columns.max() < 0.7  # each row and unit has a bit of its own


def test_the_features_of_a_gru_are_its_zoned_out_memory_and_a_layer_behind_it_reads_that():
    xs = normal(3, 4, 3)
    for module in ("gru", "block_gru"):
        ys, state = one_module(module, zoneout=0.5)(xs)
        assert torch.equal(ys[:, -1], state.memory)
    net = one_module("gru_ff", zoneout=0.5)
    dense = net.cell("module").design.design.stack[1]
    ys, state = net(xs)
    assert_close(ys[:, -1], torch.tanh(dense(state.memory)))


@both
@pytest.mark.parametrize("option", ["zoneout", "dropout"])
def test_random_masks_follow_the_seed_and_are_off_where_nothing_is_trained(make, option):
    body = drawn(lambda: make(**{option: 0.4}))
    xs = normal(4, 6, 3)

    def outputs(seed):
        torch.manual_seed(seed)
        return body(xs)[0]

    assert torch.equal(outputs(1), outputs(1)) and not torch.equal(outputs(1), outputs(2))
    torch.manual_seed(1)
    body(xs)
    after = torch.rand(3)
    outputs(1)
    assert torch.equal(torch.rand(3), after)
    body.eval()
    before = torch.get_rng_state()
    assert torch.equal(outputs(1), outputs(2))
    torch.set_rng_state(before)
    body(xs)
    assert torch.equal(torch.get_rng_state(), before)
    body.train()
    body.freeze(getattr(body.graph, "modules", ()) and list(body.graph))
    assert torch.equal(outputs(1), outputs(2))


def test_masks_are_fair_independent_and_do_not_depend_on_other_rows():
    seed = torch.tensor(12345)
    mask = random_mask(seed, "a", (400, 50), 0.25)
    assert scipy.stats.binomtest(int(mask.sum()), mask.numel(), 0.25).pvalue > 1e-3
    others = [random_mask(seed, "b", (400, 50), 0.25), random_mask(seed + 1, "a", (400, 50), 0.25)]
    others += [mask.roll(1, 0), mask.roll(1, 1), mask.roll(7, 1)]
    for other in others:
        table = [[int((a & b).sum()) for b in (other, ~other)] for a in (mask, ~mask)]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3
    assert torch.equal(random_mask(seed, "a", (10, 50), 0.25), mask[:10])


def test_a_module_with_zoneout_leaves_the_masks_of_others_as_they_are():
    specs = [ModuleSpec("a", 6, 4, inputs=3, output=True, module="gru", reads=("a",))]
    specs[0] = ModuleSpec(**{**vars(specs[0]), "options": {"zoneout": 0.5}})
    alone = drawn(lambda: ThalNet(modules=specs))
    more = ThalNet(modules=[ModuleSpec("b", 2, 3, inputs=3, options={"zoneout": 0.5}), *specs])
    more = more.double()
    more.cell("a").load_state_dict(alone.cell("a").state_dict())
    xs, results = normal(4, 5, 3), []
    for net in (alone, more):
        torch.manual_seed(3)
        results.append(net(xs, outputs=["a"])[0])
    assert torch.equal(*results)


def test_dropout_drops_elements_of_the_context_and_scales_the_others():
    net = drawn(lambda: ThalNet(0 + 3, 1, 200, module="ff", reading="linear", dropout=0.25))
    seen = []
    net.cell("module").design.design.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    start = State(normal(20, 200), normal(20, 0))
    net.step(normal(20, 3), start)
    context = start.center @ net.cell("module").reading.weight.T
    ratio = (seen[0][:, :200] / context).detach()
    assert torch.equal(seen[0][:, 200:], normal(20, 3))
    dropped = ratio == 0
    assert scipy.stats.binomtest(int(dropped.sum()), dropped.numel(), 0.25).pvalue > 1e-3
    assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 4 / 3))


@both
def test_orthogonal_weights_are_orthogonal_for_each_gate_and_change_no_other(make):
    torch.manual_seed(0)
    changed = make(orthogonal=True)
    recurrent = [p for n, p in changed.named_parameters() if "weight_hh" in n]
    assert len(recurrent) == 3
    for gate in (gate for weights in recurrent for gate in weights.detach().split(5)):
        assert (gate.T @ gate - torch.eye(5)).abs().max() < 1e-6


def test_the_recurrent_weights_of_a_block_gru_are_those_of_its_memory():
    design = ThalNet(3, 2, 5, module="block_gru", orthogonal=True).cell("input").design
    q = design.join.weight[:, :5].detach()
    assert (q.T @ q - torch.eye(5)).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["gru", "ff_gru", "block_gru", "min_gru", "baseline"])
def test_chrono_spreads_the_time_scales_of_units_evenly_from_2_to_t_steps(kind):
    torch.manual_seed(1)
    if kind == "baseline":
        body = StackedGRU(3, 500, 1, chrono=40)
        bias = body.rnn.bias_ih_l0[500:1000] + body.rnn.bias_hh_l0[500:1000]
    else:
        design = ThalNet(3, 1, 500, module=kind, chrono=40).cell("module").design
        if "gru" in kind and kind.endswith("gru") and hasattr(design, "stack"):
            layer = design.stack[-1]
            bias = layer.bias_ih[500:1000] + layer.bias_hh[500:1000]
        else:  # the gate of these updates, where that of a GRU keeps
            bias = (
                -design.gates.bias[-500:] + 1 if kind == "block_gru" else -design.gates.bias[:500]
            )
    forgets = 1 - torch.sigmoid(bias.detach().double())
    scales = (1 / forgets).numpy()
    assert scales.min() >= 2 and scales.max() <= 40
    assert scipy.stats.kstest(scales, "uniform", args=(2, 38)).pvalue > 1e-3


@both
def test_a_trained_start_begins_at_zero_is_trained_copied_and_saved(make):
    torch.manual_seed(0)
    plain = make().double()
    torch.manual_seed(0)
    body = make(trainable_start=True).double()
    xs = normal(4, 3, 3)
    assert torch.equal(body(xs)[0], plain(xs)[0])
    starts = {n: p for n, p in body.named_parameters() if n.endswith("start")}
    for name, gradient in gradients(body(xs)[0].square().sum(), starts).items():
        assert gradient.abs().max() > 0, name
    with torch.no_grad():
        for start in starts.values():
            start.copy_(normal(*start.shape))
    network = Network(body)
    network.add_task("a", TaskSpec(inputs=3, outputs=2))
    again = Network.from_description(network.describe()).double()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again("a", xs)[0], network("a", xs)[0])
    assert not torch.equal(body(xs)[0], plain(xs)[0])
    assert torch.equal(body(xs, body.initial(xs))[0], body(xs)[0])


def test_a_start_is_the_features_and_then_the_memory_of_each_module():
    net = drawn(lambda: ThalNet(3, 3, 4, hidden=2, module="gru_ff", trainable_start=True))
    state = net.initial(normal(5, 2, 3))
    starts = [net.cell(name).start for name in net.graph]
    assert torch.equal(state.center[3], torch.cat([start[:4] for start in starts]))
    assert torch.equal(state.memory[3], torch.cat([start[4:] for start in starts]))


@pytest.mark.parametrize("backend", ["cpp", "fused", "batched", "reference"])
def test_initial_values_and_starts_take_no_backend_away(backend):
    net = ThalNet(3, 3, 4, orthogonal=True, chrono=9, trainable_start=True)
    assert net.explain()[backend] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"zoneout": 0.1}, "has the options zoneout 0.1"),
     ({"normalize": "gates"}, "has normalized gates"),
     ({"same_step": True}, "reads input modules in the same step")],
)  # fmt: skip
def test_a_backend_that_cannot_compute_an_option_says_so(options, reason):
    net = ThalNet(3, 3, 4, **options)
    assert net.backend() == "batched"
    for net.ops in ("cpp", "fused"):
        with pytest.raises(UserError, match=f"{reason}. Use one of auto, batched"):
            net(torch.zeros(2, 3, 3))


def test_same_step_modules_read_what_input_modules_have_just_written():
    make = lambda name, **fields: ModuleSpec(name, 3, 2, module="gru", **fields)  # noqa: E731
    late = {"same_step": True}
    net = drawn(lambda: ThalNet(modules=[
        make("early", reads=("in",)), make("late", options=late, output=True), make("in", inputs=2),
    ]))  # fmt: skip
    xs, lengths = normal(4, 5, 2), torch.tensor([5, 2, 4, 1])
    phi = {name: torch.zeros(4, 3, dtype=torch.float64) for name in net.graph}
    expected = []
    for t in range(5):
        new = {}
        for name in ("early", "in", "late"):
            cell = net.cell(name)
            seen = phi | ({"in": new["in"]} if name == "late" else {})
            context = torch.cat([seen[n] for n in net.graph[name].reads], -1)
            context = context @ cell.reading.weights().T
            x = torch.cat([context, xs[:, t]], -1) if name == "in" else context
            new[name] = cell.design.stack[0](x, phi[name])
        keeps = (t >= lengths)[:, None]
        phi = {name: torch.where(keeps, phi[name], new[name]) for name in new}
        expected.append(phi["late"].masked_fill(keeps, 0))
    for net.ops in ("reference", "batched"):
        ys, state = net(xs, lengths=lengths)
        assert_close(ys, torch.stack(expected, 1))
        assert_close(state.center, torch.cat([phi[name] for name in net.graph], -1))


def gru_by_hand(body, xs, share=0.0):
    """Return the outputs of a stacked GRU in evaluation."""
    weights = arrays(body)
    for k in range(body.layers):
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        layer = [weights[f"rnn.{n}_l{k}"] for n in names]
        gains = weights["gains"][:, k] if "gains" in weights else None
        if body.options.normalize == "context" and k:
            xs = rms(xs, weights[f"norms.{k - 1}.weight"])
        h, steps = np.zeros((len(xs), body.features)), []
        for t in range(xs.shape[1]):
            h = share * h + (1 - share) * gru(xs[:, t], h, layer, gains)
            steps.append(h)
        xs = np.stack(steps, 1)
        if body.options.normalize == "features":
            xs = rms(xs, weights[f"norms.{k}.weight"])
    return xs


@pytest.mark.parametrize("options", [
    {"normalize": "context"}, {"normalize": "features"}, {"normalize": "gates"}, {"zoneout": 0.2},
    {"dropout": 0.2}, {"normalize": "gates", "zoneout": 0.2, "trainable_start": True},
], ids=str)  # fmt: skip
def test_a_gru_with_options_is_what_its_formulas_say(options):
    body = drawn(lambda: StackedGRU(3, 4, 2, **options)).eval()
    if body.start is not None:
        torch.nn.init.zeros_(body.start)
    xs = normal(5, 6, 3)
    ys, state = body(xs)
    assert_close(ys, gru_by_hand(body, xs.numpy(), options.get("zoneout", 0.0)))
    lengths = random_lengths(5, 6)
    padded, last = body(xs, lengths=lengths)
    for k, length in enumerate(lengths.tolist()):
        alone, end = body(xs[k : k + 1, :length])
        assert_close(padded[k, :length], alone[0])
        assert_close(last[k], end[0])
        assert not padded[k, length:].any()
    first, middle = body(xs[:, :2])
    assert_close(torch.cat([first, body(xs[:, 2:], middle)[0]], 1), ys)
    assert_close(body(xs[:, 2:], middle)[1], state)


def test_zoneout_of_a_gru_keeps_units_at_its_rate():
    body = drawn(lambda: StackedGRU(3, 50, 2, zoneout=0.3))
    state = normal(40, 2, 50)
    kept = body.step(normal(40, 3), state)[1] == state
    assert scipy.stats.binomtest(int(kept.sum()), kept.numel(), 0.3).pvalue > 1e-3
    assert not torch.equal(kept[:, 0], kept[:, 1])


def test_parameters_of_options_are_counted():
    def size(body):
        return sum(parameter.numel() for parameter in body.parameters())

    plain, gru = size(ThalNet(3, 3, 5)), size(StackedGRU(3, 5, 3))
    options = {"normalize": "context"}, {"normalize": "gates"}, {"trainable_start": True}
    assert [size(ThalNet(3, 3, 5, **o)) - plain for o in options] == [3 * 5, 3 * 6 * 5, 3 * 2 * 5]
    assert [size(StackedGRU(3, 5, 3, **o)) - gru for o in options] == [2 * 5, 3 * 6 * 5, 3 * 5]
    for same in ({"zoneout": 0.1}, {"dropout": 0.1}, {"orthogonal": True}, {"chrono": 9}):
        assert size(ThalNet(3, 3, 5, **same)) == plain and size(StackedGRU(3, 5, 3, **same)) == gru


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ThalNet(3, module="ff", zoneout=0.1), "zoneout needs a memory; the design ff has"),
        (lambda: ThalNet(3, module="min_gru", orthogonal=True), "orthogonal needs recurrent weigh"),
        (lambda: ThalNet(3, module="ff", chrono=9), "chrono needs update gates"),
        (
            lambda: ThalNet(3, module="block_gru", normalize="gates"),
            "needs a GRU; block_gru has",
        ),
        (lambda: ThalNet(3, normalize="gate"), "unknown value of normalize 'gate'.*'gates'"),
        (lambda: ThalNet(3, zoneout=1.0), "zoneout: must be between 0 and 0.9, got 1.0"),
        (lambda: ThalNet(3, chrono=2), "chrono: must be 0 or at least 3 steps, got 2"),
        (lambda: ThalNet(3, 1, same_step=True), "same_step has no effect"),
        (lambda: ModuleSpec("a", 1, 1, options={"zonout": 0.1}), "unknown option of a module"),
        (
            lambda: ModuleSpec("a", 1, 1, inputs=2, options={"same_step": True}),
            "without a task in",
        ),
        (lambda: ThalNet(modules=[ModuleSpec("a", 1, 1)], zoneout=0.1), "give it as an option of"),
        (lambda: StackedGRU(3, 5, 1, dropout=0.1), "dropout is of what layers read from others"),
        (lambda: StackedGRU(3, 5, 1, normalize="context"), "normalize context is of what layers"),
    ],
)
def test_options_that_nothing_could_follow_are_refused_in_a_line(make, line):
    with pytest.raises(UserError, match=line) as error:
        make()
    assert len(str(error.value).splitlines()) == 1


def test_options_show_themselves_and_defaults_are_not_written():
    options = ModuleOptions(zoneout=0.1, orthogonal=True)
    assert options.words() == "zoneout 0.1, orthogonal"
    assert "gru with zoneout 0.1, orthogonal" in repr(
        ThalNet(3, 2, 4, module="gru", zoneout=0.1, orthogonal=True)
    )
    assert all("options" not in module for module in ThalNet(3).arguments()["modules"])
    assert StackedGRU(3, 5).arguments() == {"inputs": 3, "features": 5, "layers": 4}
