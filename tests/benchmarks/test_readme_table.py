"""The tables of results of the top README and of the README of all benchmarks."""

from benchmark_fixtures import claim_runs, scored_record

from benchmarks import readme_table
from benchmarks.claim import experiments
from benchmarks.claim import report as claim
from benchmarks.markdown import with_table


def test_the_tables_of_results_are_made_from_the_raw_results():
    for path, table in (
        (readme_table.BENCHMARKS_README, readme_table.full_table()),
        (readme_table.README, readme_table.short_table()),
    ):
        assert table.count("\n") >= 3
        assert with_table(path.read_text(), table) == path.read_text()


def test_the_claim_has_rows_once_both_networks_were_trained(monkeypatch):
    names = {
        f"alone_{task}_{body}": body for task in experiments.TASKS for body in experiments.BODIES
    }
    records = {"thalnet": scored_record(0.1, 0.1, 4.0), "gru": scored_record(0.5, 0.5, 2.0)}
    runs = {name: dict[int, dict]() for name in names}
    monkeypatch.setattr(claim, "load_runs", lambda folder: claim_runs(runs))
    assert readme_table.claim_results() == []
    runs |= {name: {0: records[body]} for name, body in names.items()}
    runs["weighted_thalnet"] = {0: scored_record(0.6, 0.5, 2.0)}
    text = "4.000", "2.000", "1", "2.000", "**undecided**", "claim.run --tune --seeds {0..0}"
    (result,) = readme_table.claim_results()
    assert result[2:] == text
    runs["weighted_gru"] = {0: scored_record(0.5, 0.5, 1.4)}
    joint = "6.67", "10.00", "1", "-3.33", "**undecided**", "claim.run --tune --seeds {0..0}"
    first, second = readme_table.claim_results()
    assert (first[2:], second[2:]) == (text, joint)
    assert "text8" in first.setting and "Δm over three single-task GRUs, %" in second.setting


def test_the_search_has_a_row_over_the_seeds_that_all_its_streams_have(monkeypatch):
    def record(right):
        return {"result": {"decisions": [{"right": value} for value in right]}}

    runs = {"s_minus": {1: record([True, None]), 2: record([True, True])}, "s_plus": {}}
    monkeypatch.setattr(readme_table.search_report, "searches", lambda name: runs.get(name, {}))
    (result,) = readme_table.search_results()
    assert "on 1 streams" in result.setting and result.thalnet == "100.0"
    assert (result.seeds, result.verdict) == ("2", "**right**")
    assert result.command == "search.run --seeds {1..2}"
    runs["s_plus"] = {2: record([False, True, True, False])}
    (result,) = readme_table.search_results()
    assert (result.thalnet, result.seeds, result.verdict) == ("66.7", "1", "**often wrong**")
    runs["s_plus"] = {3: record([True])}
    assert readme_table.search_results() == []
