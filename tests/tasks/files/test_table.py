"""Tests of tasks on CSV files, by hand: which cells a network reads, and which it is asked for."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.evaluation import Evaluation, guess_scores
from thalnet_mtl.tasks.files.table import csv

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of one's own, in which the tables are written."""
    monkeypatch.chdir(tmp_path)


def table(text="", name="a.csv", **columns):
    """Write a table, of lines or of columns, and return its name."""
    with open(name, "w") as file:
        file.write(text or pd.DataFrame(columns).to_csv(index=False))
    return name


def series(rows=100):
    """Write a series that counts its rows, and ten times that."""
    counts = np.arange(rows)
    return table(n=counts, ten=10 * counts, kind=np.where(counts % 3, "b", "a"))


def groups(count=10):
    """Write groups of 1, 2, 3, … rows out of order, with a class and a number of each group."""
    frame = pd.DataFrame(
        [(f"g{g}", t, g + t / 100, "odd" if g % 2 else "even", g) for g in range(count)
         for t in range(g + 1)], columns=["id", "t", "x", "parity", "number"],
    )  # fmt: skip
    frame.sample(frac=1, random_state=0).to_csv("groups.csv", index=False)
    return "groups.csv"


def load(path, inputs, outputs, **options):
    return csv(path, inputs, outputs, standardize=False, **options).load("cpu")


def test_windows_of_forecasts_never_share_a_target():
    task = load(series(), ["n"], ["ten"], window=8, horizon=2, every_step=True)
    assert task.spec.steps == 8 and task.spec.outputs == 2 and task.spec.every_step
    targets = {}
    for name in PARTS:
        xs, ys, _ = task.split(name)
        there = ~ys.isnan()
        ahead = ys - 10 * xs
        assert (ahead[there] == torch.tensor([10.0, 20.0]).expand(ys.shape)[there]).all()
        targets[name] = set(ys[there].tolist())
    assert targets["train"] == set(range(10, 700, 10))
    assert targets["validation"] == set(range(700, 850, 10))
    assert targets["test"] == set(range(850, 1000, 10))


def test_a_forecast_after_the_last_step_reads_a_window_that_ends_before_its_target():
    task = load(series(), ["n"], ["ten"], window=5, horizon=1, stride=3)
    xs, ys, _ = task.split("train")
    assert xs[:, 0, 0].tolist() == list(range(0, 65, 3)) and ys.shape == (len(xs), 1)
    for name, first in (("train", 5), ("validation", 70), ("test", 85)):
        xs, ys, _ = task.split(name)
        assert ys[0, 0] == 10 * first and (ys[:, 0] == 10 * (xs[:, -1, 0] + 1)).all()


def test_without_a_horizon_targets_are_those_of_the_same_row():
    task = load(series(), ["n"], ["kind"], target="class", window=6, every_step=True)
    assert task.class_names == ("a", "b")
    for name in PARTS:
        xs, ys, _ = task.split(name)
        there = ys != -100
        assert ((xs[..., 0] % 3 > 0) == (ys == 1))[there].all()
    assert sum(int((task.split(name).ys[task.split(name).ys != -100] >= 0).sum()) for name in
               ("validation", "test")) == 30  # fmt: skip


def test_groups_are_whole_sequences_in_the_order_of_time():
    task = load(groups(), ["x"], ["parity"], target="class", group="id", time="t")
    seen = []
    for name in PARTS:
        xs, ys, lengths = task.split(name)
        lengths = [xs.shape[1]] * len(xs) if lengths is None else lengths
        for x, y, length in zip(xs[..., 0], ys, lengths, strict=True):
            group = int(x[0])
            assert length == group + 1 and y == group % 2
            torch.testing.assert_close(x[:length], group + torch.arange(group + 1) / 100)
            seen.append(group)
    assert sorted(seen) == list(range(10))
    assert [len(task.split(name)) for name in PARTS] == [7, 1, 2]
    assert task.class_names == ("even", "odd") and task.spec.steps == 10


