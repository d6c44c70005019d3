"""A headless Chromium without a network, for tests of pages and for screenshots of them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Dialog, sync_playwright

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
        self.requests: list[str] = []  # beside that for the page
        self.complaints: list[str] = []  # of the console
        self.dialogs: list[str] = []
        self.address = page.absolute().as_uri()
        self.context.on("request", lambda request: self._note_request(request.url))
        self.page.on("console", lambda message: self._note_message(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._note_dialog)
        self.page.goto(self.address)
        self._settle()

    def close(self) -> None:
        self.context.close()

    def resize(self, width: int, height: int = 800) -> None:
        self.page.set_viewport_size({"width": width, "height": height})
        self._settle()

    def unfold(self) -> None:
        """Open everything that is folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        self._settle()

    def wider_than_window(self) -> list[str]:
        """Return the elements that make the page wider than its window."""
        return self._check("wider")

    def faint_texts(self) -> list[str]:
        """Return the texts whose contrast to what is behind them is too low."""
        return self._check("faint")

    def nameless(self) -> list[str]:
        """Return the figures, images and controls without an accessible name."""
        return self._check("nameless")

    def _settle(self) -> None:
        """Wait until figures are drawn in a new width."""
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def _check(self, name: str) -> list[str]:
        return self.page.evaluate(f"({CHECKS}).{name}()")

    def _note_request(self, url: str) -> None:
        if url != self.address and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    def _note_message(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _note_dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()
