"""Write the reports of example runs, and screenshots of them, to look at.

    python tests/report/screenshots.py OUT                    all kinds of report
    python tests/report/screenshots.py OUT single continual   some

Each report is shown as wide as a phone and as a desktop, light and dark, in pieces:
``single-phone-dark-1.png`` is the top of a page. Runs are trained once and kept in OUT/runs;
reports are written anew each time.
"""

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chromium import Tab, chromium
from example_runs import KINDS, Examples
from playwright.sync_api import Browser

WIDTHS = {"phone": 390, "desktop": 1280}
THEMES = ("light", "dark")
PIECE, MOST = 1600, 8  # height of a screenshot in pixels; of a longer page, only so many
LENGTH = 200  # training steps of a task


def main(arguments: list[str] | None = None) -> None:
    """Write the screenshots, and print the size of each report and the seconds it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (all)")
    options = parser.parse_args(arguments)
    examples = Examples(options.out / "runs", LENGTH)
    with chromium() as browser:
        for kind in options.kinds or KINDS:
            examples[kind]
            page = options.out / f"{kind}.html"
            page.unlink(missing_ok=True)
            start = time.monotonic()
            examples.report(kind, page)
            size = page.stat().st_size / 1e3
            print(f"{kind:10} {size:7,.0f} kB  {time.monotonic() - start:5.1f} s", flush=True)
            for width in WIDTHS:
                for theme in THEMES:
                    take(browser, page, width, theme)


def take(browser: Browser, page: Path, width: str, theme: str) -> None:
    """Write screenshots of a page from its top down."""
    tab = Tab(browser, page, WIDTHS[width], PIECE, color_scheme=theme)
    height = tab.page.evaluate("document.documentElement.scrollHeight")
    tab.resize(WIDTHS[width], min(height, MOST * PIECE))
    tab.page.wait_for_timeout(200)  # figures are drawn anew in another width
    name = page.with_name(f"{page.stem}-{width}-{theme}")
    for old in name.parent.glob(f"{name.name}-*.png"):
        old.unlink()
    for number in range(min(MOST, math.ceil(height / PIECE))):
        top = number * PIECE
        part = {"x": 0, "y": top, "width": WIDTHS[width], "height": min(PIECE, height - top)}
        tab.page.screenshot(path=f"{name}-{number + 1}.png", clip=part, full_page=True)
    print(f"  {name.name}: {height:,} pixels high", *tab.requests, *tab.complaints)
    tab.close()


if __name__ == "__main__":
    main()
