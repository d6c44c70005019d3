"""Whatever a user hands to a task is accepted correctly or refused in one line, never half."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from properties import examples

from thalnet_mtl import SequenceTask, TaskSpec, TextTask, UserError
from thalnet_mtl.tasks.splits.sequences import SPLITS

XS = np.random.RandomState(0).rand(12, 4, 3).astype("float32")
YS = np.arange(12) % 2
KINDS = ("class", "labels", "numbers")


def task_of(xs, ys, *more, **options):
    return SequenceTask("own", dict.fromkeys(SPLITS, (xs, ys, *more)), **options).load("cpu")


def with_entry(array, place, value, dtype=None):
    changed = array.astype(dtype or array.dtype)
    changed[place] = value
    return changed


ACCEPTED = {
    "bool inputs": (XS > 0.5, (XS > 0.5).astype("float32")),
    "uint16": ((XS * 60_000).astype("uint16"), (XS * 60_000).astype("uint16").astype("float32")),
    "uint32": ((XS * 60_000).astype("uint32"), (XS * 60_000).astype("uint32").astype("float32")),
    "uint64": ((XS * 60_000).astype("uint64"), (XS * 60_000).astype("uint64").astype("float32")),
    "int8": ((XS * 100).astype("int8"), (XS * 100).astype("int8").astype("float32")),
    "float64": (XS.astype("float64"), XS),
    "float16": (XS.astype("float16"), XS.astype("float16").astype("float32")),
    "long double": (XS.astype("longdouble"), XS),
    "big-endian": (XS.astype(">f4"), XS),
    "Fortran order": (np.asfortranarray(XS), XS),
    "reversed": (XS[:, ::-1], XS[:, ::-1].copy()),
    "read-only": (np.frombuffer(XS.tobytes(), "float32").reshape(XS.shape), XS),
    "needs a gradient": (torch.tensor(XS, requires_grad=True), XS),
    "a list of tensors": ([torch.tensor(x, requires_grad=True) for x in XS], XS),
    "nested lists": (XS.tolist(), XS),
    "an array of objects": (XS.astype(object), XS),
    "sparse": (torch.tensor(XS).to_sparse(), XS),
    "nested": (torch.nested.nested_tensor([torch.tensor(x) for x in XS], layout=torch.jagged), XS),
    "a mask that masks nothing": (np.ma.masked_array(XS, np.zeros_like(XS, bool)), XS),
    "bfloat16": (torch.tensor(XS).bfloat16(), torch.tensor(XS).bfloat16().float().numpy()),
    "tensor of uint16": (torch.tensor((XS * 9).astype("uint16")), (XS * 9).astype("uint16")),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_numbers_of_any_type_are_read_as_they_are(name):
    xs, expected = ACCEPTED[name]
    batch = next(task_of(xs, YS).iterate("test", 12, 1))
    assert batch.xs.dtype == torch.float32 and not batch.xs.requires_grad
    np.testing.assert_array_equal(batch.xs.numpy(), expected.astype("float32"))


@pytest.mark.parametrize(
    "ys",
    [
        YS.astype("uint16"), YS.astype("float64"), YS.astype(bool), YS.tolist(), YS[:, None],
        pd.Series(YS), pd.Series(YS, dtype="Int64"), torch.tensor(YS), YS.astype(object),
        [torch.tensor(y) for y in YS], pd.DataFrame({"y": YS}), YS.astype(">i2"),
    ],
    ids=lambda ys: f"{type(ys).__name__} {getattr(ys, 'dtype', '')}",
)  # fmt: skip
def test_classes_of_any_type_are_read_as_they_are(ys):
    task = task_of(XS, ys)
    assert task.spec == TaskSpec(3, 2, steps=4)
    assert next(task.iterate("train", 12, 1)).ys.tolist() == YS.tolist()
    assert task.classes_seen == (0, 1)


REFUSED = {
    "no sequence": ((XS[:0], YS[:0]), {}, "there is no sequence"),
    "no steps": ((XS[:, :0], YS), {}, r"sequences have shape \(12, 0, 3\)"),
    "no list entries": (([], []), {}, "own', train"),
    "text": ((["a", "b"], YS[:2]), {}, "train: expected an array of numbers.*text"),
    "texts as targets": ((XS, ["a"] * 12), {}, "targets: expected an array of numbers"),
    "None": ((XS, [None] * 12), {}, "targets: .*row 0 holds NoneType"),
    "complex": ((XS.astype(complex), YS), {}, "complex; give real and imaginary parts"),
    "complex tensor": ((torch.tensor(XS).cfloat(), YS), {}, "complex64; give the parts"),
    "dates": ((XS, np.arange(12).astype("M8[s]")), {}, "dates"),
    "one number": ((3.0, YS), {}, "train: expected sequences, got float"),
    "one target": ((XS, 1), {}, "targets: expected one for every sequence"),
    "four": ((XS, YS, YS, YS), {}, "expected a pair"),
    "a set": (({1, 2}, YS), {}, "got set of length 2"),
    "meta": ((torch.empty(12, 4, 3, device="meta"), YS), {}, "a meta tensor has no data"),
    "masked": ((np.ma.masked_greater(XS, 0.9), YS), {}, "row [0-9]+ is masked in part"),
    "images": ((np.zeros((12, 4, 3, 2)), YS), {}, "Flatten what a step consists of"),
    "fewer targets": ((XS, YS[:7]), {}, "12 sequences but 7 targets"),
    "NaN": ((with_entry(XS, (5, 1, 2), np.nan), YS), {}, "input of row 5 holds NaN"),
    "infinite": ((with_entry(XS, (5, 1, 2), -np.inf), YS), {}, "row 5 holds NaN or an infinite"),
    "too large for float32": ((with_entry(XS, (7, 0, 0), 1e300, "f8"), YS), {}, "input of row 7"),
    "too large for int64": ((XS, [2**63] * 12), {}, "own', train"),
    "half classes": ((XS, YS + 0.5), {}, r"target 0.5 of row 0 is no class.*numbers"),
    "NaN classes": ((XS, with_entry(YS, 3, np.nan, "f8")), {}, "target nan of row 3.*-100"),
    "negative class": ((XS, with_entry(YS, 4, -1)), {}, "class -1 of row 4"),
    "words as classes": ((XS, np.array(["a", "b"] * 6)), {}, "number the classes from 0"),
    "objects as classes": (
        (XS, np.array(["a", "b"] * 6, object)), {}, "holds str 'a'; number the classes from 0",
    ),
    "words as labels": ((XS, ["a", "b"] * 6), {"target": "labels"}, "text; give numbers"),
    "words as inputs": ((XS.astype(str), YS), {}, "text; give tokens"),
    "two numbers as a class": ((XS, XS[:, 0, :2]), {}, r"\(12, 2\); .* target: numbers or labels"),
    "one class": ((XS, YS * 0), {}, "all training targets are 0"),
    "years as classes": ((XS, YS + 10**6), {}, "class 1,000,001 means a head of that size"),
    "all missing": ((XS, YS * 0 - 100), {}, "all targets are missing"),
    "constant": ((XS, np.full(12, 2.5)), {"target": "numbers"}, "all training targets are 2.5"),
    "constant columns": (
        (XS, np.tile([1.0, 2.0], (12, 1))), {"target": "numbers"}, "targets are 1, 2, so",
    ),
    "constant labels": ((XS, np.tile([0, 1], (12, 1))), {"target": "labels"}, "targets are 0, 1"),
    "a label of 2": (
        (XS, np.stack([YS, YS * 2], 1)), {"target": "labels"}, "label 2 of row 1 is not allowed",
    ),
    "infinite target": (
        (XS, with_entry(YS, 6, np.inf, "f8")), {"target": "numbers"}, "target of row 6 is infinite",
    ),
    "too long": ((XS, YS, np.full(12, 5)), {}, "length 5 of row 0 is not within 1 … 4"),
    "zero length": ((XS, YS, with_entry(YS * 0 + 4, 2, 0)), {}, "length 0 of row 2"),
    "float lengths": ((XS, YS, np.full(12, 2.5)), {}, "lengths have shape.*whole number"),
    "few lengths": ((XS, YS, [4, 4]), {}, "12 sequences but 2 lengths"),
    "lengths of a mask": ((XS, YS, np.ones((12, 4), bool)), {}, r"lengths have shape \(12, 4\)"),
    "an empty sequence": (([x[: k % 4] for k, x in enumerate(XS)], YS), {}, "row 0 is empty"),
    "ragged widths": (([x[:, : 1 + k] for k, x in enumerate(XS[:3])], YS[:3]), {}, "row 1 has sh"),
    "ragged targets": (
        (XS, [[0] * (1 + k % 3) for k in range(12)]), {}, "row 1 has 2 entries, but the sequences",
    ),
    "tokens out of range": (
        (np.full((12, 4), 9), YS), {"spec": TaskSpec(5, 2, tokens=True)}, "token 9 of row 0",
    ),
    "negative tokens": ((np.arange(48).reshape(12, 4) - 1, YS), {}, "token -1 of row 0"),
    "float tokens": (
        (XS[..., 0], YS), {"spec": TaskSpec(5, 2, tokens=True)}, "tokens must be whole numbers",
    ),
    "other width": ((XS, YS), {"spec": TaskSpec(2, 2)}, r"expected \(12, 4, 2\)"),
    "other length": ((XS, YS), {"spec": TaskSpec(3, 2, steps=6)}, "4 steps; expected 6"),
    "several inputs": (
        (XS, YS), {"spec": TaskSpec({"a": 3, "b": 3}, 2)}, "inputs are a single one; expected a, b",
    ),
    "inputs differ": (({"a": XS, "b": XS[:5]}, YS), {}, "'b': 5 sequences; another input has 12"),
    "steps differ": (({"a": XS, "b": XS[:, :3]}, YS), {}, "have 3 and 4 steps"),
    "tokens and rows": (
        ({"a": XS, "b": np.zeros((12, 4), int)}, YS), {}, "input 'b' holds tokens, others numbers",
    ),
    "no input": (({}, YS), {}, "the mapping of inputs is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_row(name):
    data, options, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as refused:
        task_of(*data, **options)
    assert "own" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("ys", [XS.mean((1, 2)), np.stack([YS, YS], 1)])
def test_a_regression_is_not_cut_to_classes(ys):
    if ys.ndim == 1:
        with pytest.raises(UserError, match="For regression set the target to 'numbers'"):
            task_of(XS, ys, spec=TaskSpec(3, 1, steps=4))
        batch = next(task_of(XS, ys, target="numbers").iterate("test", 12, 1))
        np.testing.assert_allclose(batch.ys[:, 0].numpy(), ys)
    else:
        with pytest.raises(UserError, match=r"targets have shape \(12, 2\)"):
            task_of(XS, ys, spec=TaskSpec(3, 2, steps=4))


def test_targets_that_could_be_at_every_step_are_noticed():
    task = task_of(XS, XS[:, :, 0], target="numbers")
    assert "read as 4 numbers after the last step" in task.notices[0]
    assert not task_of(XS, XS[:, :3, 0], target="numbers").notices
    assert task_of(XS, XS[:, :, :1], target="numbers").spec.every_step


def test_a_class_that_only_a_later_split_has_is_noticed():
    splits = dict.fromkeys(SPLITS, (XS, YS)) | {"test": (XS, YS + 1)}
    (notice,) = SequenceTask("own", splits).load("cpu").notices
    assert "class 2 of test is in no training row" in notice


@pytest.mark.parametrize(
    ("xs", "ys", "options", "said"),
    [
        (XS, 500 + 3 * XS[:, 0], {}, ["the targets have mean 501"]),
        (XS, 90 * (XS[:, 0] - 0.5), {}, ["standard deviation 2"]),
        (255 * XS, XS[:, 0], {}, ["the inputs reach 2"]),
        (255 * XS, XS[:, 0], {"scale": 255.0}, []),
        ((255 * XS).astype("uint8"), YS, {"target": "class"}, ["the inputs reach 2"]),
        ((255 * XS[:, :, 0]).astype("uint8"), YS, {"target": "class"}, []),
        (XS, XS[:, 0], {}, []),
    ],
)
def test_numbers_that_slow_training_down_are_noticed(xs, ys, options, said):
    notices = task_of(xs, ys, **{"target": "numbers"} | options).notices
    assert len(notices) == len(said)
    assert all(part in notice for part, notice in zip(said, notices, strict=True))


def test_masked_targets_are_missing():
    numbers = np.ma.masked_array(np.arange(12.0), np.arange(12) == 5)
    task = task_of(XS, numbers, target="numbers")
    assert task.split("train").ys[5].isnan().all() and not task.complete
    classes = np.ma.masked_array(YS, np.arange(12) == 5)
    assert task_of(XS, classes).split("train").ys[5] == -100


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": (XS, YS)}, "has no split 'validation'; it has train"),
        ({}, "there is no split"),
        ([(XS, YS)], "expected a mapping from train, validation and test"),
        (dict.fromkeys(SPLITS, pd.DataFrame({"x": YS})), "expected a pair of sequences"),
        (dict.fromkeys(SPLITS, "data.csv"), "got str of length 8"),
        ({**dict.fromkeys(SPLITS, (XS, YS)), "test": (XS[:, :, :2], YS)}, "the splits differ"),
    ],
)
def test_splits_that_are_none_are_refused(splits, message):
    with pytest.raises(UserError, match=message):
        SequenceTask("own", splits).load("cpu")


def test_a_task_without_data_says_so():
    task = SequenceTask("own", dict.fromkeys(SPLITS, (XS, YS)))
    with pytest.raises(UserError, match=r"has no data yet: call load"):
        task.training_batch(0, 2, 1, 0)


@pytest.mark.parametrize("bad", [np.sin(np.arange(90.0)), np.zeros((3, 30), int), np.array(["a"])])
def test_a_text_of_anything_but_tokens_is_refused(bad):
    with pytest.raises(UserError, match="own', train: expected"):
        TextTask("own", lambda: dict.fromkeys(SPLITS, bad)).load("cpu")


def test_a_text_of_one_token_is_refused_and_class_weights_are_those_of_its_tokens():
    with pytest.raises(UserError, match="all training tokens are 3, so there is nothing to learn"):
        TextTask("own", lambda: dict.fromkeys(SPLITS, np.full(50, 3))).load("cpu")
    text = np.array([0, 0, 0, 1] * 10)
    task = TextTask("own", lambda: dict.fromkeys(SPLITS, text), 2)
    task = task.with_loss("cross_entropy", class_weights="balanced").load("cpu")
    batch = next(task.iterate("train", 2, 8))
    outputs = torch.randn(*batch.ys.shape, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([40 / (2 * 30), 40 / (2 * 10)])
    expected = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), batch.ys.flatten(), weights)
    torch.testing.assert_close(task.loss(outputs, batch), expected)


# Whatever the arrays: accepted and kept in every number, or a UserError.

dtypes = st.one_of(
    arrays.floating_dtypes(endianness="?"), arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"), arrays.boolean_dtypes(),
    arrays.complex_number_dtypes(), arrays.unicode_string_dtypes(max_len=2),
    arrays.datetime64_dtypes(), st.just(np.dtype(object)),
)  # fmt: skip


@st.composite
def any_array(draw, count):
    shape = (draw(st.sampled_from([count, count, count, count + 1])),)
    shape += draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    dtype = draw(dtypes)
    elements = None
    if dtype.kind == "O":
        elements = st.sampled_from([1, 2.5, None, "a", True, np.nan, (1, 2), -100, 2**70])
    return draw(arrays.arrays(dtype, shape, elements=elements))


@examples(max_examples=150)
@given(data=st.data(), count=st.integers(1, 4), target=st.sampled_from(KINDS))
def test_any_array_is_accepted_or_refused(data, count, target):
    xs, ys = data.draw(any_array(count)), data.draw(any_array(count))
    lengths = data.draw(st.none() | any_array(count))
    with contextlib.suppress(UserError):
        task_of(xs, ys, *(() if lengths is None else (lengths,)), target=target)


numbers = st.one_of(
    arrays.floating_dtypes(endianness="?"), arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"), arrays.boolean_dtypes(), st.just("object"),
)  # fmt: skip


@st.composite
def valid_data(draw):
    """Draw inputs of any numeric type, and the kind and the array of their targets."""
    target, count, time = draw(st.sampled_from(KINDS)), draw(st.integers(2, 5)), 3
    xs = draw(arrays.arrays("i8", (count, time, 2), elements=st.integers(0, 120)))
    shape = {"class": (count,), "labels": (count, 2), "numbers": (count, 2)}[target]
    if draw(st.booleans()):
        shape = (count, time, *shape[1:])
    ys = draw(arrays.arrays("i8", shape, elements=st.integers(0, 1)))
    ys[0], ys[1] = 0, 1  # not constant
    xs_type, ys_type = draw(numbers), draw(numbers)
    return target, xs.astype(xs_type), ys.astype(ys_type)


@examples(max_examples=80)
@given(drawn=valid_data())
def test_numbers_of_any_type_are_read_whole(drawn):
    target, xs, ys = drawn
    task = task_of(xs, ys, target=target)
    batch = next(task.iterate("test", 9, 1))
    np.testing.assert_array_equal(batch.xs.numpy(), xs.astype("float32"))
    np.testing.assert_array_equal(batch.ys.numpy(), ys.astype("int64"))


@examples(max_examples=80)
@given(drawn=valid_data(), place=st.tuples(*[st.integers(0, 1)] * 3), data=st.data())
def test_a_number_that_is_none_is_found(drawn, place, data):
    target, xs, ys = drawn
    bad = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    if data.draw(st.booleans()):
        xs = with_entry(xs, place, bad, "float64")
    else:
        ys = with_entry(ys, place[: ys.ndim], bad, "float64")
        if np.isnan(bad) and target != "class":
            return
    with pytest.raises(UserError, match=f"row {place[0]} "):
        task_of(xs, ys, target=target)


anything = st.recursive(
    st.sampled_from([0, 1, -1, 2.5, True, None, "a", b"b", float("nan"), 1j, object()]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@examples(max_examples=150)
@given(split=anything, target=st.sampled_from(KINDS), spec=st.sampled_from([None, TaskSpec(1, 2)]))
def test_any_python_value_is_accepted_or_refused(split, target, spec):
    try:
        SequenceTask("own", dict.fromkeys(SPLITS, split), spec, target=target).load("cpu")
    except UserError as error:
        assert "\n" not in str(error)
