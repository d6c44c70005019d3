"""A headless Chromium without a network, for tests of pages and for screenshots of them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Dialog, Locator, sync_playwright

CHECKS = (Path(__file__).parent / "page_checks.js").read_text()
CHROMIUM = shutil.which("chromium") or ""
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of the system, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET])
        yield browser
        browser.close()


class Tab:
    """A page in a context of its own, and what it asks for and complains about."""

    def __init__(self, browser: Browser, page: Path, width: int, height: int = 800, **options: Any):
        size: Any = {"width": width, "height": height}
        self.context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        self.page = self.context.new_page()
        self.has_scripts = options.get("java_script_enabled", True)
        self.requests: list[str] = []  # beside that for the page
        self.complaints: list[str] = []  # of the console
        self.dialogs: list[str] = []
        self.address = page.absolute().as_uri()
        self.context.on("request", lambda request: self._note_request(request.url))
        self.page.on("console", lambda message: self._note_message(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._note_dialog)
        self.page.goto(self.address)
        self.settle()

    def close(self) -> None:
        self.context.close()

    def resize(self, width: int, height: int = 800) -> None:
        self.page.set_viewport_size({"width": width, "height": height})
        self.settle()

    def unfold(self) -> None:
        """Open everything that is folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        self.settle()

    def fold(self) -> None:
        """Close everything that can be folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")

    def wider_than_window(self) -> list[str]:
        """Return the elements that make the page wider than its window."""
        return self._check("wider")

    def faint_texts(self) -> list[str]:
        """Return the texts whose contrast to what is behind them is too low."""
        return self._check("faint")

    def nameless(self) -> list[str]:
        """Return the figures, images and controls without an accessible name."""
        return self._check("nameless")

    def settle(self) -> None:
        """Wait until figures are drawn, in another width or with a tip."""
        if not self.has_scripts:
            return
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def _check(self, name: str) -> Any:
        return self.page.evaluate(f"({CHECKS}).{name}()")

    def cut(self) -> list[str]:
        """Return the elements that hide a part of what is in them."""
        return self._check("cut")

    def controls(self) -> list[str]:
        """Return what can be clicked or typed into, in the order in which it is read."""
        return self._check("controls")

    def tabulate(self) -> list[str]:
        """Return what gets the focus, and shows it, from Tab to Tab.

        It holds boxes that scroll as well, which the browser lets the keyboard reach.
        """
        reached: list[str] = []
        while "body" not in reached:
            self.page.keyboard.press("Tab")
            reached.append(self._check("focused"))
        return reached[:-1]

    def tabulate_to(self, target: Locator) -> None:
        """Press Tab until an element has the focus."""
        for _ in self.controls():
            self.page.keyboard.press("Tab")
            if target.evaluate("e => e === document.activeElement"):
                break
        self.settle()

    def theme(self) -> str:
        """Return 'light' or 'dark': whether the page is brighter than its text."""
        return self._check("theme")

    def _note_request(self, url: str) -> None:
        if url != self.address and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    def _note_message(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _note_dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()
