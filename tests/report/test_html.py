"""Reports and tables say what run directories hold, no more, in one page without a network."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from page_parts import assert_needs_nothing_from_outside, panels, without_scripts
from run_fixtures import add_topology, change_data, make_run
from safetensors.numpy import save_file
from toy_tasks import toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.report.html import write
from thalnet_mtl.report.rows import table
from thalnet_mtl.runs.checksums import write_sums
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.training.trainer import train


def add_readings(folder: Path, names: tuple[str, ...]) -> None:
    """Weights of the n-th module are n + 1 everywhere, with slots two wide."""
    weights = {name: np.full((3, 2 * len(names)), n + 1.0) for n, name in enumerate(names)}
    (folder / "model").mkdir()
    about = {"slots": json.dumps(dict.fromkeys(names, 2)), "dynamic": "[]"}
    save_file(weights, folder / "model" / "reading_weights.safetensors", metadata=about)


def page(out: Path, *folders: Path) -> str:
    return write(folders, out / "report.html").read_text()


def test_a_page_needs_no_other_file_and_no_network(tmp_path):
    run = make_run(tmp_path / "a")
    add_readings(run, ("input", "side1", "output"))
    html = page(tmp_path, run)
    assert_needs_nothing_from_outside(html)
    assert "<img" not in html


def test_the_same_runs_give_the_same_page(tmp_path):
    run = make_run(tmp_path / "a")
    assert page(tmp_path, run) == page(tmp_path / "again", run)


def test_values_are_those_of_result_json(tmp_path):
    run = make_run(tmp_path / "a", flags={"train.seed": "7"})
    [row] = table([read_run(run)])
    assert row == {
        "run": "a", "body": "thalnet", "task": "digits_rows", "parameters": "12,345", "seed": "7",
        "steps": "30", "best_step": "20", "metric": "accuracy ↑", "train": "91.23 %",
        "validation": "87.65 %", "test": "85.43 %", "train_seconds": "3.0", "note": "",
        "mode": "single", "own_best": "", "own_step": "", "task unknown": "",
    }  # fmt: skip
    html = page(tmp_path, run)
    for value in ("12,345", "91.23 %", "87.65 %", "85.43 %", "higher is better"):
        assert value in html


def test_bits_per_character_say_that_lower_is_better(tmp_path):
    run = make_run(tmp_path / "a", {"digits_rows": {"metric": "bits_per_character"}})
    assert table([read_run(run)])[0]["test"] == "0.8543 bits"
    assert "lower is better" in page(tmp_path, run)


def test_a_score_that_is_not_a_number_is_shown_as_that(tmp_path):
    run = make_run(tmp_path / "a", test=float("nan"))
    assert "nan %" in page(tmp_path, run)


def test_scores_on_a_part_of_the_data_say_so(tmp_path):
    run = make_run(tmp_path / "a", batches=2)
    assert table([read_run(run)])[0]["note"] == "on the first 2 batches only"
    assert page(tmp_path, run).count("on the first 2 batches only") == 2


def drawn_curves(run):
    log = read_run(run).log
    return {key: curve.points().tolist() for key, curve in log.curves.items()}


def test_a_torn_last_line_of_a_killed_run_is_ignored(tmp_path):
    run = make_run(tmp_path / "a", finished=False)
    before = drawn_curves(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "ta')
    assert drawn_curves(run) == before


@pytest.mark.parametrize("damage", ["{", "7", '{"step": 1}', "\x00"])
def test_any_other_damaged_line_is_named(tmp_path, damage):
    run = make_run(tmp_path / "a")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[1] = damage
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"a/metrics\.jsonl, line 2 is damaged") as error:
        read_run(run)
    assert "\n" not in str(error.value)


def test_an_unfinished_run_is_listed_with_its_last_validation(tmp_path):
    run = make_run(tmp_path / "a", finished=False)
    [row] = table([read_run(run)])
    assert (row["validation"], row["test"]) == ("80.00 %", "–")
    assert row["note"] == "unfinished at step 30"
    html = page(tmp_path, run)
    assert "unfinished at step 30" in html and "No run has finished yet." in html


def test_a_run_that_was_killed_before_its_first_line_is_listed(tmp_path):
    run = make_run(tmp_path / "a", finished=False)
    for name in ("metrics.jsonl", "environment.json"):
        (run / name).unlink()
    assert "unfinished at step 0" in page(tmp_path, run)


def test_what_is_not_a_run_gets_one_line(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        read_run(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no config\.yaml"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="at least one"):
        write([], tmp_path / "report.html")


def test_a_damaged_result_gets_one_line(tmp_path):
    run = make_run(tmp_path / "a")
    content = json.loads((run / "result.json").read_text())
    scores = content["tasks"]["digits_rows"]
    del scores["test"]
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no 'test'"):
        read_run(run)
    scores |= {"metric": "accurracy", "test": {}}
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        read_run(run)
    scores["metric"] = "accuracy"
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="test is damaged: it has no 'accuracy'"):
        read_run(run)
    (run / "result.json").write_text(json.dumps(content | {"tasks": {"digits_row": scores}}))
    with pytest.raises(UserError, match="has no 'digits_rows'"):
        read_run(run)
    run = make_run(tmp_path / "b")
    add_readings(run, ("input", "output"))
    (run / "model" / "reading_weights.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"reading_weights\.safetensors is damaged"):
        read_run(run)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("x/seed0", "y/seed0", "z")]
    names = [row["run"] for row in table([read_run(run) for run in runs])]
    assert names == ["x/seed0", "y/seed0", "z"]


def test_a_run_given_twice_is_shown_once(tmp_path):
    run = make_run(tmp_path / "a")
    assert "1 run on 1 task" in page(tmp_path, run, tmp_path / "." / "a")


def test_names_are_escaped_and_may_hold_any_sign(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("<b>", r"_$\frac$", "名前")]
    html = page(tmp_path, *runs)
    assert "<b>" not in html and "&lt;b&gt;" in html and "名前" in html


def test_seeds_get_their_mean_and_range(tmp_path):
    runs = [
        make_run(tmp_path / f"s{n}", flags={"train.seed": str(n)}, test=value)
        for n, value in enumerate((0.5, 0.6, 0.85))
    ]
    html = page(tmp_path, *runs)
    assert "mean of n = 3 seeds" in html
    assert "65.00 %<small>50.00 to 85.00</small>" in html


def test_few_paired_seeds_support_no_ranking(tmp_path):
    runs = [
        make_run(tmp_path / f"{body}{seed}", flags={"model.body": body, "train.seed": str(seed)})
        for body in ("gru", "thalnet")
        for seed in range(6)
    ]
    warning = "do not support a ranking"
    assert warning not in page(tmp_path, *runs)
    assert "5 finished seeds in common: fewer than 6" in page(tmp_path, *runs[1:])
    assert warning not in page(tmp_path, *runs[:3])


def test_nothing_is_ranked(tmp_path):
    runs = [make_run(tmp_path / name, flags={"train.seed": name}) for name in ("0", "1")]
    runs.append(make_run(tmp_path / "gru", flags={"model.body": "gru"}, test=0.1))
    html = without_scripts(re.sub(r"base64,[^\"]+", "", page(tmp_path, *runs)))
    assert not re.search("better|worse|winner", re.sub("(lower|higher) is better", "", html))


def test_other_data_is_another_table(tmp_path):
    runs = [make_run(tmp_path / name, {"mnist_rows": {"source": "mnist"}}) for name in ("a", "b")]
    assert "2 runs on 1 task." in page(tmp_path, *runs)
    change_data(runs[1], "cifar10", "md5:0")
    assert "2 runs on 1 task." in page(tmp_path, *runs)
    change_data(runs[1], "mnist", "md5:0")
    assert "2 runs on 2 tasks" in page(tmp_path, *runs)


def test_tasks_of_one_kind_are_told_apart_by_their_names(tmp_path):
    tasks = {"level": {"name": "toy_rows"}, "big": {"name": "toy_rows"}}
    train(toy(tasks=tasks), tmp_path / "run")
    text = page(tmp_path, tmp_path / "run")
    assert "level (toy_rows)" in text and "big (toy_rows)" in text


def test_another_permutation_is_another_table(tmp_path):
    runs = [
        make_run(tmp_path / seed, {"permuted_mnist": {}}, {"task.permutation": seed})
        for seed in ("0", "1")
    ]
    assert "2 runs on 2 tasks" in page(tmp_path, *runs)


def test_the_configuration_and_the_command_to_repeat_it_are_there(tmp_path):
    run = make_run(tmp_path / "a run")
    html = page(tmp_path, run)
    assert "thalnet train &#39;a run/config.yaml&#39;" in html  # no folder of this machine
    assert "learning_rate: 0.001" in html and "c0ffee11" in html


def test_readings_come_in_the_order_of_their_slots(tmp_path):
    run = make_run(tmp_path / "a")
    names = ("input", "side1", "side2", "side10", "output")
    add_readings(run, names)
    assert tuple(read_run(run).reading_weights) == names


def table_of(html: str, number: int = 0) -> tuple[list[str], dict[str, list[str]]]:
    """Return the columns of a table of results, and the text of its cells by row."""
    table = html.split('<table class="results">')[1 + number].partition("</table>")[0]
    columns = re.findall('<th scope="col">(?:<span.*?</span>)?([^<]+)', table)
    rows = re.findall(r'<th scope="row"[^>]*>(?:<span.*?</span>)?([^<]+).*?</th>(.*?)</tr>', table,
                      re.DOTALL)  # fmt: skip
    return columns, {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in rows}


def test_tasks_are_the_columns_of_one_table(tmp_path):
    three = {"mnist_rows": {"source": "mnist"}, "digits_rows": {}, "text8": {"source": "text8"}}
    runs = [
        make_run(tmp_path / "joint", three),
        make_run(tmp_path / "alone", {"mnist_rows": {"source": "mnist"}}),
    ]
    rows = table([read_run(run) for run in runs])
    assert [(row["run"], row["task"], row["mode"]) for row in rows] == [
        *[("joint", task, "joint with 2 others") for task in three],
        ("alone", "mnist_rows", "single"),
    ]
    html = page(tmp_path, *runs)
    columns, cells = table_of(html)
    assert "2 runs on 3 tasks" in html and columns == list(three)
    assert [cell[:7] for cell in cells["joint"]] == ["85.43 %"] * 3
    assert [cell[:7] for cell in cells["alone"]] == ["85.43 %", "–", "–"]
    assert html.count("<small>joint with 2 others</small>") == 1
    assert html.count("<summary>joint") == 1


def test_many_tasks_are_rows_of_the_table(tmp_path):
    run = make_run(tmp_path / "a", {f"t{k}": {"kind": "digits_rows"} for k in range(12)})
    columns, cells = table_of(page(tmp_path, run))
    assert columns == ["a"] and list(cells) == [f"t{k} (digits_rows)" for k in range(12)]


def test_a_joint_run_on_other_data_of_one_task_differs_in_that_column_only(tmp_path):
    two = {"mnist_rows": {"source": "mnist"}, "text8": {"source": "text8"}}
    runs = [make_run(tmp_path / name, two) for name in ("a", "b")]
    change_data(runs[1], "text8", "md5:0")
    columns, cells = table_of(page(tmp_path, *runs), 0)
    assert columns == ["mnist_rows", "text8", "text8"]
    [(_, row)] = cells.items()
    assert row[0].startswith("85.43 %")


def test_an_unfinished_run_stands_beside_finished_ones_of_its_tasks(tmp_path):
    two = {"mnist_rows": {"source": "mnist"}, "digits_rows": {}}
    runs = [make_run(tmp_path / str(seed), two, {"train.seed": str(seed)}, finished=seed == 0)
            for seed in (0, 1)]  # fmt: skip
    html = page(tmp_path, *runs)
    assert table_of(html, 1)[0] == list(two)
    assert [cell[:1] for cell in table_of(html, 1)[1]["1"]] == ["–", "–"]
    assert "and 1 more seeds" not in html and "and 1 more seed, each below" in html
    change_data(runs[1], "mnist", "md5:0")
    assert table_of(page(tmp_path, *runs))[0] == ["mnist_rows", "digits_rows", "mnist_rows"]


def test_a_joint_run_has_the_losses_of_each_task_by_itself(tmp_path):
    run = make_run(tmp_path / "a", {"mnist_rows": {}, "digits_rows": {}})
    line = {"step": 40, "task": "digits_rows", "split": "train", "metric": "loss", "value": 0.5}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    lengths = [len(record.curve("train", "loss")) for record in read_run(run).records]
    assert lengths == [3, 4]


def test_seeds_of_a_joint_configuration_share_color_and_mean(tmp_path):
    two = {"mnist_rows": {}, "digits_rows": {}}
    runs = [
        make_run(tmp_path / f"s{seed}", two, {"train.seed": str(seed)}, test=0.5 + seed / 10)
        for seed in (0, 1)
    ]
    html = page(tmp_path, *runs, make_run(tmp_path / "alone"))
    _, cells = table_of(html)
    assert [cell[:7] for cell in cells["thalnet, joint with 1 other"]] == ["55.00 %"] * 2
    assert html.count("<small>mean of n = 2 seeds, minimum to maximum</small>") == 1
    assert html.count("55.00 %<small>50.00 to 60.00</small>") == 2
    assert [cell[:7] for cell in table_of(html, 1)[1]["s1"]] == ["60.00 %"] * 2
    swatches = re.findall(r"border-color: (var\(--c\d\))[^>]*></span>([^<]+)", html)
    colors = {name: color for color, name in swatches}
    assert colors["s0"] == colors["s1"] == colors["thalnet, joint with 1 other"] != colors["alone"]


def test_two_tasks_of_a_run_on_the_same_data_are_told_apart(tmp_path):
    two = {"left": {"kind": "digits_rows"}, "right": {"kind": "digits_rows", "test": 0.25}}
    html = page(tmp_path, make_run(tmp_path / "a", two))
    assert "1 run on 2 tasks." in html and "do not support a ranking" not in html
    columns, cells = table_of(html)
    assert columns == ["left (digits_rows)", "right (digits_rows)"]
    assert [cell[:7] for cell in cells["a"]] == ["85.43 %", "25.00 %"]
    [curves] = panels(html, "curves")
    assert curves["tasks"] == ["left (digits_rows)", "right (digits_rows)"]
    assert [line["task"] for line in curves["lines"]] == [0, 0, 1, 1]
    assert curves["groups"] == [{"label": "a", "style": 0}]


def test_a_task_that_was_best_at_another_step_says_so(tmp_path):
    tasks = {"mnist_rows": {}, "digits_rows": {"own_step": 10}}
    run = make_run(tmp_path / "a", tasks)
    assert [row["own_best"] for row in table([read_run(run)])] == ["", "88.00 %"]
    assert page(tmp_path, run).count("best alone 88.00 %</small><small>at step 10<") == 1


CHANGES = ((10, "attach", "side<2>, read by trunk"), (25, "freeze", "eye"))


def test_changes_are_marked_on_every_curve_and_listed(tmp_path):
    run = add_topology(make_run(tmp_path / "a"), *CHANGES)
    html = page(tmp_path, run)
    assert panels(html, "curves")[0]["marks"] == [
        [[10, 1, "attach side<2>, read by trunk"], [25, 2.5, "freeze eye"]]
    ]
    assert "Triangles are changes of the modules" in html
    for cell in ("attach", "side&lt;2&gt;, read by trunk", "2.5", "50,025"):
        assert f">{cell}</td>" in html


def test_runs_of_other_histories_have_their_changes_in_tables_only(tmp_path):
    runs = [
        add_topology(
            make_run(tmp_path / f"s{n}", flags={"train.seed": str(n)}), *CHANGES, slowness=0.1 + n
        )
        for n in (0, 1)
    ]
    html = page(tmp_path, *runs)
    [marks] = panels(html, "curves")[0]["marks"]
    assert [mark[:2] for mark in marks] == [[10, 6], [25, 15]]  # at their mean time
    html = page(tmp_path, *runs, make_run(tmp_path / "plain"))
    assert panels(html, "curves")[0]["marks"] == [[]] and "Triangles" not in html
    assert html.count(">50,025</td>") == 2


def test_modules_are_listed_with_what_they_read_and_whose_they_are(tmp_path):
    html = page(tmp_path, add_topology(make_run(tmp_path / "a")))
    for cell in ("0–32", "eye, trunk, +mouth", "shared", "weight_norm", "1,002"):
        assert f">{cell}</td>" in html
    assert "Changes of the modules" not in html


def test_a_damaged_topology_gets_one_line(tmp_path):
    run = add_topology(make_run(tmp_path / "a"))
    content = json.loads((run / "topology.json").read_text())
    del content["modules"][1]["slot"]
    (run / "topology.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"\.json: modules\[1\] is damaged: it has no 'slot'"):
        read_run(run)


def test_baselines_add_a_table_of_gains(tmp_path):
    joint = make_run(tmp_path / "joint", {"digits_rows": {}, "mnist_rows": {}}, test=0.75)
    alone = [make_run(tmp_path / kind, {kind: {}}, test=0.5) for kind in ("digits_rows",
             "mnist_rows")]  # fmt: skip
    html = write([joint], tmp_path / "report.html", alone).read_text()
    table = html.partition("Every run: score, skill and gain on each task")[2].partition(
        "</table>"
    )[0]
    assert "Δm of 2 tasks" in table and table.count("+50.00 %") == 3
    assert table.count(">1.625<") == 2  # (0.75 − 0.1) / (0.5 − 0.1)
    assert "Comparison with single-task runs" not in page(tmp_path, joint)


def test_many_lines_of_one_figure_are_thinned_out(tmp_path):
    runs = [make_run(tmp_path / f"r{n:02}", flags={"train.batch": str(n + 1)}) for n in range(40)]
    html = page(tmp_path, *runs)
    assert len(panels(html, "curves")[0]["groups"]) == 12
    assert "28 further lines are left out" in html
    assert all(f"{run.name}</td>" in html or f">{run.name}<" in html for run in runs)


def test_a_report_names_no_folder_of_this_machine_and_escapes_every_name(tmp_path, monkeypatch):
    evil = "<script>alert(1)</script>"
    flags = {"task.path": "/home/ada/secret/a.csv", "task.inputs": evil, "task.outputs": "y"}
    run = make_run(tmp_path / "run <script>alert(1)<", {"csv": {}}, flags)
    path = run / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": evil, evil: evil}))
    html = write([run], tmp_path / "report.html").read_text()
    assert "<script>alert" not in html and "&lt;script&gt;" in html
    assert "<script" not in without_scripts(html)
    assert "/home/ada" not in html and str(tmp_path) not in html
    assert ".../a.csv" in html


def test_a_report_that_nothing_changed_is_not_written_again(tmp_path, monkeypatch):
    runs, out = [make_run(tmp_path / name) for name in "ab"], tmp_path / "report.html"
    write_sums(runs[0], (runs[0] / "result.json").read_bytes())

    def is_written(*folders: Path, baselines: tuple[Path, ...] = ()) -> bool:
        os.utime(out, (0, 0))
        write(folders, out, baselines)
        return out.stat().st_mtime != 0

    write(runs[:1], out)
    with monkeypatch.context() as patch:
        patch.setattr("thalnet_mtl.report.html.read_runs", None)
        assert not is_written(runs[0])
    assert is_written(runs[0], baselines=(runs[1],)) and is_written(runs[0])
    assert is_written(*runs) and not is_written(*runs)
    write(runs[:1], out)
    (runs[0] / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl has changed since the run finished"):
        write(runs[:1], out)
    write_sums(runs[0], (runs[0] / "result.json").read_bytes())
    write(runs, out)
    assert is_written(runs[0]) and not is_written(runs[0])
