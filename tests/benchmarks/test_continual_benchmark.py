"""The continual benchmark: its tables and measures."""

from benchmarks.continual import report, run
from benchmarks.markdown import with_table


def test_the_report_are_made_from_the_raw_results():
    table = report.report()
    assert table.count("\n") > 40
    assert with_table(run.README.read_text(), table) == run.README.read_text()
