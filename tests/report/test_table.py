"""Tables of runs: seeds folded, tests, verdicts, and what is said to be missing."""

import csv
import io
import json
import random
import re

import numpy as np
import pytest
from run_fixtures import make_run
from scipy import stats
from table_fixtures import single_record, stream_record, task_entry, write_record

from thalnet_mtl import cli
from thalnet_mtl.errors import UserError
from thalnet_mtl.report.make_table import table
from thalnet_mtl.report.table_formats import escape_latex, escape_markdown
from thalnet_mtl.runs.summaries import read_summaries


def column(made, name):
    """The values of a column of CSV, by the first cell of the row."""
    lines = list(csv.DictReader(io.StringIO(made.csv())))
    return {next(iter(line.values())): line[name] for line in lines}


def streams(folder, strategy, finals, first=0.9, **train):
    """Streams whose first task ends at each of some scores, and the second at 0.8."""
    return [
        stream_record(folder / f"{strategy}-seed{seed}.json", seed,
                      [[0.1, 0.2], [first, 0.3], [final, 0.8]], strategy, **train)
        for seed, final in enumerate(finals)
    ]  # fmt: skip


def test_seeds_are_folded_to_the_mean_and_measures_are_those_of_the_paper(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.7])
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC", "forgetting", "BWT", "FWT"])
    # By hand: ACC (0.5 + 0.8) / 2 and (0.7 + 0.8) / 2; forgetting 0.9 − 0.5 and 0.9 − 0.7.
    assert float(column(made, "ACC")["naive"]) == pytest.approx(0.7)
    assert float(column(made, "forgetting")["naive"]) == pytest.approx(0.3)
    assert float(column(made, "BWT")["naive"]) == pytest.approx(-0.3)
    assert float(column(made, "FWT")["naive"]) == pytest.approx(0.1)
    assert column(made, "seeds") == {"naive": "0 1"}
    assert "70.00 [65.00, 75.00]" in made.text() and "95 % bootstrap interval" in made.text()


