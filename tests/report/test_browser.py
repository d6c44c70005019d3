"""Reports in a real browser: what a reader sees, clicks and hears, and that nothing leaves them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, Tab, chromium
from example_runs import KINDS, Examples
from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    examples = Examples(folder / "runs", length=10)
    return {kind: examples.report(kind, folder / f"{kind}.html") for kind in KINDS}


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
def test_a_page_fits_its_window_and_can_be_read_in_both_themes(reports, show, kind):
    """The Web Content Accessibility Guidelines ask for a contrast of 4.5, of 3 for large text."""
    tab = show(reports[kind])
    tab.unfold()
    for width in (PHONE, DESKTOP):
        tab.resize(width)
        assert tab.wider_than_window() == []
    for theme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=theme)
        assert tab.faint_texts() == []
