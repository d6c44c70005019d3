"""Figures of runs show what the runs logged; each is drawn, and its lines and texts are read."""

import io
import json
import re
from html import unescape

import matplotlib.pyplot as plt
import numpy as np
import pytest
from example_runs import long_stream
from matplotlib.figure import Figure
from run_fixtures import add_topology, make_run
from safetensors.numpy import save_file

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.errors import UserError
from thalnet_mtl.report.figures.module_graph import SHARED, draw_graph
from thalnet_mtl.report.figures.style import COLORS
from thalnet_mtl.report.panels.graph import graph_panel
from thalnet_mtl.report.run_list import RunList, load_runs
from thalnet_mtl.runs.records import read_run


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def seeds(folder, count: int) -> RunList:
    """Runs of which the n-th is better by n / 100 at every step."""
    folders = []
    for seed in range(count):
        run = make_run(folder / f"a-seed{seed}", flags={"train.seed": str(seed)})
        log = run / "metrics.jsonl"
        text = log.read_text()
        for step in (10, 20, 30):
            old = 0.5 + step / 100
            text = text.replace(
                f'"accuracy", "value": {old}', f'"accuracy", "value": {old + seed / 100}'
            )
        log.write_text(text)
        folders.append(run)
    return load_runs(folders)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_run_has_a_panel_of_its_loss_and_one_of_its_validation_scores(tmp_path):
    figure = RunList([read_run(make_run(tmp_path / "a"))]).plot.curves()
    loss, score = figure.axes
    assert isinstance(figure, Figure)
    assert (loss.get_ylabel(), score.get_ylabel()) == ("training loss", "validation accuracy (%)")
    assert loss.get_xlabel() == score.get_xlabel() == "optimizer steps"
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[n, 2 - n / 30] for n in (10, 20, 30)])
    np.testing.assert_allclose(score.lines[0].get_xydata(), [[n, 50 + n] for n in (10, 20, 30)])
    assert labels(figure) == []


def test_seeds_are_a_line_at_the_median_with_a_band_of_percentiles(tmp_path):
    figure = seeds(tmp_path, 6).plot.curves(metric="accuracy")
    (axes,) = figure.axes
    (line,), (band,) = axes.lines, axes.collections
    assert labels(figure) == ["a (6 seeds)"]
    np.testing.assert_allclose(line.get_ydata(), np.array([60, 70, 80]) + 2.5)
    corners = band.get_paths()[0].vertices
    at_first = corners[corners[:, 0] == 10][:, 1]
    ends = np.percentile([60, 61, 62, 63, 64, 65], (10, 90))
    np.testing.assert_allclose([at_first.min(), at_first.max()], ends)


def test_configurations_have_colors_of_their_own_and_names(tmp_path):
    runs = [make_run(tmp_path / f"n{n}", flags={"train.batch": str(n)}) for n in (8, 16)]
    figure = load_runs(runs).plot.curves(split="validation")
    assert labels(figure) == ["n8", "n16"]
    assert [line.get_color() for line in figure.axes[0].lines] == list(COLORS[:2])


def test_axes_of_the_user_get_one_panel_and_are_returned(tmp_path):
    run = RunList([read_run(make_run(tmp_path / "a"))])
    figure, (left, right) = plt.subplots(1, 2)
    assert run.plot.curves(ax=left) is left and left.get_ylabel() == "validation accuracy (%)"
    assert run.plot.curves(ax=right, metric="loss") is right
    assert right.get_ylabel() == "training loss" and len(figure.axes) == 2


def test_plots_leave_the_style_of_the_user_alone(tmp_path):
    run = RunList([read_run(make_run(tmp_path / "a"))])
    before = dict(plt.rcParams)
    run.plot.curves().savefig(io.BytesIO(), format="pdf")
    assert {key: value for key, value in plt.rcParams.items() if before[key] != value} == {}