def test_the_seed_decides_which_groups_are_for_what():
    options = {"target": "class", "group": "id", "time": "t"}
    first, again, other = (
        load(groups(), ["x"], ["parity"], split_seed=seed, **options).split("train").xs[:, 0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_forecast_within_groups_stays_in_them():
    path = groups()
    task = load(path, ["x"], ["x"], group="id", time="t", horizon=1, every_step=True)
    for name in PARTS:
        xs, ys, lengths = task.split(name)
        there = ~ys.isnan()
        torch.testing.assert_close((ys - xs)[there], torch.full(ys.shape, 0.01)[there])
        assert there.sum() == (lengths.sum() if lengths is not None else xs.shape[:2].numel())
    assert "1 series are shorter than the 2 rows of a sequence" in " ".join(task.notices)


def test_wide_rows_are_sequences_that_end_where_cells_are_blank():
    parts = ["train", "train", "validation", "test"]
    cells = {"a": [1, 2, 3, 4], "b": [1, 2, np.nan, 4], "c": [1, np.nan, np.nan, 4]}
    path = table(**cells, y=[0, 1, 0, 1], part=parts)
    task = load(path, ["a", "b", "c"], ["y"], wide=True, split_column="part")
    train, validation, _ = (task.split(name) for name in PARTS)
    assert train.xs[..., 0].tolist() == [[1, 1, 1], [2, 2, 0]]
    assert train.lengths.tolist() == [3, 2] and validation.xs.flatten().tolist() == [3]
    assert train.ys.tolist() == [[0], [1]]
    assert "2 rows end with blank cells" in task.notices[0]


def test_columns_by_pattern_are_in_the_order_of_the_file():
    path = table("x1,x2,x10,y\n" + "1,2,3,0\n" * 3 + "4,5,6,1\n" * 3)
    task = load(path, ["x*"], ["y"], wide=True)
    assert task.input_columns == ["x1", "x2", "x10"]


def test_a_split_by_column_and_by_files_are_the_same():
    frame = pd.DataFrame({"g": np.repeat(np.arange(9), 4), "x": np.arange(36.0)})
    frame["y"] = frame.g % 3
    frame["part"] = np.repeat(["test", "train", "validation"], 12)
    frame.to_csv("whole.csv", index=False)
    for name, rows in frame.groupby("part"):
        rows.assign(g=rows.g % 3).to_csv(f"{name}.csv", index=False)  # the same names in each
    options = {"inputs": ["x"], "outputs": ["y"], "group": "g", "target": "class"}
    by_column = load("whole.csv", split_column="part", **options)
    by_file = load({name: f"{name}.csv" for name in PARTS}, **options)
    for name in PARTS:
        first, second = by_column.split(name), by_file.split(name)
        assert torch.equal(first.xs, second.xs) and torch.equal(first.ys, second.ys)
    assert by_column.split("test").xs.flatten().tolist() == list(range(12))


@pytest.mark.parametrize("form", [{"window": 4, "horizon": 1}, {"group": "g"}])
def test_scaling_is_that_of_the_training_part_and_scores_are_in_the_units_of_the_file(form):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 5)
    path = table(g=group, x=5 + 3 * rng.normal(size=100), y=1000 + 50 * group)
    plain, scaled = (
        csv(path, ["x"], ["y"], standardize=standardize, **form).load("cpu")
        for standardize in (False, True)
    )
    frame = pd.read_csv(path)
    chosen = frame.iloc[:70] if "window" in form else frame[frame.g.isin(
        {round((float(y) - 1000) / 50) for y in plain.split("train").ys})]  # fmt: skip
    xs, ys = StandardScaler().fit(chosen[["x"]].values), StandardScaler().fit(chosen[["y"]].values)
    for name in PARTS:
        a, b = plain.split(name), scaled.split(name)
        expected = xs.transform(a.xs.reshape(-1, 1).double()).reshape(b.xs.shape)
        np.testing.assert_allclose(b.xs, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b.ys, ys.transform(a.ys.double()), rtol=1e-4, atol=1e-5)
        batch, again = next(plain.iterate(name, 100, 0)), next(scaled.iterate(name, 100, 0))
        scores = []
        for task, part, outputs in (
            (plain, batch, a.ys + 7),
            (scaled, again, b.ys + 7 / float(ys.scale_[0])),
        ):
            evaluation = Evaluation(task)
            evaluation.update(outputs.float(), part)
            scores.append(evaluation.compute())
        assert scores[0]["rmse"] == pytest.approx(7, rel=1e-4)
        assert scores[1]["rmse"] == pytest.approx(7, rel=1e-3)
        assert guess_scores(plain, name)["mae"] == pytest.approx(
            guess_scores(scaled, name)["mae"], rel=1e-3
        )


def test_repeating_the_last_value_is_scored_as_by_hand():
    values = np.random.default_rng(0).normal(100, 10, 100).round(2)
    path = table(x=values)
    for options in ({"every_step": True}, {"standardize": False}):
        task = csv(path, ["x"], ["x"], window=6, horizon=2, **options).load("cpu")
        errors = np.stack([values[85:99] - values[84:98], values[86:100] - values[84:98]])
        expected = np.sqrt((errors**2).mean())
        assert task.naive_scores("test")["rmse"] == pytest.approx(expected, rel=1e-5)
    assert csv(path, ["x"], ["x"], window=6, horizon=2).load("cpu").naive_scores("test", 3)[
        "mae"
    ] == pytest.approx(np.abs(errors).mean(), rel=1e-5)


def test_errors_of_a_change_are_those_of_the_value():
    path = table(x=np.random.default_rng(0).normal(100, 10, 100).cumsum())
    options = {"window": 6, "horizon": 2, "every_step": True}
    value, change = (
        csv(path, ["x"], ["x"], change=asked, **options).load("cpu") for asked in (False, True)
    )
    for split in PARTS:
        scores = value.naive_scores(split), change.naive_scores(split)
        assert scores[0]["rmse"] == pytest.approx(scores[1]["rmse"], rel=1e-4)
        values, changes = (task.in_units(task.split(split).ys) for task in (value, change))
        last = change.scalings[0].invert(change.split(split).xs)
        torch.testing.assert_close(changes + last, values, rtol=1e-4, atol=0.1, equal_nan=True)


def test_blank_targets_are_missing_and_a_sequence_without_targets_may_stay():
    path = table("g,x,y\n" + "".join(f"{g},{g},{'' if g == 4 else g % 2}\n" for g in range(12)))
    task = load(path, ["x"], ["y"], group="g", target="labels")
    ys = torch.cat([task.split(name).ys for name in PARTS])
    assert ys.isnan().sum() == 1 and ys.nansum() == 6


def test_blank_inputs_are_filled_on_request_only():
    path = table("x,y\n1,1\n,2\n3,3\n" + "".join(f"{k},{k}\n" for k in range(4, 21)))
    options = {"window": 2, "horizon": 1}
    with pytest.raises(UserError, match=r"a\.csv, line 3, column 'x': the value is missing; set"):
        load(path, ["x"], ["y"], **options)
    forward = load(path, ["x"], ["y"], fill="forward", **options).split("train").xs
    assert forward[:2, :, 0].tolist() == [[1, 1], [1, 3]]
    mean = load(path, ["x"], ["y"], fill="mean", **options).split("train").xs
    assert mean[0, 1, 0] == pytest.approx(np.mean([1, *range(3, 15)]))
    with pytest.raises(UserError, match=r"line 2, column 'x': .* no row before it .* fill: mean"):
        load(table("x,y\n,1\n" + "1,2\n" * 20), ["x"], ["y"], fill="forward", **options)


def test_categories_are_in_the_order_of_their_values_and_blank_is_missing():
    words = [f"{g},{g},{name}\n" for g, name in enumerate(["10", "9", "", "10", "9", "11"] * 3)]
    task = load(table("g,x,y\n" + "".join(words)), ["x"], ["y"], target="class", group="g")
    assert task.class_names == ("9", "10", "11")
    assert sum(int((task.split(name).ys == -100).sum()) for name in PARTS) == 3
    names = [f"{g},{g},{name}\n" for g, name in enumerate(["NA", "DE", "None"] * 4)]
    task = load(table("g,x,y\n" + "".join(names)), ["x"], ["y"], target="class", group="g")
    assert task.class_names == ("DE", "NA", "None")  # Namibia is a country


def test_a_class_may_be_the_group():
    task = load(groups(), ["x"], ["id"], target="class", group="id", window=2, split="time",
                time="t")  # fmt: skip
    assert task.class_names == tuple(f"g{g}" for g in range(10))
    xs, ys, _ = task.split("train")
    assert (xs[:, 0, 0].long() == ys).all()  # x is the number of the group and a fraction


def test_a_class_that_training_lacks_is_noted():
    rows = [f"{k},{'c' if k > 8 else 'ab'[k % 2]},{part}\n"
            for k, part in enumerate(["train"] * 8 + ["validation"] + ["test"] * 3)]  # fmt: skip
    path = table("x,y,part\n" + "".join(rows))
    task = load(path, ["x"], ["y"], target="class", wide=True, split_column="part")
    assert task.notices == ("class c of test is in no training row.",)


def test_whole_numbers_that_look_like_classes_are_noted():
    task = load(table(x=range(20), y=[0, 1, 2, 3] * 5), ["x"], ["y"], wide=True)
    assert "output 'y' has only 4 different whole numbers" in task.notices[0]


def test_other_separators_spaces_and_marks_of_byte_order_are_read():
    with open("b.csv", "w", encoding="utf-8-sig") as file:
        file.write("x; y\n" + "".join(f"{k}; {k}\n" for k in range(20)) + "\n\n")
    task = load("b.csv", ["x"], ["y"], separator=";", window=2)
    assert task.split("train").xs.flatten(0)[:4].tolist() == [0, 1, 1, 2]


GOOD = {"inputs": ["n"], "outputs": ["ten"], "window": 5, "horizon": 1}
MISTAKES = [
    ({"path": "b.csv"}, r"no file b\.csv in .*\. Did you mean 'a\.csv'\?"),
    ({"inputs": ["m", "ten"]}, r"inputs: a\.csv has no column 'm'\. Its columns: n, ten, kind"),
    ({"outputs": ["tne"]}, r"outputs: .* Did you mean 'ten'\?"),
    ({"inputs": ["n", "n*"]}, r"inputs: column 'n' is named twice"),
    ({"inputs": ["kind"]}, r"a\.csv, line 2, column 'kind': 'a' is no finite number\.$"),
    ({"outputs": ["kind"]}, r"column 'kind': 'a' is no finite number\..* set target: class"),
    ({"group": "gruop"}, r"group: a\.csv has no column 'gruop'"),
    ({"window": 0}, r"say what a sequence is: group: COLUMN .*window: N .* wide: true"),
    ({"window": 1}, r"window 1: expected at least 2 rows"),
    ({"window": 90}, r"train: its longest series has 70 rows; a sequence needs 91"),
    ({"stride": 0}, r"stride 0, horizon 1: expected at least 1 and 0"),
    ({"horizon": 0, "inputs": ["ten"]}, r"column 'ten' is in inputs and in outputs.*horizon"),
    ({"wide": True}, r"wide and window: a wide row is a sequence with one target"),
    ({"fractions": (0.7, 0.2, 0.2)}, r"fractions \[0\.7, 0\.2, 0\.2\]: expected three .* up to 1"),
    ({"fractions": (0.5, 0.5)}, r"expected three numbers above 0"),
    ({"split": "time", "split_column": "kind"}, r"split, split_column and files.*give one"),
    ({"split_column": "kind"}, r"line 2, column 'kind': 'a' is no split\. Allowed: train"),
    ({"split": "time", "window": 0, "group": "kind"}, r"split: time is for windows"),
    ({"path": {"train": "a.csv", "tset": "a.csv"}}, r"path: expected files for train, val"),
    ({"target": "class", "outputs": ["kind", "ten"]}, r"outputs: a class is one column"),
    ({"target": "class", "outputs": ["kind"], "horizon": 2}, r"horizon 2: a class is forecast one"),
    ({"change": True, "horizon": 0}, r"change is that of numbers that are forecast: set horizon"),
    ({"target": "labels"}, r"a\.csv, line 3, column 'ten': label 10 is not allowed"),
    ({"separator": ";;"}, r"separator ';;': expected one character"),
    ({"separator": ";"}, r"a\.csv has a single column, 'n,ten,kind'\..* set separator"),
    ({"time": "kind"}, r"line 2, column 'kind': 'a' is neither a number nor a date"),
    ({"window": 0, "horizon": 0, "group": "kind"}, r"2 sequences or groups are too few"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_a_mistake_is_one_line(change, message):
    path = series()
    with pytest.raises(UserError, match=message) as error:
        csv(**({"path": path} | GOOD | change))
    assert "\n" not in str(error.value)


TEXTS = [
    ("", r"a\.csv is empty"),
    ("n,ten\n", r"a\.csv holds no rows"),
    ("n,n,ten\n1,2,3\n", r"a\.csv has two columns 'n'"),
    ("n,ten\n1,2\n1,2,3\n", r"a\.csv: .*line 3"),
    ("n,ten\n1,2\n1,x\n", r"a\.csv, line 3, column 'ten': 'x' is no finite number"),
    ("n,ten\n1,2\n1,inf\n", r"a\.csv, line 3, column 'ten': 'inf' is no finite number"),
    ("n,ten\n1,2\n\n1,2\n", r"a\.csv, line 3, column 'n': the value is missing"),
]


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_a_damaged_file_is_one_line(text, message):
    with open("a.csv", "w") as file:
        file.write(text)
    with pytest.raises(UserError, match=message) as error:
        csv("a.csv", ["n"], ["ten"], window=2)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_one_line():
    with open("a.csv", "wb") as file:
        file.write(b"\xff\xfe\x00n,ten\n")
    with pytest.raises(UserError, match=r"a\.csv: is not UTF-8 text"):
        csv("a.csv", ["n"], ["ten"], window=2)


def test_rows_of_a_group_that_disagree_on_its_target_are_named():
    path = table("g,x,y\n" + "a,1,1\na,2,2\nb,1,1\nc,1,1\nd,1,1\n")
    with pytest.raises(UserError, match=r"line 2 and .*line 3: different targets in g 'a'"):
        load(path, ["x"], ["y"], group="g")


@pytest.mark.parametrize("pair", ["no yes", "No YES", "nein ja", "False True", "N Y", "f t",
                                  "non oui", "0 1", "0.0 1.0"])  # fmt: skip
def test_labels_may_be_a_usual_pair_of_words(pair):
    bits = np.arange(20) % 2
    words = np.array(pair.split())[bits]
    task = load(table(x=range(20), a=words, b=[*words[::-1][:-1], ""]), ["x"], ["a", "b"],
                target="labels", wide=True)  # fmt: skip
    xs, ys = (
        torch.cat([getattr(task.split(name), part) for name in PARTS]) for part in ("xs", "ys")
    )
    rows = xs[:, 0, 0].long()
    expected = torch.tensor(np.stack([bits, 1 - bits], 1), dtype=torch.float32)
    expected[-1, 1] = torch.nan
    torch.testing.assert_close(ys, expected[rows], equal_nan=True)


def test_labels_of_other_words_are_refused_with_advice_that_fits():
    path = table(x=range(20), a=["cat", "dog"] * 10, b=["no", "ja"] * 10)
    with pytest.raises(UserError, match=r"column 'a': 'cat' is .* 0 or 1, or no and yes\.$"):
        load(path, ["x"], ["a", "b"], target="labels", wide=True)
    with pytest.raises(UserError, match=r"column 'b': 'no' is .* in one column set target: class"):
        load(path, ["x"], ["b"], target="labels", wide=True)


def test_a_single_column_is_told_before_what_a_sequence_is():
    with pytest.raises(UserError, match=r"has a single column, 'x;y'\..* set separator"):
        csv(table("x;y\n1;2\n"), ["x"], ["y"])


def test_constant_targets_are_told_in_the_units_and_words_of_the_table():
    path = table(x=range(20), y=[5] * 20, z=[3] * 20, kind=["x"] * 20)
    for outputs, options, message in (
        (["y"], {}, "all training targets of column 'y' are 5, so"),
        (["y", "z"], {}, "all training targets of columns 'y', 'z' are 5, 3, so"),
        (["y"], {"target": "class"}, "all training targets of column 'y' are '5', so"),
        (["kind"], {"target": "class"}, "all training targets of column 'kind' are 'x', so"),
    ):
        with pytest.raises(UserError, match=message):
            csv(path, ["x"], outputs, wide=True, **options).load("cpu")
    task = csv(table(x=range(20), y=[5] * 20, z=range(20)), ["x"], ["y", "z"], wide=True)
    assert "output 0 ('y') is always 5 in the training part." in task.load("cpu").notices
