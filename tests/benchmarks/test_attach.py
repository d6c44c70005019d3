"""The attach benchmark: its tables."""

from benchmarks.attach import report, run
from benchmarks.markdown import with_table


def test_the_table_of_attaching_is_made_from_the_raw_results():
    table = report.report()
    assert table.count("\n") > 8
    assert with_table(run.README.read_text(), table) == run.README.read_text()