def test_the_interval_is_the_percentile_bootstrap_of_scipy(tmp_path):
    scores = [random.Random(7).uniform(0.4, 0.9) for _ in range(8)]
    runs = [single_record(tmp_path / f"r-seed{k}.json", k, x) for k, x in enumerate(scores)]
    made = table(runs, columns=["test.accuracy"])
    reference = stats.bootstrap(
        (scores,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    (row,) = csv.DictReader(io.StringIO(made.csv()))
    assert float(row["test.accuracy.low"]) == pytest.approx(reference.low, abs=0.01)
    assert float(row["test.accuracy.high"]) == pytest.approx(reference.high, abs=0.01)


def test_p_is_that_of_the_permutation_test_of_scipy_and_holm_multiplies_it(tmp_path):
    base = [0.50, 0.55, 0.52, 0.58, 0.51, 0.54, 0.53]
    for name, gain in (("ewc", 0.1), ("si", 0.001)):
        noise = [0.01, -0.02, 0.03, 0.005, -0.01, 0.015, 0.02]
        streams(tmp_path, name, [x + gain + e for x, e in zip(base, noise, strict=True)])
    streams(tmp_path, "naive", base)
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC"], against="naive")
    p_values = {}
    for name in ("ewc", "si"):
        row = made.row(name)
        ours = [run.result.tasks["a"].test for run in row.runs.values()]
        reference = stats.permutation_test(
            (np.array(ours) - base,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        p_values[name] = reference.pvalue
        assert float(column(made, "ACC.p")[name]) == pytest.approx(reference.pvalue)
    # Holm by hand, for two tests: the smaller p twice, the larger one once but not below that.
    small, large = sorted(p_values.values())
    corrected = {name: float(p) for name, p in column(made, "ACC.p.holm").items() if p}
    assert corrected["ewc"] == pytest.approx(2 * small)
    assert corrected["si"] == pytest.approx(max(large, 2 * small))
    assert column(made, "ACC.verdict") == {"naive": "", "ewc": "better", "si": "undecided"}


def test_less_forgetting_is_better_and_a_verdict_needs_six_pairs(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.52, 0.54, 0.56, 0.58, 0.6])
    streams(tmp_path, "ewc", [0.6, 0.62, 0.64, 0.66, 0.68, 0.7])
    options = {"rows": ["train.strategy"], "against": "naive"}
    made = table(tmp_path, columns=["forgetting"], **options)
    assert column(made, "forgetting.verdict")["ewc"] == "better"
    assert column(made, "forgetting.p")["ewc"] == "0.03125"  # 2 / 2^6
    five = [path for path in tmp_path.iterdir() if "seed5" not in path.name]
    made = table(five, columns=["forgetting"], **options)
    assert column(made, "forgetting.verdict")["ewc"] == "undecided"
    assert "| 5 | 0.0625 | undecided |" in made.markdown()
    assert "a test decides only with 6 pairs or more" in made.markdown()


def test_tests_of_several_columns_are_corrected_together(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.52, 0.54, 0.56, 0.58, 0.6])
    streams(tmp_path, "ewc", [0.6, 0.62, 0.64, 0.66, 0.68, 0.7])
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC", "BWT"], against="naive",
                 test=["ACC", "BWT"])  # fmt: skip
    assert column(made, "ACC.p.holm")["ewc"] == column(made, "BWT.p.holm")["ewc"] == "0.0625"
    assert column(made, "ACC.verdict")["ewc"] == "undecided"
    assert "2 tests decide only with 7 pairs or more" in made.markdown()


def test_runs_that_differ_in_more_than_the_seed_are_split_and_the_field_is_named(tmp_path):
    streams(tmp_path / "fast", "naive", [0.5, 0.7], learning_rate=0.01)
    streams(tmp_path / "slow", "naive", [0.1, 0.3], learning_rate=0.001)
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC"])
    assert [row.cells for row in made.rows] == [("naive", "0.01"), ("naive", "0.001")]
    assert any("also differ in train.learning_rate" in note for note in made.notes())
    folded = table(tmp_path, rows=["train.strategy"], columns=["ACC"],
                   fold=["train.learning_rate"])  # fmt: skip
    assert float(column(folded, "ACC")["naive"]) == pytest.approx(0.6)
    assert column(folded, "runs") == {"naive": "4"}


def test_runs_of_a_seed_are_one_value_and_paired_where_they_are_equal(tmp_path):
    for strategy, shift in (("naive", 0), ("ewc", 0.1)):
        streams(tmp_path / f"{strategy}1", strategy, [0.5 + shift], learning_rate=0.01)
        streams(tmp_path / f"{strategy}2", strategy, [0.1 + shift], learning_rate=0.001)
    made = table(tmp_path, rows=["train.strategy"], columns=["a.test"], against="naive",
                 fold=["train.learning_rate"])  # fmt: skip
    (comparison,) = made.comparisons
    assert comparison.difference.values == pytest.approx([0.1]) and comparison.pairs == 1
    assert made.columns[0].cells[0].values == pytest.approx([0.3])  # naive: mean of 0.5 and 0.1
    (tmp_path / "ewc2" / "ewc-seed0.json").unlink()  # then only 0.6 − 0.5 is a pair
    made = table(tmp_path, rows=["train.strategy"], columns=["a.test"], against="naive",
                 fold=["train.learning_rate"])  # fmt: skip
    assert made.comparisons[0].difference.values == pytest.approx([0.1])


def test_rows_are_by_default_the_fewest_fields_in_which_runs_differ(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.6])
    streams(tmp_path, "ewc", [0.5, 0.6], learning_rate=0.5)
    assert table(tmp_path).fields == ["train.strategy"]
    alone = [single_record(tmp_path / "one" / f"x-seed{k}.json", k, 0.5) for k in range(2)]
    assert [(made.fields, made.rows[0].cells) for made in [table(alone)]] == [(["run"], ("x",))]


def test_arms_are_named_by_words_not_by_the_numbers_that_were_tuned_for_them(tmp_path):
    rates = iter((0.1, 0.2, 0.3, 0.4))
    for strategy in ("naive", "ewc"):
        for optimizer in ("adam", "sgd"):
            streams(tmp_path / optimizer, strategy, [0.5, 0.6], optimizer=optimizer,
                    learning_rate=next(rates))  # fmt: skip
    made = table(tmp_path, columns=["ACC"], against="train.strategy=naive")
    assert made.fields == ["train.optimizer", "train.strategy"]
    assert [c.row.label for c in made.comparisons] == ["adam, ewc", "sgd, ewc"]


def test_rows_with_equal_values_of_the_first_field_stand_together(tmp_path):
    for strategy in ("ewc", "naive"):  # the order of the runs: ewc 0.1, ewc 0.2, naive 0.1, …
        for rate in (0.1, 0.2):
            streams(tmp_path / strategy / str(rate), strategy, [0.5], learning_rate=rate)
    made = table(tmp_path, rows=["train.learning_rate", "train.strategy"], columns=["a.test"])
    labels = [row.label for row in made.rows]
    assert labels == ["0.1, ewc", "0.1, naive", "0.2, ewc", "0.2, naive"]


