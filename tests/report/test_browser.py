"""Reports in a real browser: what a reader sees, clicks and hears, and that nothing leaves them."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from chromium import CHROMIUM, Tab, chromium
from example_runs import KINDS, Examples, renamed
from playwright.sync_api import Browser

from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.report.html import write
from thalnet_mtl.runs.results import RunResult

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
PHONE, DESKTOP, PAPER = 390, 1280, 718  # A4 without its margins


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Examples:
    return Examples(tmp_path_factory.mktemp("runs"), length=10)


@pytest.fixture(scope="module")
def report(examples, tmp_path_factory) -> Callable[[str], Path]:
    """The report of a kind, written when a test first asks for it."""
    folder = tmp_path_factory.mktemp("reports")
    return cache(lambda kind: examples.report(kind, folder / f"{kind}.html"))


@pytest.fixture
def show(browser) -> Iterator[Callable[..., Tab]]:
    """Open a page in a new tab. After a test, no tab may have asked for anything or complained."""
    tabs: list[Tab] = []

    def show(page: Path, width: int = DESKTOP, **options) -> Tab:
        tabs.append(Tab(browser, page, width, **options))
        return tabs[-1]

    yield show
    for tab in tabs:
        tab.close()
        assert (tab.requests, tab.complaints, tab.dialogs) == ([], [], [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_for_every_window_theme_and_reader(report, show, kind):
    """The Web Content Accessibility Guidelines ask for a contrast of 4.5, of 3 for large text."""
    tab = show(report(kind))
    controls, reached = tab.controls(), tab.tabulate()
    assert [each for each in reached if "scroll" not in each] == controls
    tab.unfold()
    assert tab.nameless() == []
    for theme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=theme)
        assert tab.faint_texts() == []
    assert tab.wider_than_window() == []
    tab.resize(PHONE)
    assert tab.wider_than_window() == []
    tab.fold()
    tab.resize(PAPER)
    tab.page.emulate_media(media="print")
    assert tab.wider_than_window() == [] and tab.cut() == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_slider_shows_the_network_of_any_stage(report, show, width):
    tab = show(report("continual"), width)
    figure = tab.page.locator("figure[data-panel=graph]")
    slider = figure.get_by_role("slider")
    tasks = [f"split_digits_rows_{number}" for number in range(5)]

    def stage() -> tuple[str, int, str]:
        """The stage in words, the number of modules, and what is said to those who do not see."""
        tab.settle()
        words, modules = figure.locator(".where"), figure.locator("svg [aria-label=dot] circle")
        return words.inner_text(), modules.count(), slider.get_attribute("aria-valuetext")

    last = stage()
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    tab.page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    first = stage()
    assert "step 0" in first[0] and first[1] == last[1] - 4
    slider.press("ArrowRight")
    second = stage()
    assert tasks[1] in second[0] and second[1] == first[1] + 1
    slider.press("End")
    assert stage() == last
    figure.get_by_role("button", name="Previous stage").press("Enter")
    assert stage()[1] == last[1] and stage()[0] != last[0]
    figure.get_by_role("button", name="Next stage").click()
    assert stage() == last
    assert all(words == spoken for words, _, spoken in (first, second, last))


@pytest.mark.parametrize(("system", "other"), [("light", "dark"), ("dark", "light")])
def test_the_theme_is_that_of_the_system_until_it_is_switched(report, show, system, other):
    tab = show(report("continual"), color_scheme=system)
    assert tab.theme() == system
    tab.page.get_by_role("button", name=f"{other} theme").click()
    assert tab.theme() == other and tab.faint_texts() == []
    tab.page.get_by_role("button", name=f"{system} theme").press("Enter")
    assert tab.theme() == system
    tab.page.emulate_media(color_scheme=other)
    assert tab.theme() == system  # a choice stays


def test_a_tip_tells_the_value_under_the_pointer_and_at_the_arrow_keys(report, show):
    tab = show(report("continual"))
    plot = tab.page.locator("figure[data-panel=matrix] svg[tabindex]")
    tip = plot.locator("[aria-label=tip]")
    assert tip.text_content() == ""
    plot.locator("[aria-label=cell] rect").first.hover(force=True)
    tab.settle()
    first = tip.text_content()
    assert "split_digits_rows_0" in first and "untrained" in first
    tab.page.mouse.move(0, 0)
    tab.settle()
    assert tip.text_content() == ""
    tab.tabulate_to(plot)
    assert tip.text_content() == first
    plot.press("ArrowDown")
    tab.settle()
    assert "split_digits_rows_0" in tip.text_content() and tip.text_content() != first
    spoken = tab.page.locator("figure[data-panel=matrix] [aria-live]").text_content()
    assert re.sub(r"\s", "", spoken) == re.sub(r"[\s\u200b]", "", tip.text_content()) != ""
    plot.press("Escape")
    assert tip.text_content() == ""


def test_a_page_says_its_numbers_without_scripts(report, examples, show):
    tab = show(report("continual"), java_script_enabled=False)
    words = tab.page.locator("body").text_content()
    result = RunResult.load(examples["continual"].runs[0])
    scores = {score for row in result.continual.scores for score in row if score is not None}
    assert len(scores) > 3 and all(ACCURACY.format(score) in words for score in scores)


@pytest.mark.parametrize("kind", ["seeds", "tasks"])
def test_reports_of_many_seeds_and_of_many_tasks_stay_small(report, kind):
    assert report(kind).stat().st_size < 2_000_000


SCRIPT, IMAGE = "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>"
COMMENT, TEMPLATE, KEY = "<!--<script>", "{{ 7*7 }}${7*7}", "__proto__"
QUOTES, TURNED = "\"'>&lt;b&gt;`", "\u202eright to left\u2067"
HOSTILE = {
    "continual": {
        "split_digits_rows_0": SCRIPT, "split_digits_rows_1": IMAGE, "split_digits_rows_2": COMMENT,
        "split_digits_rows_3": TEMPLATE, "split_digits_rows_4": "W" * 200, "side1": QUOTES,
        "accuracy (%)": "accuracy <b>",
    },
    "search": {"digits": IMAGE, "again": QUOTES, "labels": KEY, "pairs": TURNED, "low": SCRIPT,
               "high": "M" * 200},
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_stay_text(examples, show, tmp_path, kind):
    """A run may come from anyone, with any words in its files."""
    names = HOSTILE[kind]
    run = renamed(examples[kind].runs[0], tmp_path / "<img src=x onerror=alert(3)>", names)
    tab = show(write([run], tmp_path / "report.html"))
    tab.unfold()
    for width in (PHONE, DESKTOP):
        tab.resize(width)
        assert tab.wider_than_window() == []
    slider = tab.page.get_by_role("slider")
    slider.press("Home")
    for _ in range(int(slider.get_attribute("max"))):
        slider.press("ArrowRight")
    tab.tabulate()  # every tip is shown
    words = tab.page.locator("body").text_content()
    assert all(name in words for name in (*names.values(), run.name))
    assert tab.page.locator("img[src=x], [onerror], td b").count() == 0
