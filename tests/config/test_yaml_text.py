"""Values mean the same in a file and behind a flag, and nothing in a file is dropped silently."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from thalnet_mtl.config.load import load_configs
from thalnet_mtl.config.values import check_type
from thalnet_mtl.config.yaml_text import parse_yaml, write_yaml
from thalnet_mtl.errors import UserError

FIELDS = ("train.batch", "train.clip", "model.module", "train.threads")
NUMBERS = {
    "1e-3": 1e-3,
    ".5": 0.5,
    "5.": 5.0,
    "64.0": 64.0,
    "1_000": 1000.0,
    "+8": 8.0,
    "1e2": 100.0,
}
REFUSED = (
    "010", "016", "1:30", "0x10", "0o17", "0b1", "1__0", "_1", "inf", ".inf", "nan", ".nan", "~",
    "null", "yes", "no", "on", "off", "true", "1,5", "2024-01-01", "٣", "1e999", "",
)  # fmt: skip
WORD = r"[0-9.eE+_xnaultr~:YyNofTF][-0-9.eE+_x:a-z~]{0,6}"


def value(path, key, text):
    """Return what a text means in a file and behind a flag; None where it is refused."""
    section, field = key.split(".")
    path.write_text(f"{section}:\n  {field}: {text}\n", encoding="utf-8")
    found = []
    for names, flags in ([str(path)], {}), ([], {key: text}):
        try:
            config = load_configs(names, flags)[""]
            found.append(repr(getattr(getattr(config, section), field)))
        except UserError as error:
            assert "\n" not in str(error)
            found.append(None)
    return found


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_means_the_same_in_a_file_and_behind_a_flag(tmp_path, text):
    expected = repr(NUMBERS[text])
    assert value(tmp_path / "a.yaml", "train.clip", text) == [expected, expected]
    whole = repr(int(NUMBERS[text])) if NUMBERS[text] >= 1 else None
    assert value(tmp_path / "a.yaml", "train.batch", text) == [whole, whole]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_number_is_refused_in_a_file_and_behind_a_flag(tmp_path, text):
    for key in ("train.batch", "train.clip"):
        assert value(tmp_path / "a.yaml", key, text) == [None, None]


@examples(max_examples=60)
@given(key=st.sampled_from(FIELDS), text=st.from_regex(WORD, fullmatch=True))
def test_any_word_means_the_same_in_a_file_and_behind_a_flag(tmp_path_factory, key, text):
    if text.endswith(":"):  # a mapping in a file
        return
    from_file, from_flag = value(tmp_path_factory.getbasetemp() / "word.yaml", key, text)
    assert from_file == from_flag


def test_true_and_false_are_the_only_truth_values():
    for text in ("true", "True", "TRUE", "false"):
        assert check_type(text, bool, "x") is (text != "false")
        assert parse_yaml(f"a: {text}", "f") == {"a": text != "false"}
    for text in ("yes", "no", "on", "off", "1", "y"):
        with pytest.raises(UserError, match="expected true or false"):
            check_type(parse_yaml(text, "f"), bool, "x")


def test_a_list_of_fixed_length_takes_no_more_and_no_fewer():
    assert check_type("1, 2", tuple[int, int], "x") == (1, 2)
    for text in ("1,2,3", "1"):
        with pytest.raises(UserError, match=r"x: expected 2 values, got [13]\."):
            check_type(text, tuple[int, int], "x")
    assert check_type("a, b", tuple[str, ...], "x") == ("a", "b")
    with pytest.raises(UserError, match="a list of names"):
        check_type("a,,b", tuple[str, ...], "x")


@pytest.mark.parametrize(
    ("text", "name", "second", "first"),
    [
        ("train: {batch: 1}\ntask: {}\ntrain: {clip: 1}", "train", 3, 1),
        ("train:\n  batch: 1\n  batch: 1", "batch", 3, 2),
        ("tasks:\n  a: {}\n  b: {}\n  a: {}", "a", 4, 2),
        ("runs: {a: {}, a: {}}", "a", 1, 1),
        ("stream:\n- {tasks: [a]}\n- {tasks: [a], tasks: [b]}", "tasks", 3, 3),
        ("a: 1\n'a': 2", "a", 2, 1),
        ("a: {<<: {b: 1}, c: 1, <<: {b: 2}}", "<<", 1, 1),
    ],
)
def test_a_key_that_is_there_twice_is_refused_with_both_lines(text, name, second, first):
    message = f"f.yaml, line {second}: '{name}' is given twice, first in line {first}."
    with pytest.raises(UserError) as error:
        parse_yaml(text, "f.yaml")
    assert str(error.value) == message


def test_a_merged_mapping_gives_defaults():
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2}\nc: {<<: [*b, *a], z: 3}\nd: {<<: *a, x: 4}"
    tree = parse_yaml(text, "f")
    assert tree == yaml.safe_load(text)
    assert tree["c"] == {"x": 2, "y": 1, "z": 3} and tree["d"] == {"x": 4, "y": 1}


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}]\n" for k in range(64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 200,000 values, aliases included"),
        ("a: &a [*a]", "alias '*a' stands before '&a'"),
        ("a: *b", "alias '*b' stands before '&b'"),
        ("a: " + "[" * 3000 + "]" * 3000, "more than 40 lists or mappings in each other"),
        ("a: " + "{a: " * 3000 + "}" * 3000, "more than 40 lists or mappings in each other"),
        ("- " * 3000 + "a", "more than 40 lists or mappings in each other"),
        ("a: !!int abc", "a tag such as 'tag:yaml.org,2002:int' is not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "a tag such as"),
        ("a: 1\n---\nb: 1", "f.yaml, line 2: a second document begins"),
        ("? [a, b]\n: 1", "a key must be a word"),
        ("<<: 1", "'<<' takes a mapping, or a list of them"),
        ("a: [", "f.yaml is not valid YAML: line 2: did not find expected node content."),
        ("\ta: 1", "not valid YAML: line 1: found character that cannot start any token"),
        ("a: \0", "control characters are not allowed"),
        ("a: \x1b[2J", "control characters are not allowed"),
    ],
)
def test_what_nobody_would_write_is_one_line_within_a_second(text, message):
    begin = time.perf_counter()
    with pytest.raises(UserError) as error:
        parse_yaml(text, "f.yaml")
    assert time.perf_counter() - begin < 1
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "1" * 400, "1e400", "." + "5" * 301])
def test_numbers_too_long_to_be_meant_are_one_short_line(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"train: {{steps: {text}, clip: {text}}}")
    for names, flags in ([str(tmp_path / "a.yaml")], {}), ([], {"train.steps": text}):
        with pytest.raises(UserError, match=r"steps: expected a whole number, got .{2,90}$"):
            load_configs(names, flags)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(),
    st.from_regex(r"[-+0-9._eE:xn~]{1,5}", fullmatch=True),
    st.sampled_from(["yes", "1e3", "010", "true", "null", ".inf", "<<", "2024-01-01", "=", "1_0"]),
)  # fmt: skip
keys = st.text() | st.sampled_from(["<<", "1", "1e3", "null", "~", "true"])
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@examples(max_examples=100)
@given(st.dictionaries(keys, trees, max_size=4))
def test_what_is_written_is_read_back(tree):
    assert parse_yaml(write_yaml(tree), "f") == tree
