"""Panels of numbers draw what their data say, in a real browser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, Tab, chromium
from markupsafe import escape
from playwright.sync_api import Browser, Locator

from thalnet_mtl.report.panel import PAGE, scripts

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def draw(browser, tmp_path) -> Iterator[Callable[..., tuple[Tab, Locator]]]:
    """Draw a panel on a page of its own. After a test, no page may have complained."""
    tabs: list[Tab] = []

    def draw(kind: str, data: dict[str, Any], width: int = 1000) -> tuple[Tab, Locator]:
        content = json.dumps(data).replace("<", "\\u003c")
        code = "".join(f"<script>{script}</script>" for script in scripts())
        page: Path = tmp_path / f"{len(tabs)}.html"
        page.write_text(
            f"<!DOCTYPE html><style>{(PAGE / 'style.css').read_text()}</style>"
            f"<button id=theme></button><figure data-panel={escape(kind)} aria-label=title>"
            f"<div class=drawing></div><figcaption>sentence</figcaption>"
            f"<script type=application/json>{content}</script></figure>{code}"
        )
        tabs.append(Tab(browser, page, width))
        tabs[-1].settle()
        return tabs[-1], tabs[-1].page.locator("figure")

    yield draw
    for tab in tabs:
        assert (tab.requests, tab.complaints, tab.dialogs) == ([], [], [])
        tab.close()


def line(task=0, **values):
    content = {"task": task, "group": 0, "of": "training loss", "unit": "", "steps": 0}
    return content | {"mid": [3, 2, None, 1], "seconds": [1, 2, 3, 4]} | values


def curves(lines, tasks=1, steps=((10, 20, 30, 40),)):
    marks = [[[20, 2.0, "attach <b>late</b>"]]] * tasks
    return {"tasks": [f"task {n}" for n in range(tasks)], "steps": steps, "lines": lines,
            "groups": [{"label": "<i>a</i>", "style": 0}], "marks": marks}  # fmt: skip


def test_single_seeds_are_drawn_on_request(draw):
    seeds = [[4, 3, 2, 2], [2, 1, 1, 0], [3, 2, 2, 1]]
    data = line(low=[2, 1, 1, 0], high=[4, 3, 2, 2], count=3, seeds=seeds)
    tab, figure = draw("curves", curves([data]))
    lines = figure.locator("[aria-label=line] path")
    assert (lines.count(), figure.locator("[aria-label=area] path").count()) == (1, 1)
    box = figure.get_by_label("single seeds")
    box.check()
    assert lines.count() == 1 + len(seeds)
    tab.resize(390)
    tab.settle()
    assert lines.count() == 1 + len(seeds) and box.is_checked()
    assert box.evaluate("e => e === document.activeElement")


def test_a_tip_tells_step_value_and_band_and_a_change_its_name(draw):
    data = line(low=[2, 1, 1, 0], high=[4, 3, 2, 2], count=3, test=[1, 0.5, 1.5], tested="1 [0.5]")
    tab, figure = draw("curves", curves([data]))
    dots = figure.locator("[aria-label=dot] circle")
    dots.first.hover(force=True)
    tab.settle()
    tip = figure.locator("[aria-label=tip]").first.text_content()
    assert "step 10, 1 s" in tip and "2 to 4 over 3 seeds" in tip
    dots.last.hover(force=True)
    tab.settle()
    assert "test 1 [0.5]" in figure.locator("[aria-label=tip]").first.text_content()
    figure.locator("[aria-label=dot] path").hover(force=True)  # the triangle
    tab.settle()
    assert "step 20: attach <b>late</b>" in figure.locator("[aria-label=tip]").last.text_content()


def test_time_replaces_steps(draw):
    _, figure = draw("curves", curves([line()]))
    assert "optimizer steps" in figure.locator("svg").text_content()
    figure.get_by_label("over").select_option("training time")
    assert "training time (s)" in figure.locator("svg").text_content()


def test_a_single_point_is_a_number_and_no_plot(draw):
    data = line(mid=[0.5], seconds=[1], of="validation accuracy", unit="%", tested="51 %")
    _, figure = draw("curves", curves([data], steps=[[10]]))
    assert figure.locator("svg").count() == 0
    assert "<i>a</i>: 0.5 % at step 10; test 51 %" in figure.inner_text()


def test_many_tasks_are_a_summary_or_one_of_them(draw):
    lines = [line(task, mid=[task, task, task, task]) for task in range(13)]
    tab, figure = draw("curves", curves(lines, tasks=13))
    assert figure.locator("svg").count() == 1
    figure.locator("svg").hover()
    tab.settle()
    tip = figure.locator("[aria-label=tip]").text_content()
    assert "median 6" in tip and "middle half 3 to 9" in tip and "lowest 0, highest 12" in tip
    figure.get_by_role("combobox", name="of ").select_option("task 7")
    assert figure.locator("h4").inner_text().startswith("task 7")


READINGS = {
    "readers": ["in", "<b>out</b>"], "sources": ["in", "<b>out</b>"],
    "sets": [{"name": f"seed {n}", "start": [[1, 2], [None, 3]], "end": [[1, 2.1], [None, 2]],
              "change": [[0, 0.1], [None, -1 - n]], "error": [[0.1, 0.1], [None, 0.1]],
              "common": [0, 0.2], "beyond": [[0, 0], [0, 1]], "limit": 1 + n} for n in range(2)],
}  # fmt: skip


def test_readings_frame_what_stands_out_and_tell_it_under_the_pointer(draw):
    tab, figure = draw("readings", READINGS)
    cells = figure.locator("[aria-label=cell]")
    assert [group.locator("rect").count() for group in cells.all()] == [3, 3, 1]
    assert figure.locator("[aria-label=text]").text_content() == "0.0+0.1−1.0"
    cells.last.locator("rect").hover(force=True)
    tab.settle()
    tip = figure.locator("[aria-label=tip]").text_content()
    assert "<b>out</b> reads <b>out</b>" in tip and "|R| from 3 to 2" in tip and "−1" in tip
    figure.get_by_label("show").select_option("seed 1")
    assert "−2.0" in figure.locator("[aria-label=text]").text_content()


def test_readings_without_a_start_are_shades_of_one_color(draw):
    data = READINGS | {"sets": [{"name": "", "end": [[1, 2], [None, 3]]}]}
    _, figure = draw("readings", data)
    assert figure.locator(".scale").count() == 0
    assert figure.locator("[aria-label=text]").text_content() == "123"


def test_lesions_are_numbers_in_two_colors(draw):
    sets = [{"name": "", "values": [[12, None], [-3, 0.4]], "limit": 12}]
    data = {"modules": ["eye", "late"], "tasks": ["a", "b"], "unit": "points", "sets": sets}
    tab, figure = draw("lesions", data)
    cells = figure.locator("[aria-label=cell]").last.locator("rect")
    assert [cell.get_attribute("fill") for cell in cells.all()] == [
        "var(--more)", "var(--less)", "var(--more)",
    ]  # fmt: skip
    assert figure.locator("[aria-label=text]").text_content() == "+12−30"
    cells.first.hover(force=True)
    tab.settle()
    assert "+12 points" in figure.locator("[aria-label=tip]").text_content()
    assert tab.faint_texts() == []


def test_gains_are_bars_with_intervals(draw):
    bars = [{"group": "a", "task": f"t{n}", "total": n == 2, "gain": 10 * n - 5, "count": 3,
             "interval": [10 * n - 9, 10 * n]} for n in range(3)]  # fmt: skip
    tab, figure = draw("gains", {"groups": ["a"], "bars": bars}, width=390)
    assert figure.locator("[aria-label=bar] rect").count() == 3
    assert figure.locator("[aria-label=link] path").count() == 3
    assert figure.locator("[aria-label=text]").text_content() == "−5+5+15"
    assert tab.wider_than_window() == []


def test_splits_have_three_marks_a_row_under_the_name_of_their_task(draw):
    rows = [{"task": task, "group": group, "style": 0, "count": 1, "train": 90, "validation": 80,
             "test": 70} for task in "xy" for group in "ab"]  # fmt: skip
    data = {"metrics": [{"label": "accuracy (%)", "unit": "%", "rows": rows}]}
    tab, figure = draw("splits", data)
    assert figure.locator("[aria-label=dot] circle").count() == 12
    assert figure.locator("[aria-label=text]").text_content() == "xy"
    figure.locator("[aria-label=dot] circle").nth(2).hover(force=True)
    tab.settle()
    assert "test 70 %" in figure.locator("[aria-label=tip]").text_content()


def test_sizes_are_dots_with_a_legend(draw):
    points = [{"group": g, "style": n, "parameters": 10 ** (4 + n), "test": 50, "tasks": 2}
              for n, g in enumerate("abc")]  # fmt: skip
    data = {"metrics": [{"label": "accuracy (%)", "points": points}]}
    _, figure = draw("sizes", data)
    assert figure.locator("[aria-label=dot] circle").count() == 3
    assert figure.locator(".legend span:not(.swatch)").all_inner_texts() == ["a", "b", "c"]