def test_a_pdf_has_its_letters_as_text_in_fonts_that_conferences_accept(tmp_path):
    file = io.BytesIO()
    figure = RunList([read_run(make_run(tmp_path / "a"))]).plot.curves()
    figure.savefig(file, format="pdf")
    assert b"/Subtype /Type0" in file.getvalue() and b"/Type3" not in file.getvalue()


def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path):
    one = RunList([read_run(make_run(tmp_path / "a"))])
    cases = [
        (lambda: one.plot.curves(metric="accurac"), "unknown metric 'accurac'. .*'accuracy'"),
        (lambda: one.plot.curves(task="digit_rows"), "unknown task 'digit_rows'. .*'digits_rows'"),
        (lambda: one.plot.curves(split="valid"), "unknown split 'valid'"),
        (lambda: one.plot.curves(split="test"), "a: no accuracy on the split 'test' was logged"),
        (lambda: one.plot.matrix(), "a has no matrix of scores: it has trained no stream"),
        (lambda: one.plot.graph(), "a has no graph: it has not started"),
        (lambda: seeds(tmp_path / "s", 2).plot.graph(), "a graph is that of one run; these are 2"),
    ]
    for draw, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            draw()
        assert "\n" not in str(caught.value)


def test_axes_hold_one_metric(tmp_path):
    tasks = {"digits_rows": {}, "text8": {"metric": "bits_per_character", "classes": 27}}
    run = RunList([read_run(make_run(tmp_path / "a", tasks))])
    with pytest.raises(UserError, match=r"one metric; .*accuracy, bits_per_character"):
        run.plot.curves(ax=plt.figure().add_subplot())
    assert [axes.get_ylabel() for axes in run.plot.curves().axes] == [
        "training loss", "validation accuracy (%)", "validation bits per character",
    ]  # fmt: skip


def test_a_matrix_shows_the_scores_of_result_json(tmp_path):
    runs = load_runs(long_stream(tmp_path / "run", 4))
    figure = runs.plot.matrix()
    (axes,) = figure.axes
    summary = runs[0].continual
    texts = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}
    scores = {
        (column, row): f"{100 * score:.3g}"
        for row, line in enumerate(summary.scores)
        for column, score in enumerate(line)
        if score is not None
    }
    assert texts == scores
    assert axes.get_xlabel() == "test score of each task (%)"
    assert [text.get_text() for text in axes.get_xticklabels()] == list(runs[0].tasks)


def test_many_tasks_are_drawn_as_shades_and_as_their_mean(tmp_path):
    folder = long_stream(tmp_path / "run", 30)
    log = (folder / "metrics.jsonl").read_text()
    (*_, late), about = load_run_config(folder).named_tasks, {"split": "validation", "step": 50}
    early = {"task": late, "metric": "accuracy", "value": -9.0} | about  # before it is trained
    (folder / "metrics.jsonl").write_text(f"{json.dumps(early)}\n{log}")
    runs = load_runs(folder)
    assert runs.plot.matrix().axes[0].get_ylabel() == "after experience"
    figure = runs.plot.curves(metric="accuracy")
    assert labels(figure) == [f"mean of {len(runs[0].tasks)} tasks"]
    steps, means = figure.axes[0].lines[0].get_xydata().T
    name, first = next(iter(runs[0].tasks)), runs[0].continual.ends[0]
    curve = runs[0].curve(name, "validation", "accuracy")
    alone = curve[curve[:, 0] <= first]
    np.testing.assert_allclose(means[: len(alone)], 100 * alone[:, 2])  # only one had begun
    assert list(steps) == sorted(steps)


def test_a_graph_names_the_modules_and_locks_the_frozen_ones(tmp_path):
    run = add_topology(make_run(tmp_path / "a"))
    figure = load_runs(run).plot.graph()
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} >= {"eye", "trunk", "mouth"}
    locks = [patch for patch in axes.patches if type(patch).__name__ == "Arc"]
    assert len(locks) == 1  # the trunk is frozen


