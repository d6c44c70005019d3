"""Tests of times: dates are read in one form for a whole column, and holes are told."""

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.files.table import csv
from thalnet_mtl.tasks.files.times import gaps_of, read_times

FORMS = {
    "%d.%m.%Y": "dots",
    "%d. %m. %Y": "dots and spaces",
    "%d.%m.%y %H:%M": "years of two digits",
    "%d.%m.%Y, %H:%M": "a comma before the time",
    "%H:%M %d.%m.%Y": "the time first",
    "%Y-%m-%dT%H:%M": "ISO",
    "%Y/%m/%d": "years first",
    "%Y%m%d": "no signs",
    "%Y%m%d%H%M": "no signs, and minutes",
    "%m.%Y": "months",
}


def places(row):
    return f"row {row}"


@pytest.mark.parametrize("form", FORMS)
@examples(max_examples=20)
@given(st.lists(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2060, 1, 1))
                .filter(lambda t: t.month < 10), min_size=1, max_size=9))  # fmt: skip
def test_dates_are_those_that_python_wrote(form, times):
    words = [time.strftime(form) for time in times]
    expected = [datetime.datetime.strptime(word, form) for word in words]
    read = read_times(words, places)
    assert read.tolist() == np.array(expected, "datetime64[ns]").tolist()


@pytest.mark.parametrize("sign", ["/", "-", " "])
def test_an_order_of_day_and_month_that_only_one_reading_allows_is_used(sign):
    for order in ("%d %m %Y", "%m %d %Y"):
        form = order.replace(" ", sign)
        days = [datetime.datetime(2024, 2, day) for day in range(9, 16)]
        read = read_times([day.strftime(form) for day in days], places)
        assert read.tolist() == np.array(days, "datetime64[ns]").tolist()


UNCLEAR = [
    (["01/02/2024", "03/02/2024"], r"row 0: '01/02/2024' may be 2024-02-01 or 2024-01-02; .*yyyy-"),
    (["05/05/2024", "03-02-2024"], r"row 0 and row 1: '05/05/2024' and .* of different forms"),
    (["13/02/2024", "02/13/2024"], r"row \d: '.*' is neither a number nor a date"),
    (["24/01/31", "24/02/01"], r"row 0: '24/01/31' may be"),
    (["01.02.2024", "31.02.2024"], r"row 1: '31\.02\.2024' is neither"),
    (["01.02.2024", "soon"], r"row 1: 'soon' is neither"),
    (["1", "inf"], r"row \d: '.*' is neither"),
]


@pytest.mark.parametrize(("words", "message"), UNCLEAR)
def test_an_order_of_day_and_month_is_never_guessed(words, message):
    with pytest.raises(UserError, match=message) as error:
        read_times(words, places)
    assert "\n" not in str(error.value)


def test_both_orders_are_fine_where_they_mean_the_same():
    assert read_times(["05/05/2024", "06/06/2024"], places)[1] == np.datetime64("2024-06-06")


def write(times, decimal="."):
    lines = [f"{time};0{decimal}{k:03d}\n" for k, time in enumerate(times)]
    with open("a.csv", "w") as file:
        file.write("when;x\n" + "".join(lines))
    return "a.csv"


def load(path, **options):
    options = {"window": 2, "horizon": 1} | options
    task = csv(path, ["x"], ["x"], time="when", separator=";", standardize=False, **options)
    return task.load("cpu")


def first_inputs(task):
    """Return the row at which each training window begins."""
    return (1000 * task.split("train").xs[:, 0, 0]).round().int().tolist()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of one's own, in which the tables are written."""
    monkeypatch.chdir(tmp_path)


def test_a_series_with_the_day_first_stays_in_order():
    days = [f"{day:02d}.{month:02d}.2024" for month in (1, 2, 3) for day in range(1, 13)]
    assert first_inputs(load(write(days))) == list(range(23))


def test_a_series_of_months_stays_in_order():
    months = [f"{month:02d}.{year}" for year in (2022, 2023, 2024) for month in range(1, 13)]
    task = load(write(months))
    assert first_inputs(task) == list(range(23))
    assert not task.notices  # months of 28 and of 31 days leave no gap


def hours(*spans):
    first = np.datetime64("2024-03-05T00")
    return [first + np.timedelta64(k, "h") for span in spans for k in span]


def test_the_longest_gap_is_told_with_its_line():
    task = load(write(hours(range(20), range(30, 40), range(90, 100))))
    assert task.notices == (
        "2 gaps in when, the longest 51 h, at a.csv, line 32; windows cross them; give each "
        "stretch a 'group' with split: time.",
    )
    counts = load(write([*range(20), *range(50, 70)]))
    assert counts.notices[0].startswith("1 gap in when, the longest 31, at a.csv, line 22;")
    assert not load(write(hours(range(40)))).notices
    assert not load(write([1.5 * k for k in range(40)])).notices


def test_rows_of_the_same_time_are_counted():
    task = load(write([0, 1, 1, 2, 2, *range(3, 30)]))
    assert task.notices == (
        "a.csv, line 3 and line 4 have the same when (2 such pairs); if the file holds several "
        "series, set group.",
    )


def test_gaps_are_relative_to_the_usual_step_of_their_own_series():
    gaps = gaps_of(np.array([1.0, 1, 0, 2, 1, 1.4]))
    assert gaps.tolist() == [False, False, False, True, False, False]
    assert not gaps_of(np.array([0.0, 0.0])).any() and not len(gaps_of(np.zeros(0)))


def test_a_decimal_comma_is_read_and_else_named():
    path = write(range(30), decimal=",")
    with pytest.raises(UserError, match=r"'0,000' is no finite number\..* set decimal: ','\.$"):
        load(path)
    assert first_inputs(load(path, decimal=",")) == list(range(19))
    with open(path, "a") as file:
        file.write("30;oops\n")
    with pytest.raises(UserError, match=r"line 32, column 'x': 'oops' is no finite number"):
        load(path, decimal=",")
    times = load(write([f"{k},5" for k in range(30)], decimal=","), decimal=",")
    assert first_inputs(times) == list(range(19)) and not times.notices


@pytest.mark.parametrize("cell", ["1.234", "1.234,5"])
def test_a_sign_of_thousands_is_never_read_as_decimals(cell):
    path = write(range(30), decimal=",")
    with open(path, "a") as file:
        file.write(f"30;{cell}\n")
    with pytest.raises(UserError, match=rf"line 32, column 'x': '{cell}' is no finite number"):
        load(path, decimal=",")


def test_a_separator_is_no_decimal_sign():
    with pytest.raises(UserError, match=r"decimal ';': expected one sign other than the separator"):
        load(write(range(30)), decimal=";")


def test_a_column_of_points_alone_is_no_column_of_decimals_with_commas():
    with pytest.raises(UserError, match=r"'0\.000' is no finite number\. The decimal sign is ','"):
        load(write(range(30)), decimal=",")
