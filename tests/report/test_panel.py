"""Figures of the page hold plain data, and scripts that may stand in a page."""

import base64
import hashlib
import math
import re

import pytest
from run_fixtures import make_run

from thalnet_mtl.report.html import write
from thalnet_mtl.report.panel import PAGE, number, scripts, security_policy

SCRIPTS = sorted(path.stem for path in (PAGE / "panels").glob("*.js"))


def test_numbers_are_rounded_and_nothing_else_is_a_number():
    assert [number(x) for x in (1 / 3, 123456.0, 0.0)] == [0.3333, 123500.0, 0.0]
    assert [number(x) for x in (None, math.nan, -math.inf)] == [None] * 3


def test_a_page_holds_each_script_once_and_lets_it_run(tmp_path):
    page = write([make_run(tmp_path / "run")], tmp_path / "report.html").read_text()
    for script in scripts():
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert page.count(f"<script>{script}</script>") == 1
        assert page.count(f"&#39;sha256-{digest}&#39;") == 1


def test_scripts_cannot_end_their_element():
    for script in scripts():
        assert not re.search("</script|<!--|<script", script, re.IGNORECASE)


def test_the_library_is_small_and_says_what_it_is():
    library = (PAGE / "vendor" / "plot.js").read_text()
    assert len(library) < 300_000
    for words in ("@observablehq/plot 0.6", "Permission to use, copy, modify", "npm ci"):
        assert words in library[:9000]


def test_only_the_scripts_of_the_page_may_run():
    allowed = base64.b64encode(hashlib.sha256(b"let a").digest()).decode()
    assert f"script-src 'sha256-{allowed}';" in security_policy(["let a"])


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_script_defines_the_function_of_its_name(kind):
    assert f"panels.{kind} = (" in (PAGE / "panels" / f"{kind}.js").read_text()