def test_arrows_are_as_wide_as_the_readings_are_strong(tmp_path):
    folder = add_topology(make_run(tmp_path / "a"))
    names = ("eye", "trunk", "mouth")
    weights = {name: np.zeros((3, 6), dtype=np.float32) for name in names}
    weights["mouth"] += 1
    weights["mouth"][:, 2:4] = -5  # of the trunk
    (folder / "model").mkdir()
    about = {"slots": json.dumps(dict.fromkeys(names, 2)), "dynamic": "[]"}
    save_file(weights, folder / "model" / "reading_weights.safetensors", metadata=about)
    runs = load_runs(folder)
    arrows = runs.plot.graph().axes[0].collections[0]
    pairs = [(m.name, s) for m in runs[0].topology.modules for s in m.reads if s != m.name]
    widths = dict(zip(pairs, arrows.get_linewidths(), strict=True))
    assert max(widths, key=widths.get) == ("mouth", "trunk")
    assert widths["mouth", "eye"] > widths["eye", "trunk"]


def test_a_module_of_several_trained_tasks_is_gray(tmp_path):
    topology = read_run(add_topology(make_run(tmp_path / "a"))).topology
    tasks = {**topology.tasks, "other": topology.tasks["digits_rows"]}
    axes = plt.figure().add_subplot()
    draw_graph(axes, type(topology)(topology.modules, tasks, 0, ()))
    circles = [p for p in axes.patches if type(p).__name__ == "Circle"]
    colors = [plt.matplotlib.colors.to_hex(circle.get_facecolor()) for circle in circles]
    assert colors == [SHARED, COLORS[0].lower(), SHARED]  # the frozen trunk is that of the first


def test_the_color_of_a_module_is_that_of_its_owner_in_a_report(tmp_path):
    kinds = {"digits_rows": {}, "other": {"kind": "digits_parity"}}
    folder = add_topology(make_run(tmp_path / "a", kinds))
    content = json.loads((folder / "topology.json").read_text())
    content["tasks"]["other"] = content["tasks"]["digits_rows"]  # it runs all modules, too
    (folder / "topology.json").write_text(json.dumps(content))
    runs = load_runs(folder)
    panel = graph_panel(runs[0], runs[0].topology).data
    assert [module["task"] for module in panel["modules"]] == [0, None, None]
    circles = [p for p in runs.plot.graph().axes[0].patches if type(p).__name__ == "Circle"]
    colors = [plt.matplotlib.colors.to_hex(circle.get_facecolor()).upper() for circle in circles]
    assert colors == [COLORS[0], SHARED, SHARED]


def test_names_are_no_formulas(tmp_path):
    run = make_run(tmp_path / "a$b$<script>")
    other = make_run(tmp_path / "b", flags={"train.batch": "7"})
    figure = load_runs([run, other]).plot.curves()
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    assert ">a$b$&lt;script&gt;</text>" in file.getvalue() and "<script" not in file.getvalue()


def test_runs_are_a_sequence_with_their_log_as_a_frame(tmp_path):
    runs = seeds(tmp_path, 3)
    assert len(runs) == 3 and [run.seed for run in runs] == [0, 1, 2]
    assert isinstance(runs[:2], RunList) and "a-seed0" in repr(runs)
    frame = runs.metrics
    assert list(frame) == ["run", "seed", "step", "seconds", "task", "split", "metric", "value"]
    scores = frame[(frame.metric == "accuracy") & (frame.step == 20)].set_index("seed").value
    np.testing.assert_allclose(scores, [0.7, 0.71, 0.72])
    html = runs._repr_html_()
    assert "3 runs" in html and ">3<" in html and "12,345" in html


def test_a_report_is_shown_in_a_frame_that_reaches_nothing(tmp_path):
    runs = load_runs(make_run(tmp_path / "a"))
    report = runs.report(tmp_path / "report.html")
    html = report._repr_html_()
    page = (tmp_path / "report.html").read_text()
    assert html.count("<iframe") == 1 and 'sandbox="allow-scripts"' in html
    (content,) = re.findall(r'srcdoc="([^"]*)"', html)
    assert unescape(content) == page and "<" not in content


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no run directory"):
        load_runs(tmp_path)
