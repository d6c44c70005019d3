"""Tests of standardize: inputs and numbers have mean 0 and deviation 1, scores their own units."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sklearn.preprocessing import StandardScaler

from thalnet_mtl import Network, SequenceTask, ThalNet, UserError
from thalnet_mtl.models.programs import Sequences
from thalnet_mtl.tasks.evaluation import Evaluation, guess_scores
from thalnet_mtl.tasks.files.arrays import folder, npz
from thalnet_mtl.tasks.splits import standardizing
from thalnet_mtl.tasks.splits.sequences import SPLITS
from thalnet_mtl.topology.scaling import Scaling

RNG = np.random.default_rng(0)
MEANS, DEVIATIONS = np.array([500.0, -3.0]), np.array([20.0, 0.1])


def part(count):
    """Return sequences and targets far from 0, some of which are missing, and lengths."""
    xs = RNG.normal(MEANS, DEVIATIONS, (count, 6, 2)).astype("f4")
    ys = RNG.normal(1000, 50, (count, 2)).astype("f4")
    ys[::7, 1] = np.nan
    return xs, ys, RNG.integers(1, 7, count)


PARTS = {name: part(count) for name, count in zip(SPLITS, (50, 10, 12), strict=True)}


def task_of(parts=PARTS, **options):
    options = {"target": "numbers", "standardize": True} | options
    return SequenceTask("own", parts, **options).load("cpu")


def expected_scalers():
    xs, ys, lengths = PARTS["train"]
    steps = np.concatenate([x[:length] for x, length in zip(xs, lengths, strict=True)])
    return StandardScaler().fit(steps.astype("f8")), StandardScaler().fit(ys.astype("f8"))


def assert_scaled_as_expected(task):
    of_inputs, of_targets = expected_scalers()
    for name, (xs, ys, lengths) in PARTS.items():
        batch = next(task.iterate(name, 50, 0))
        scaled = of_inputs.transform(xs.reshape(-1, 2)).reshape(xs.shape)
        scaled[np.arange(6) >= lengths[:, None]] = 0
        np.testing.assert_allclose(batch.xs, scaled[:, : lengths.max()], atol=2e-3)
        np.testing.assert_allclose(batch.ys, of_targets.transform(ys), atol=1e-5)


def test_every_column_is_scaled_as_by_scikit_learn_to_the_training_part():
    assert_scaled_as_expected(task_of())


def test_files_are_scaled_alike_in_blocks_that_fit_into_memory(tmp_path, monkeypatch):
    arrays = {f"{name}_{kind}": array for name, part in PARTS.items()
              for kind, array in zip(("xs", "ys", "lengths"), part, strict=True)}  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    monkeypatch.setattr(standardizing, "BLOCK_BYTES", 7 * 6 * 2 * 4)
    for make, path in ((npz, tmp_path / "a.npz"), (folder, tmp_path)):
        assert_scaled_as_expected(make(str(path), "numbers", standardize=True).load("cpu"))


@examples(max_examples=50)
@given(st.integers(0, 2**20), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_scaling_does_not_depend_on_how_rows_come_in_blocks(seed, sizes):
    rng = np.random.default_rng(seed)
    rows = rng.normal(1e4, 3, (sum(sizes), 3))
    rows[rng.random(rows.shape) < 0.3] = np.nan
    rows[0] = 1e4
    scaling = Scaling.fit_blocks(np.split(rows, np.cumsum(sizes)[:-1]))
    np.testing.assert_allclose(scaling.mean, np.nanmean(rows, 0), rtol=1e-12)
    deviations = np.nanstd(rows, 0)
    np.testing.assert_allclose(
        scaling.deviation, np.where(deviations > 1e-8, deviations, 1), rtol=1e-9
    )


def test_scores_are_in_the_units_of_the_data():
    plain, scaled = task_of(standardize=False), task_of()
    for task in (plain, scaled):
        evaluation = Evaluation(task)
        for batch in task.iterate("test", 5, 0):
            evaluation.update(batch.ys + 7 / torch.tensor(deviation_of(task)), batch)
        assert evaluation.compute()["rmse"] == pytest.approx(7, rel=1e-3)
    assert guess_scores(plain, "test")["mae"] == pytest.approx(
        guess_scores(scaled, "test")["mae"], rel=1e-3
    )


def deviation_of(task):
    return task.scalings[1].deviation if task.scalings[1] else (1.0, 1.0)


def test_an_exported_program_reads_and_returns_numbers_in_the_units_of_the_data():
    task = task_of()
    network = Network(ThalNet(2, 2, 4))
    network.add_task("own", task.spec)
    program = Sequences(network.eval(), "own", task.scalings)
    xs, _, lengths = (torch.as_tensor(part) for part in PARTS["test"])
    batch = next(task.iterate("test", 12, 0))
    with torch.no_grad():
        (answers,) = program(xs, lengths)
        expected = task.in_units(network("own", batch.xs, None, batch.lengths)[0])
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=0.05)
    assert answers.mean() > 900


def test_data_that_is_loaded_again_is_scaled_once():
    task = task_of()
    before = task.scalings
    assert task.load("cpu").scalings == before
    assert_scaled_as_expected(task)


def test_columns_are_those_that_the_network_reads_in_their_order():
    order = torch.arange(12).view(6, 2).flip(1).flatten()
    parts = {name: (xs, ys) for name, (xs, ys, _) in PARTS.items()}
    task, plain = task_of(parts, order=order), task_of(parts)
    (mean, deviation), expected = vars(task.scalings[0]).values(), plain.scalings[0]
    assert mean == pytest.approx(expected.mean[::-1])
    assert deviation == pytest.approx(expected.deviation[::-1])


def test_classes_and_tokens_are_not_scaled():
    xs, _, lengths = PARTS["train"]
    task = task_of(dict.fromkeys(SPLITS, (xs, np.arange(50) % 2, lengths)), target="class")
    assert task.scalings[1] is None and task.scalings[0].mean == pytest.approx(MEANS, rel=0.1)
    tokens = RNG.integers(0, 9, (50, 6))
    task = task_of(dict.fromkeys(SPLITS, (tokens, PARTS["train"][1])))
    batch = next(task.iterate("test", 50, 0))
    assert batch.xs.tolist() == tokens.tolist() and task.scalings[0] is None
    assert abs(batch.ys.nanmean()) < 1e-5


def test_what_cannot_be_scaled_is_refused():
    tokens = dict.fromkeys(SPLITS, (RNG.integers(0, 9, (50, 6)), np.arange(50) % 2))
    with pytest.raises(UserError, match=r"'own': standardize scales numbers; .* tokens"):
        task_of(tokens, target="class")
    xs, ys, _ = PARTS["train"]
    named = {name: {"a": xs, "b": xs, "y": ys} for name in SPLITS}
    with pytest.raises(UserError, match="'own': standardize is for a single input"):
        task_of(named, inputs=["a", "b"])


def test_tasks_with_other_scalings_do_not_share_inputs():
    scaled, plain = task_of(), task_of(standardize=False)
    with pytest.raises(UserError, match="their inputs are standardized differently"):
        plain.share_inputs(scaled)
    scaled.share_inputs(task_of())
    assert_scaled_as_expected(scaled)


def test_notices_name_the_option_and_end_with_it():
    notices = task_of(standardize=False).notices
    assert [notice.count("standardize: true") for notice in notices] == [1, 1]
    assert not task_of().notices


def test_numbers_that_are_rounded_coarsely_are_told():
    xs, ys, lengths = PARTS["train"]
    far = dict.fromkeys(SPLITS, (xs.astype("f8") + 1e9, ys, lengths))
    first, second = task_of(far).notices
    assert first.startswith("input 0 has mean 1e+09 and deviation") and "float32" in first
    assert second.startswith("input 1 is always 1e+09 in torch.float32")
