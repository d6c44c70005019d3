"""Write the reports of example runs, and screenshots of them, to look at.

    python tests/report/screenshots.py OUT                    all kinds of report
    python tests/report/screenshots.py OUT single continual   some

Each report is shown as wide as a phone and as a desktop, light and dark: single-phone-dark.png, and
single-phone-dark-first.png for the first screen. The runs are trained once and kept in OUT/runs;
the reports are written anew each time.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chromium import Tab, chromium
from example_runs import KINDS, Examples
from playwright.sync_api import Browser

WIDTHS = {"phone": 390, "desktop": 1280}
THEMES = ("light", "dark")
TALLEST = 12_000  # pixels of a screenshot
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
    """Write a screenshot of a page from its top down, and one of its first screen."""
    height = 844 if width == "phone" else 800
    tab = Tab(browser, page, WIDTHS[width], height, color_scheme=theme)
    whole = tab.page.evaluate("document.documentElement.scrollHeight")
    name = page.with_name(f"{page.stem}-{width}-{theme}")
    tab.page.screenshot(path=f"{name}-first.png")
    tab.resize(WIDTHS[width], min(whole, TALLEST))
    tab.page.screenshot(path=f"{name}.png")
    print(f"  {name.name}: {whole:,} pixels high", *tab.requests, *tab.complaints)
    tab.close()


if __name__ == "__main__":
    main()