def test_against_a_value_compares_rows_that_are_else_equal(tmp_path):
    for strategy in ("naive", "ewc"):
        for rate in (0.1, 0.2):
            gain = 0.1 if strategy == "ewc" else 0.0
            streams(tmp_path / str(rate), strategy, [rate + gain, rate + gain], learning_rate=rate)
    fields = ["train.strategy", "train.learning_rate"]
    for against in ("naive", "train.strategy=naive"):
        made = table(tmp_path, rows=fields, columns=["a.test"], against=against)
        pairs = [(c.row.label, c.baseline.label) for c in made.comparisons]
        assert pairs == [("ewc, 0.1", "naive, 0.1"), ("ewc, 0.2", "naive, 0.2")]
        assert all(c.difference.values == pytest.approx([0.1, 0.1]) for c in made.comparisons)
    to_one = table(tmp_path, rows=fields, columns=["a.test"], against="naive, 0.1")
    assert len(to_one.comparisons) == 3


def test_what_is_missing_is_said(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.6, 0.7])
    streams(tmp_path, "ewc", [0.5, 0.6])
    record = json.loads((tmp_path / "ewc-seed1.json").read_text())
    record["config"]["train"]["seed"] = 2
    failed = {"config": record["config"], "failed": "no memory"}
    (tmp_path / "ewc-seed2.json").write_text(json.dumps(failed))
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC"], against="naive")
    notes = made.notes()
    assert any(note.endswith("ewc-seed2.json: failed: no memory") for note in notes)
    assert "Seeds differ: 0–2 of naive; 0 1 of ewc" in notes
    assert "ACC: ewc and naive share 2 of 3 seeds" in notes
    assert "2 of 3" in made.text()


def test_unfinished_and_repeated_runs_are_said_and_not_averaged(tmp_path):
    make_run(tmp_path / "a", test=0.5)
    make_run(tmp_path / "b", test=0.7)
    make_run(tmp_path / "c", flags={"train.seed": "1"}, finished=False)
    made = table(tmp_path, columns=["test"])
    assert made.rows[0].count == "1 of 2" and made.columns[0].cells[0].values == [0.5]
    assert f"{tmp_path}/c: unfinished at step 30" in made.notes()
    assert any("b has the configuration and the seed of" in note for note in made.notes())


def test_one_seed_has_a_value_no_interval_and_no_verdict(tmp_path):
    streams(tmp_path, "naive", [0.5])
    streams(tmp_path, "ewc", [0.7])
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC"], against="naive")
    assert "[" not in made.csv() and column(made, "ACC.low") == {"naive": "", "ewc": ""}
    assert column(made, "ACC.verdict")["ewc"] == "undecided"
    assert "Without p: a test takes 2 to 40 pairs" in made.markdown()
    assert "| ewc | 10.00 | 1 | – | undecided |" in made.markdown()


def test_streams_joint_runs_and_single_tasks_stand_in_one_table(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.7])
    config = {"tasks": {name: {"name": "toy"} for name in "ab"}, "train": {"seed": 0}}
    tasks = {"a": task_entry(0.8), "b": task_entry(0.6)}
    write_record(tmp_path / "joint-seed0.json", config, tasks)
    single_record(tmp_path / "single-seed0.json", 0, 0.9)
    made = table(tmp_path, rows=["run"], columns=["ACC", "forgetting", "a.test"])
    assert {k: float(v) for k, v in column(made, "ACC").items()} == pytest.approx(
        {"joint": 0.7, "naive": 0.7, "single": 0.9}
    )
    assert column(made, "forgetting")["joint"] == ""
    assert column(made, "a.test")["single"] == ""
    assert any(
        note.startswith("forgetting: no value for joint (0 of 1 seeds)") for note in made.notes()
    )


