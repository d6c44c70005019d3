"""What ``thalnet compare`` and ``thalnet inspect`` print."""

import json
import subprocess
import sys

import pytest
from rich.console import Console
from run_fixtures import add_topology, make_run

from thalnet_mtl import cli
from thalnet_mtl.metrics.metric import METRICS
from thalnet_mtl.metrics.summary import StageCost, summarize
from thalnet_mtl.report.inspection import topology_table

TWO = {"mnist_rows": {}, "digits_rows": {}}


def call(capsys, *arguments) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_a_row_says_whether_its_run_was_joint_where_one_is(capsys, tmp_path):
    runs = [make_run(tmp_path / "joint", TWO), make_run(tmp_path / "alone")]
    _, out, _ = call(capsys, "compare", *runs)
    head, *lines, blank, metric = out.splitlines()
    assert head.split()[:3] == ["run", "task", "parameters"]
    assert (blank, metric) == ("", "accuracy (%): higher is better")
    assert [line.partition("  12,345")[0].split() for line in lines] == [
        ["joint", "(joint", "of", "2)", "mnist_rows"],
        ["joint", "(joint", "of", "2)", "digits_rows"],
        ["alone", "(single)", "digits_rows"],
    ]
    assert "single" not in call(capsys, "compare", runs[1])[1]
    assert "All runs: joint of 2" in call(capsys, "compare", runs[0])[1]


def test_compare_prints_gains_below_the_scores(capsys, tmp_path):
    joint = make_run(tmp_path / "joint", TWO, test=0.75)
    for kind in TWO:
        make_run(tmp_path / "alone" / kind, {kind: {}}, test=0.5)
    status, out, _ = call(capsys, "compare", joint, "--baseline", tmp_path / "alone")
    text = " ".join(out.split())
    assert "better" not in text.replace("lower is better", "").replace("higher is better", "")
    assert status == 0
    scores, _, gains, notes = out.split("\n\n")
    assert "75.00 %" in scores and "gain" not in scores
    assert gains.splitlines()[-1].split() == ["joint", "Δm", "of", "2", "tasks", "+50.00", "%"]
    assert "(R − b) / (S − b)" in notes and "fewer than 6 paired seeds" in notes


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_a_baseline_that_is_none_is_one_line_and_status_2(capsys, tmp_path, verb):
    joint = make_run(tmp_path / "joint", TWO)
    before = sorted(joint.iterdir())
    status, out, err = call(capsys, verb, joint, "--baseline", make_run(tmp_path / "alone"))
    assert status == 2 and out == "" and err.count("\n") == 1
    assert "no baseline has that alone" in err and sorted(joint.iterdir()) == before


def test_several_baseline_flags_add_up(capsys, tmp_path):
    joint = make_run(tmp_path / "joint", TWO)
    flags = [f"--baseline={make_run(tmp_path / kind, {kind: {}})}" for kind in TWO]
    assert call(capsys, "compare", joint, *flags)[0] == 0


def test_inspect_prints_modules_tasks_totals_and_changes(capsys, tmp_path):
    run = add_topology(make_run(tmp_path / "a"), (10, "attach", "mouth, read by eye"))
    status, out, err = call(capsys, "inspect", run)
    assert status == 0 and err == ""
    for text in ("eye, trunk, +mouth", "opened after", "330", "center of 96", "read by eye"):
        assert text in out
    run = add_topology(make_run(tmp_path / "b"))
    assert "time (s)" not in call(capsys, "inspect", run)[1]


def test_ten_modules_fit_80_columns(tmp_path):
    names = ("eye", "ear", "retina", "trunk1", "trunk2", "memory", "side7", "side8", "mouth", "out")
    run = add_topology(make_run(tmp_path / "a"), names=names)
    console = Console(width=80, record=True, quiet=False)
    with console.capture() as shown:
        console.print(topology_table(run))
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= 80
    sizes = [line.split() for line in lines[1:11]]
    assert [words[0] for words in sizes] == list(names)
    assert all(len(words) == 7 for words in sizes)


def test_inspect_without_modules_is_one_line_and_status_2(capsys, tmp_path):
    run = make_run(tmp_path / "a", flags={"model.body": "gru"})
    status, out, err = call(capsys, "inspect", run)
    assert status == 2 and out == "" and err.count("\n") == 1 and "a gru has no modules" in err


