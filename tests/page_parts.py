"""Parts of the page of a report, for tests that need no browser."""

import html
import json
import re

FIGURE = re.compile(
    r'<figure data-panel="(\w+)" aria-label="([^"]*)">.*?'
    r'<script type="application/json">(.*?)</script>',
    re.DOTALL,
)
LOADED = re.compile(r'<[^>]+ (?:src|href|srcset|data|action)\s*=\s*"([^"]*)"')


def panels(page: str, kind: str) -> list[dict]:
    """Return the data of all figures of a kind, each with its title as 'aria-label'."""
    return [
        {"aria-label": html.unescape(title), **json.loads(data)}
        for name, title, data in FIGURE.findall(page)
        if name == kind
    ]


def without_scripts(page: str) -> str:
    """Return a page without its scripts, its data and its style."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


def assert_needs_nothing_from_outside(page: str) -> None:
    """Assert that a page loads no file, and that it forbids that to itself."""
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1)
    rules = dict(rule.strip().split(" ", 1) for rule in html.unescape(policy).split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert all(source.startswith("'sha256-") for source in rules["script-src"].split())
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri",
                          "form-action"}  # fmt: skip
    marked_up = without_scripts(page)
    assert all(source.startswith(("data:", "#")) for source in LOADED.findall(marked_up))
    for word in ("<link", "<iframe", "<object", "<embed", "@import", "url("):
        assert word not in marked_up
    style = re.search("<style>(.*?)</style>", page, re.DOTALL).group(1)
    assert "@import" not in style and "url(" not in style