def test_relative_columns_pair_single_task_runs_by_data_and_seed(tmp_path):
    streams(tmp_path / "runs", "naive", [0.5, 0.7])
    for seed, score in enumerate((0.8, 0.9)):
        single_record(tmp_path / "single" / f"s-seed{seed}.json", seed, score)
        config = {"tasks": {n: {"name": "toy"} for n in "ab"}, "train": {"seed": seed}}
        tasks = {"a": task_entry(0.95), "b": task_entry(0.85)}
        write_record(tmp_path / "joint" / f"j-seed{seed}.json", config, tasks)
    columns = ["gain", "transfer", "a.gain", "skill", "intransigence"]
    references = {"single": tmp_path / "single", "joint": tmp_path / "joint"}
    made = table(tmp_path / "runs", columns=columns, **references)
    (row,) = csv.DictReader(io.StringIO(made.csv()))
    # Seed 0: S = 0.8, R = 0.5 and 0.8; seed 1: S = 0.9, R = 0.7 and 0.8; learned at 0.9 and 0.8.
    gains = [(0.5 - 0.8) / 0.8 / 2, ((0.7 - 0.9) / 0.9 + (0.8 - 0.9) / 0.9) / 2]
    assert float(row["gain"]) == pytest.approx(np.mean(gains))
    assert float(row["a.gain"]) == pytest.approx(np.mean([-0.3 / 0.8, -0.2 / 0.9]))
    assert float(row["transfer"]) == pytest.approx(np.mean([0.05, -0.05]))
    skills = [(0.4 / 0.7 + 1) / 2, (0.6 / 0.8 + 0.7 / 0.8) / 2]
    assert float(row["skill"]) == pytest.approx(np.mean(skills))
    assert float(row["intransigence"]) == pytest.approx(0.05)
    with pytest.raises(UserError, match="name them with --single"):
        table(tmp_path / "runs", columns=["gain"])


def test_a_score_in_two_units_is_refused_and_not_averaged(tmp_path):
    config = {"tasks": {name: {"name": "toy"} for name in "ab"}, "train": {"seed": 0}}
    tasks = {"a": task_entry(0.8), "b": task_entry(2.0, "bits_per_character")}
    write_record(tmp_path / "joint.json", config, tasks)
    with pytest.raises(UserError, match="scored in accuracy and bits_per_character"):
        table(tmp_path, columns=["test"])
    made = table(tmp_path, columns=["test.bits_per_character", "test.accuracy"])
    assert float(column(made, "test.bits_per_character")["joint"]) == 2.0


def test_runs_scored_in_two_units_share_no_column(tmp_path):
    single_record(tmp_path / "a.json", 0, 0.5)
    config = {"task": {"name": "text"}, "train": {"seed": 0}}
    write_record(tmp_path / "b.json", config, {"text": task_entry(2.0, "bits_per_character")})
    with pytest.raises(UserError, match="some runs are scored in accuracy and others in bits_per_"):
        table(tmp_path, columns=["test"])