@pytest.mark.parametrize("verb", ["compare", "table", "report", "inspect"])
def test_runs_are_looked_at_without_torch(tmp_path, verb):
    run = add_topology(make_run(tmp_path / "a"))
    code = (
        "import sys, thalnet_mtl.cli as c\n"
        f"status = c.main(['{verb}', {str(run)!r}])\n"
        "print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_the_help_of_inspect_fits_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(["inspect", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_names_from_files_move_no_cursor(tmp_path, capsys):
    name = "\x1b[2J\x9b31m\u202e"
    run = add_topology(make_run(tmp_path / f"run{name}"), (10, "attach", f"wing{name}"))
    path = run / "topology.json"
    path.write_text(path.read_text().replace('"trunk"', json.dumps(f"trunk{name}")))
    for words in (["compare", str(run)], ["inspect", str(run)], ["report", str(run)]):
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        assert all(letter.isprintable() or letter == "\n" for letter in printed)
        assert r"\x1b[2J" in printed


def test_compare_folds_seeds_and_shows_what_is_the_same_in_all_once(capsys, tmp_path, monkeypatch):
    for seed, score in enumerate((0.5, 0.7, 0.9)):
        make_run(tmp_path / f"rate=1-seed{seed}", TWO, {"train.seed": str(seed)}, test=score)
        flags = {"train.seed": str(seed), "train.clip": "1"}
        make_run(tmp_path / f"rate=2-seed{seed}", TWO, flags, finished=seed > 0, test=0.4)
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call(capsys, "compare", tmp_path)
    lines = out.splitlines()
    assert status == 0 and max(map(len, lines)) <= 80
    first, second = [line.split() for line in lines if "mnist_rows" in line]
    interval = ["87.7", "%", "70.0", "[50.0,", "90.0]", "%"]
    assert first == ["rate=1", "mnist_rows", "3", "12,345", *interval]
    assert second == ["rate=2", "mnist_rows", "2", "of", "3", "12,345", "87.7", "%", "40.0", "%"]
    assert sum("joint of 2" in line for line in lines) == 1


def test_a_run_that_repeats_another_is_no_further_seed(capsys, tmp_path):
    runs = [make_run(tmp_path / name, test=score) for name, score in (("a", 0.5), ("b", 0.7))]
    out = call(capsys, "compare", *runs)[1]
    assert "50.00 %" in out and "70.00 %" in out and "[" not in out


def test_measures_of_streams_are_shown_in_the_unit_of_their_scores(capsys, tmp_path):
    names = ("mnist_rows", "digits_rows")
    for kind in ("accuracy", "bits_per_character"):
        folder = make_run(tmp_path / kind, {name: {"metric": kind} for name in names}, test=0.75)
        config = folder / "config.yaml"
        stream = "stream:\n- {tasks: [mnist_rows]}\n- {tasks: [digits_rows]}\n"
        config.write_text(config.read_text().replace("stream: []\n", stream))
        rows = [dict.fromkeys(names, x) for x in (0.1, 0.5, 0.75)]
        cost = StageCost(10, 10, 0, {}, 0)
        summary = summarize(
            dict.fromkeys(names, METRICS[kind]), [[n] for n in names], rows, scenario="x",
            strategy="naive", growth="never", ends=[10, 20], stages=[cost] * 3,
        )  # fmt: skip
        content = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(content | {"continual": summary.to_json()}))
    out = call(capsys, "compare", tmp_path)[1]
    assert "ACC, %" in out and "ACC, bits" in out
    cells = [line.split() for line in out.splitlines()]
    assert ["accuracy", "10", "12,345", "75.00", "62.50"] in [line[:5] for line in cells]


def test_a_note_on_a_run_is_said_once_below_with_its_name(capsys, tmp_path):
    make_run(tmp_path / "a", TWO, batches=3)
    make_run(tmp_path / "b", TWO, {"train.clip": "1"}, finished=False)
    out = call(capsys, "compare", tmp_path)[1]
    assert out.count("on the first 3 batches only") == 1
    assert "a: on the first 3 batches only" in out and "b: unfinished at step 30" in out
