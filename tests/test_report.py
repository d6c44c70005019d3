"""Reports and tables say what run directories hold, no more, in one page without a network."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from thalnet_mtl import config as configs
from thalnet_mtl.config import UserError
from thalnet_mtl.figures import clipped, slot_means
from thalnet_mtl.report import read_run, table, write

SCORES = {"train": 0.91234, "validation": 0.87654, "test": 0.85432}


def make_run(folder: Path, finished: bool = True, flags: dict[str, str] | None = None,
             metric: str = "accuracy", **result: Any) -> Path:  # fmt: skip
    """A run directory as training leaves it, small and written by hand."""
    config = configs.load([], {"task.name": "digits_rows"} | (flags or {}))[""]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(configs.dump(config))
    (folder / "environment.json").write_text(json.dumps({"python": "3.12", "commit": "c0ffee11"}))
    lines = [
        {"step": step, "task": config.task.name, "split": split, "metric": name, "value": value,
         "seconds": step / 10}
        for step in (10, 20, 30)
        for split, name, value in (("train", "loss", 2 - step / 30),
                                   ("validation", metric, 0.5 + step / 100))
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        scores = {part: {"loss": 1.0, metric: value} for part, value in SCORES.items()}
        content = {
            "body": config.model.body, "task": config.task.name, "metric": metric, **scores,
            "best_step": 20, "steps": 30, "parameters": {"total": 12345},
            "seed": config.train.seed, "train_seconds": 3.0, "evaluation_batches": 0,
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(content | result))
    return folder


def add_readings(folder: Path, names: tuple[str, ...]) -> None:
    """Weights of the n-th module are n + 1 everywhere, with slots two wide."""
    weights = {name: np.full((3, 2 * len(names)), n + 1.0) for n, name in enumerate(names)}
    (folder / "model").mkdir()
    about = {"slots": json.dumps(dict.fromkeys(names, 2)), "dynamic": "[]"}
    save_file(weights, folder / "model" / "reading_weights.safetensors", metadata=about)


def page(out: Path, *folders: Path) -> str:
    return write(folders, out / "report.html").read_text()


def images(html: str) -> list[tuple[str, str]]:
    return re.findall(r'src="data:image/([^;]+);base64,([^"]+)"', html)


def test_a_page_needs_no_other_file_and_no_network(tmp_path):
    run = make_run(tmp_path / "a")
    add_readings(run, ("input", "side1", "output"))
    html = page(tmp_path, run)
    for word in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert word not in html
    assert len(images(html)) == 3 == html.count("<img")
    for kind, data in images(html):
        start = {"png": b"\x89PNG", "svg+xml": b"<?xml"}[kind]
        assert base64.b64decode(data).startswith(start)


def test_the_same_runs_give_the_same_page(tmp_path):
    run = make_run(tmp_path / "a")
    assert page(tmp_path, run) == page(tmp_path / "again", run)


def test_values_are_those_of_result_json(tmp_path):
    run = make_run(tmp_path / "a", flags={"train.seed": "7"})
    [row] = table([read_run(run)])
    assert row == {
        "run": "a", "body": "thalnet", "task": "digits_rows", "parameters": "12,345", "seed": "7",
        "steps": "30", "best_step": "20", "metric": "accuracy", "train": "91.23 %",
        "validation": "87.65 %", "test": "85.43 %", "train_seconds": "3.0", "note": "",
    }  # fmt: skip
    html = page(tmp_path, run)
    for value in ("12,345", "91.23 %", "87.65 %", "85.43 %", "higher is better"):
        assert value in html


def test_bits_per_character_say_that_lower_is_better(tmp_path):
    run = make_run(tmp_path / "a", metric="bits_per_character")
    assert table([read_run(run)])[0]["test"] == "0.8543 bits"
    assert "lower is better" in page(tmp_path, run)


def test_a_score_that_is_not_a_number_is_shown_as_that(tmp_path):
    run = make_run(tmp_path / "a", test={"accuracy": float("nan")})
    assert "nan %" in page(tmp_path, run)


def test_scores_on_a_part_of_the_data_say_so(tmp_path):
    run = make_run(tmp_path / "a", evaluation_batches=2)
    assert table([read_run(run)])[0]["note"] == "on the first 2 batches only"
    assert page(tmp_path, run).count("on the first 2 batches only") == 3


def test_a_torn_last_line_of_a_killed_run_is_ignored(tmp_path):
    run = make_run(tmp_path / "a", finished=False)
    before = read_run(run).lines
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "ta')
    assert read_run(run).lines == before


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
    (run / "result.json").write_text(json.dumps(content | {"metric": "accurracy"}))
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        read_run(run)
    del content["test"]
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no 'test'"):
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
        make_run(tmp_path / f"s{n}", flags={"train.seed": str(n)}, test={"accuracy": value})
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
    runs.append(make_run(tmp_path / "gru", flags={"model.body": "gru"}, test={"accuracy": 0.1}))
    html = re.sub(r"base64,[^\"]+", "", page(tmp_path, *runs))
    assert not re.search("better|worse|winner", re.sub("(lower|higher) is better", "", html))


def test_other_data_is_another_table(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    (runs[1] / "environment.json").write_text(json.dumps({"data": {"train": "md5:0"}}))
    assert "2 runs on 2 tasks" in page(tmp_path, *runs)


def test_the_configuration_and_the_command_to_repeat_it_are_there(tmp_path):
    run = make_run(tmp_path / "a run")
    html = page(tmp_path, run)
    assert f"thalnet train &#39;{run / 'config.yaml'}&#39;" in html
    assert "learning_rate: 0.001" in html and "c0ffee11" in html


def test_readings_come_in_the_order_of_their_slots(tmp_path):
    run = make_run(tmp_path / "a")
    names = ("input", "side1", "side2", "side10", "output")
    add_readings(run, names)
    assert tuple(read_run(run).reading_weights) == names


def test_an_image_runs_from_the_5th_to_the_95th_percentile():
    weight = np.arange(-20.0, 1.0).reshape(3, 7)  # |R| is 0 … 20: percentiles at 1 and 19
    image = clipped(weight)
    expected = [1, 1, 17 / 18, 16 / 18, 15 / 18, 14 / 18, 13 / 18]
    np.testing.assert_allclose(image[0], expected)
    assert image[2, -1] == image[2, -2] == 0 and image[2, -3] == pytest.approx(1 / 18)


def test_an_image_of_few_large_weights_shows_them():
    weight = np.zeros((10, 10))
    weight[3, 4] = -2.0
    assert clipped(weight).sum() == clipped(weight)[3, 4] == 1


def test_block_means_are_over_a_reader_and_a_slot():
    weights = {
        "input": np.array([[1.0, -3.0, 0.0, 0.0]]),
        "output": np.array([[2.0, 2.0, -5.0, 7.0]]),
    }
    slots = {"input": 2, "output": 2}
    np.testing.assert_array_equal(slot_means(weights, slots), [[2, 0], [2, 6]])
    slots = {"input": 1, "output": 3}
    np.testing.assert_array_equal(slot_means(weights, slots), [[1, 1], [2, 14 / 3]])