def test_a_score_that_is_not_finite_is_no_value_and_is_said(tmp_path):
    runs = [single_record(tmp_path / f"a-seed{k}.json", k, x) for k, x in enumerate((0.5, np.nan))]
    made = table(runs, columns=["test"])
    assert made.columns[0].cells[0].values == [0.5]
    assert "test: no value for a (1 of 2 seeds)" in made.notes()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--rows", "train.stratgy"], "Did you mean 'train.strategy'?"),
        (["--rows", "learning_rate"], "Did you mean 'train.learning_rate'?"),
        (["--rows", "strategy.x"], "no run has the field 'strategy.x'."),
        (["--columns", "ACCC"], "Did you mean 'ACC'?"),
        (["--columns", "test.acuracy"], "Did you mean 'accuracy'?"),
        (["--against", "naiv", "--rows", "train.strategy"], "Did you mean 'naive'?"),
        (["--test", "ACC"], "--test needs --against"),
        (["--test", "AC", "--columns", "ACC"], "Did you mean 'ACC'?"),
        (["--as", "latx"], "Did you mean 'latex'?"),
        (["--titles", "naive"], "expected NAME=VALUE"),
        (["--decimals", "x"], "expected a number from 0 to 10"),
        (["--decimals", "AC=1", "--columns", "ACC"], "Did you mean 'ACC'?"),
    ],
)
def test_a_mistyped_word_is_one_line_and_status_2(tmp_path, capsys, words, line):
    streams(tmp_path, "naive", [0.5])
    streams(tmp_path, "ewc", [0.5])
    assert cli.main(["table", str(tmp_path), *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and line in err


def test_paths_without_runs_are_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text("[1]")
    (tmp_path / "bad.json").write_text("{")
    for path, line in (("gone", "does not exist"), ("empty", "holds no run"),
                       ("x.json", "is neither a run directory nor a record"),
                       ("bad.json", "is damaged")):  # fmt: skip
        assert cli.main(["table", str(tmp_path / path)]) == 2
        assert line in capsys.readouterr().err


HOSTILE = "a_b & 5 % $x$ {y} #1 ^ ~ \\q | <i> [z] * \n\x1b[2J"


def test_hostile_names_cannot_leave_their_cell(tmp_path):
    single_record(tmp_path / "a-seed0.json", 0, 0.5, task="toy")
    made = table(tmp_path, columns=["test"], titles={"test": HOSTILE, "a": f"[{HOSTILE}"})
    latex = made.latex()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2 and all(len(re.findall(r"(?<!\\)&", row)) == 2 for row in rows)
    assert rows[1].startswith("{[}") and "\x1b" not in latex
    assert not re.search(r"(?<!\\)[%#_]", rows[1].replace(r"\textbackslash{}", ""))
    lines = made.markdown().splitlines()
    assert len(re.findall(r"(?<!\\)\|", lines[0])) == len(re.findall(r"(?<!\\)\|", lines[2])) == 4
    assert "<i>" not in made.markdown() and "<i>" not in made._repr_html_()
    (line,) = list(csv.reader(io.StringIO(made.csv())))[1:]
    assert line[0] == "a" and "\x1b" not in made.text()


def test_braces_of_latex_are_balanced_for_any_letter():
    text = "".join(map(chr, range(32, 127)))
    escaped = re.sub(r"\\[{}]", "", escape_latex(text))
    assert escaped.count("{") == escaped.count("}")
    assert escape_markdown("0.5 [0.4, 0.6]") == "0.5 [0.4, 0.6]"


def test_titles_order_rows_and_decimals_shorten_cells(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.7])
    streams(tmp_path, "ewc", [0.5, 0.7])
    made = table(tmp_path, rows=["train.strategy"], columns=["ACC"], decimals={"": 0},
                 titles={"naive": "no strategy", "ewc": "EWC", "ACC": "final"})  # fmt: skip
    lines = made.markdown().splitlines()
    assert lines[0] == "| train.strategy | seeds | final |"
    assert lines[2:4] == ["| no strategy | 2 | 70 [65, 75] |", "| EWC | 2 | 70 [65, 75] |"]


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv"])
def test_out_writes_what_is_printed(tmp_path, capsys, kind):
    streams(tmp_path / "runs", "naive", [0.5, 0.7])
    words = ["table", str(tmp_path / "runs"), "--as", kind]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert cli.main([*words, "--out", str(tmp_path / "new" / "t")]) == 0
    assert "table:" in capsys.readouterr().out
    written = (tmp_path / "new" / "t").read_text()
    assert written == printed


def test_a_narrow_terminal_gets_a_block_a_row_and_loses_nothing(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.7])
    made = table(tmp_path, columns=["ACC", "AIA", "forgetting", "BWT", "FWT", "parameters"])
    narrow, wide = made.text(60), made.text(200)
    assert str(made) == repr(made) == made.text(80)
    assert max(map(len, narrow.splitlines())) <= 60
    assert sorted(set(wide.split()) - set(narrow.split())) == ["run"]  # the name is the heading


def test_runs_of_a_sweep_that_failed_or_never_began_are_said(tmp_path):
    make_run(tmp_path / "done")
    make_run(tmp_path / "broken", flags={"train.seed": "1"}, finished=False)
    runs = {name: {"status": "", "error": ""} for name in ("done", "broken", "later")}
    runs["broken"] = {"status": "failed", "error": "exit status 1"}
    (tmp_path / "sweep.json").write_text(json.dumps({"keys": [], "runs": runs}))
    notes = table(tmp_path, columns=["test"]).notes()
    assert f"{tmp_path}: not begun, of the sweep: later" in notes
    assert f"{tmp_path}/broken: failed: exit status 1" in notes


def test_a_section_as_a_row_shows_its_fields_and_a_stream_its_tasks(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.7])
    assert table(tmp_path, rows=["stream"]).rows[0].cells == ("a → b",)
    assert table(tmp_path, rows=["strategy"]).rows[0].cells == ("–",)
    alone = single_record(tmp_path / "one" / "x.json", 0, 0.5)
    (row,) = table(alone, rows=["growth"]).rows
    assert row.cells == ("when never, policy frozen",)


def test_rows_by_seed_do_not_warn_of_seeds_that_differ(tmp_path):
    streams(tmp_path, "naive", [0.5, 0.7])
    made = table(tmp_path, rows=["train.seed"], columns=["ACC"])
    assert [row.cells for row in made.rows] == [("0",), ("1",)]
    assert not any("Seeds differ" in note for note in made.notes())


def test_a_stream_has_no_field_of_the_single_task_that_it_does_not_train(tmp_path):
    summaries, _ = read_summaries(streams(tmp_path, "naive", [0.5]))
    assert not [name for name in summaries[0].fields if name.startswith("task.")]
    assert [name for name in summaries[0].fields if name.startswith("tasks.")]
