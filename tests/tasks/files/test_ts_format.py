"""Tests of the reader of ``.ts`` files on files that are written here by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.files.ts_format import read_ts

CLASSES = """\
# A comment with a : and a ?

@problemName Turns
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true left right
@data
1,2.5,-3e-1:7,?,9:left
# between the cases
4,5 : 8,8 : right
0.5:NaN:left
"""

NUMBERS = """\
@problemname Sizes
@univariate true
@equallength true
@serieslength 3
@targetlabel true
@data
1,2,3:0.25
4,5,6:?
"""


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path."""

    def write(text, encoding="utf-8"):
        path = tmp_path / "a.ts"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_classes_channels_lengths_and_missing_values(write):
    cases = read_ts(write(CLASSES))
    assert cases.classes == ("left", "right")
    assert cases.targets.tolist() == [0, 1, 0] and cases.targets.dtype == np.int64
    expected = [[[1, 7], [2.5, np.nan], [-0.3, 9]], [[4, 8], [5, 8]], [[0.5, np.nan]]]
    for series, values in zip(cases.series, expected, strict=True):
        np.testing.assert_array_equal(series, values)


def test_a_number_per_case(write):
    cases = read_ts(write(NUMBERS))
    assert cases.classes == ()
    np.testing.assert_array_equal(cases.targets, [0.25, np.nan])
    np.testing.assert_array_equal(cases.series, [[[1], [2], [3]], [[4], [5], [6]]])


def test_windows_line_ends_and_a_byte_order_mark_are_read(write):
    plain = read_ts(write(CLASSES))
    windows = read_ts(write("\ufeff" + CLASSES.replace("\n", "\r\n")))
    assert windows.targets.tolist() == plain.targets.tolist()
    for a, b in zip(windows.series, plain.series, strict=True):
        np.testing.assert_array_equal(a, b)


@given(
    st.lists(
        st.integers(1, 5).flatmap(
            lambda steps: arrays(float, (steps, 3), elements=st.floats(-1e9, 1e9))
        ),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_what_is_written_is_read(tmp_path_factory, series, data):
    targets = data.draw(st.lists(st.floats(-1e9, 1e9), min_size=len(series), max_size=len(series)))
    lines = ["@targetLabel true", "@data"]
    for case, target in zip(series, targets, strict=True):
        channels = [",".join(map(repr, column)) for column in case.T.tolist()]
        lines.append(":".join([*channels, repr(target)]))
    path = tmp_path_factory.getbasetemp() / "written.ts"
    path.write_text("\n".join(lines))
    cases = read_ts(path)
    assert cases.targets.tolist() == targets
    for case, expected in zip(cases.series, series, strict=True):
        np.testing.assert_array_equal(case, expected)


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (CLASSES, "@missing", "@mising", r"line 5: unknown name 'mising'.*Did you mean 'missing'"),
        (CLASSES, "@timeStamps false", "@timeStamps true", "line 4: time stamps are not supported"),
        (CLASSES, "@timeStamps false", "@timeStamps no", "line 4: @timeStamps is 'no', expected"),
        (CLASSES, "@dimensions 2", "@dimensions two", "line 7: @dimensions is 'two', expected a n"),
        (CLASSES, "@dimensions 2", "@dimensions 0", "line 7: @dimensions is '0', expected a n"),
        (CLASSES, "true left right", "true", "line 9: @classLabel needs the classes"),
        (CLASSES, "left right", "left left", "line 9: @classLabel needs the classes, each"),
        (CLASSES, "true left right", "false", "needs either '@classLabel true …' or '@targetLabel"),
        (NUMBERS, "@data", "@classLabel true a\n@data", "needs either '@classLabel true …' or"),
        (CLASSES, "@data\n", "", "line 10: a case before @data"),
        (NUMBERS, "@data\n1,2,3:0.25\n4,5,6:?\n", "", "a.ts: no line @data"),
        (NUMBERS, "1,2,3:0.25\n4,5,6:?\n", "", "a.ts: no case follows @data"),
        (CLASSES, "4,5 : 8,8", "4,5", "line 13: 1 channels and a target, expected 2"),
        (CLASSES, "0.5:NaN:left", "left", "line 14: 0 channels and a target, expected 2"),
        (CLASSES, "4,5 :", "4,5,6 :", r"line 13: the channels have different lengths, \[2, 3\]"),
        (CLASSES, "2.5", "2.5.1", "line 11: could not convert string to float: '2.5.1'"),
        (CLASSES, "2.5,", "2.5,,", "line 11: could not convert string to float: ''"),
        (CLASSES, "2.5", "inf", "line 11: an infinite value"),
        (CLASSES, "8 : right", "8 : rihgt", r"line 13: unknown class 'rihgt'. Allowed: left, ri"),
        (NUMBERS, "4,5,6", "4,5,6,7", "line 8: a case of 4 steps, expected 3"),
        (NUMBERS, "4,5,6", "4,5,6:7,8,9", "line 8: 2 channels and a target, expected 1"),
        (NUMBERS, "0.25", "much", "line 7: the target is 'much', expected a number"),
        (NUMBERS, "0.25", "-inf", "line 7: the target is infinite"),
    ],
)
def test_a_line_that_does_not_fit_is_one_error_with_its_number(write, text, old, new, message):
    assert text.count(old) == 1
    path = write(text.replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        read_ts(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_equal_length_holds_without_a_length_in_the_header(write):
    text = NUMBERS.replace("@serieslength 3\n", "")
    assert len(read_ts(write(text)).series) == 2
    text = text.replace("4,5,6", "4,5")
    with pytest.raises(UserError, match="line 7: a case of 2 steps, expected 3"):
        read_ts(write(text))


def test_a_file_that_cannot_be_read_is_one_error(write, tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none.ts: No such file"):
        read_ts(tmp_path / "none.ts")
    with pytest.raises(UserError, match=r"a.ts is not a text in UTF-8"):
        read_ts(write(CLASSES.replace("left", "lïnks"), "latin-1"))
