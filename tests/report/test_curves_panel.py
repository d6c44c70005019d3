"""The panel of training curves has few points, all numbers, and says what is missing."""

import json

from run_fixtures import make_run

from thalnet_mtl.report.panels import curves
from thalnet_mtl.report.sections import make_sections
from thalnet_mtl.report.task_views import task_views
from thalnet_mtl.runs.records import read_runs


def panel_of(*folders):
    return curves.curves_panel(task_views(make_sections(read_runs(folders))))


def seeds(folder, count, points=3):
    runs = []
    for seed in range(count):
        run = make_run(folder / f"s{seed}", flags={"train.seed": str(seed)}, test=0.5 + seed / 100)
        lines = [
            {"step": step, "task": "digits_rows", "split": split, "metric": metric,
             "value": value, "seconds": step / 10}
            for step in range(1, points + 1)
            for split, metric, value in (("train", "loss", 2.0 + seed),
                                         ("validation", "accuracy", 0.5 + seed / 10))
        ]  # fmt: skip
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(run)
    return runs


def test_seeds_are_a_median_with_a_band_and_each_by_itself(tmp_path):
    panel = panel_of(*seeds(tmp_path, 3))
    loss, score = panel.data["lines"]
    assert panel.data["steps"] == [[1, 2, 3]] and loss["steps"] == score["steps"] == 0
    assert (loss["of"], loss["mid"], loss["count"]) == ("training loss", [3.0] * 3, 3)
    assert (loss["low"], loss["high"]) == ([2.2] * 3, [3.8] * 3)
    assert loss["seeds"] == [[2.0] * 3, [3.0] * 3, [4.0] * 3]
    assert (score["of"], score["unit"], score["mid"]) == ("validation accuracy (%)", "%", [60] * 3)
    assert score["main"] and score["test"][0] == 51.0 and "test" not in loss
    assert score["seconds"] == [0.1, 0.2, 0.3]
    assert "medians over seeds" in panel.sentence and "thinned" not in panel.sentence
    [row, _] = panel.table
    assert (row["n"], row["at 50 %"], row["at 100 %"]) == ("3", "3.000", "3.000")


def test_a_single_run_has_neither_band_nor_seeds(tmp_path):
    panel = panel_of(make_run(tmp_path / "a"))
    assert all({"low", "high", "seeds"}.isdisjoint(line) for line in panel.data["lines"])
    assert "seeds" not in panel.sentence


def test_long_lines_are_thinned_and_the_sentence_says_so(tmp_path):
    panel = panel_of(*seeds(tmp_path, 1, points=1999))
    [steps] = panel.data["steps"]
    assert len(steps) <= curves.POINTS and steps[-1] > 1980
    assert all(len(line["mid"]) == len(steps) for line in panel.data["lines"])
    assert f"from up to 1,999 points to at most {len(steps)}" in panel.sentence


def test_many_seeds_are_left_out_one_by_one_and_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "ALL_SEEDS", 17)
    panel = panel_of(*seeds(tmp_path, 3))
    assert not any("seeds" in line for line in panel.data["lines"])
    assert "too many single seeds" in panel.sentence


def test_an_unfinished_run_and_one_that_diverged_are_drawn(tmp_path):
    run = make_run(tmp_path / "a", finished=False)
    with (run / "metrics.jsonl").open("a") as file:
        line = {"step": 40, "task": "digits_rows", "split": "train", "metric": "loss"}
        file.write(json.dumps(line | {"value": float("nan")}) + "\n")
    panel = panel_of(run)
    assert panel.data["lines"][0]["mid"][-1] is None
    json.dumps(panel.data, allow_nan=False)
    assert all(row["test"] == "–" for row in panel.table)
    (run / "metrics.jsonl").unlink()
    assert panel_of(run) is None
