"""The page of a search: a picture for each task, its candidates, and why one was chosen."""

import json
import re
import time
from html.parser import HTMLParser

import pytest
from page_parts import assert_needs_nothing_from_outside, panels, without_scripts
from run_fixtures import add_topology, make_run
from search_fixtures import SearchedTopology, search_run, write_search

from thalnet_mtl.cli import main
from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.report.decisions import NEAREST, candidate_rows, decision_rows, prior_sentence
from thalnet_mtl.report.html import write
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry

GETS = {"a": "", "b": "probe", "c": "all", "d": "alone"}


def graph(folder):
    """Return the data of the graph that a report shows of a run."""
    html = write([folder], folder / "report.html").read_text()
    [data] = panels(html, "graph")
    return data


def stage_of(data, words):
    """Return the place of a stage."""
    return [stage["words"] for stage in data["stages"]].index(words)


def modules_at(data, words):
    """Return what is there at a stage: the names of modules, and of those the frozen ones."""
    stage = stage_of(data, words)

    def within(spans):
        return any(first <= stage < end for first, end in spans)

    there = [m for m in data["modules"] if within(m["there"])]
    return [m["name"] for m in there], [m["name"] for m in there if within(m["frozen"])]


def test_a_stage_shows_the_modules_that_are_there_and_the_frozen_ones(tmp_path):
    data = graph(search_run(tmp_path / "run", GETS))
    first, earlier = ["low", "high"], ["low", "high", "c_low", "c_high"]
    assert [stage["step"] for stage in data["stages"]] == [0, 10, 20, 30, 30, 30]
    assert modules_at(data, "the network at the start") == (first, [])
    assert modules_at(data, "b gets probe of a") == (first, first)
    assert modules_at(data, "c gets all") == (earlier, earlier)  # frozen for d, at the same step
    assert modules_at(data, "d gets alone") == ([*earlier, "d_low", "d_high"], earlier)
    owners = {m["name"]: data["tasks"][m["task"]]["name"] for m in data["modules"]}
    assert owners == {
        "low": "a", "high": "a", "c_low": "c", "c_high": "c", "d_low": "d", "d_high": "d",
    }  # fmt: skip


def test_readings_are_there_from_the_stage_that_opened_them(tmp_path):
    data = graph(search_run(tmp_path / "run", GETS))
    names = [m["name"] for m in data["modules"]]
    readings = {(names[a], names[b]): spans for a, b, _, spans in data["readings"]}
    assert readings["low", "high"] == [[0, 6]]
    assert readings["high", "c_low"] == [[stage_of(data, "c gets all"), 6]]
    assert ("c_low", "d_low") not in readings


def test_the_reason_of_a_decision_stands_at_its_stage(tmp_path):
    data = graph(search_run(tmp_path / "run", GETS))
    lines = data["stages"][stage_of(data, "c gets all")]["lines"]
    assert lines[0].startswith("New: c_low (1,000), c_high (1,000).")
    assert lines[1:] == [
        "all is the best.",
        "Loss of a linear head on each earlier path, relative to guessing: a 0.500, b 0.500.",
    ]


def test_decisions_within_a_task_stand_in_its_stage(tmp_path):
    topology = SearchedTopology("a")
    topology.add("b", "alone")
    topology.decide("pruning", "without b_side")
    run = write_search(tmp_path / "run", topology)
    assert "Pruning: without b_side helps." in graph(run)["stages"][-1]["lines"]
    html = (run / "report.html").read_text()
    assert "<th>p</th>" in html and "<td>0.03</td>" in html


def test_candidates_of_all_decisions_are_in_a_table(tmp_path):
    run = search_run(tmp_path / "run", GETS)
    html = write([run], tmp_path / "report.html").read_text()
    part = html.partition("<summary>c: all, step 30: 3 candidates</summary>")[2]
    part = part.partition("</details>")[0]
    rows = re.findall(r"<tr( class=\"chosen\")?><td[^>]*>([^<]*)", part)
    assert rows == [("", "probe of a"), ("", "alone"), (' class="chosen"', "all ✓")]


def test_the_graphs_of_further_runs_are_folded(tmp_path):
    runs = [search_run(tmp_path / name, GETS) for name in ("x", "y", "z")]
    html = write(runs, tmp_path / "report.html").read_text()
    first, _, others = html.partition("<details><summary>The networks of 2 more runs</summary>")
    assert len(panels(first, "graph")) == 1 and len(panels(others, "graph")) == 2


class Elements(HTMLParser):
    """The names of all elements that a page opens and does not close."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.open += [tag] if tag not in ("meta", "img", "br") else []

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_names_stay_text(tmp_path):
    name = '<script>alert("1")</script>'
    topology = SearchedTopology("a")
    topology.add("b", "alone")
    content = json.dumps(topology.content)
    content = content.replace("b_low", name.replace('"', '\\"')).replace(
        "alone is the best", "<img src=x> & <b>"
    )
    run = write_search(tmp_path / "run", topology)
    (run / "topology.json").write_text(content)
    html = write([run], tmp_path / "report.html").read_text()
    [data] = panels(html, "graph")
    assert data["modules"][2]["name"] == name
    assert "<img src=x> & <b>." in data["stages"][-1]["lines"]
    assert "<img src=x>" not in html and "</script>alert" not in html
    elements = Elements()
    elements.feed(without_scripts(html).partition("<body>")[2].partition("</body>")[0])
    assert not elements.open and not elements.seen & {"script", "b"}


def test_a_page_of_a_search_needs_no_other_file(tmp_path):
    html = write([search_run(tmp_path / "run", GETS)], tmp_path / "report.html").read_text()
    assert_needs_nothing_from_outside(html)


def test_a_run_without_decisions_has_no_section_whatever_its_file_says(tmp_path):
    pages = []
    run = add_topology(make_run(tmp_path / "run"), (12, "freeze", "trunk"))
    content = json.loads((run / "topology.json").read_text())
    earlier = {key: value for key, value in content.items() if key != "decisions"}
    earlier["history"] = [{k: v for k, v in c.items() if k != "before"} for c in content["history"]]
    for each in (content, earlier, earlier | {"candidates": []}):
        (run / "topology.json").write_text(json.dumps(each))
        pages.append(write([run], tmp_path / "report.html").read_text())
    assert pages[0] == pages[1] == pages[2]
    assert "Decisions of the search" not in pages[0]


def test_thirty_tasks_are_drawn_in_seconds_and_in_two_megabytes(tmp_path):
    tasks = {f"t{k}": ("all", "probe", "alone")[k % 3] if k else "" for k in range(30)}
    run = search_run(tmp_path / "run", tasks)
    start = time.process_time()
    data = graph(run)
    assert time.process_time() - start < 10
    assert (run / "report.html").stat().st_size < 2e6
    assert len(data["stages"]) == 32 and len(data["tasks"]) == 30


def decision(**fields):
    entries = [
        CandidateEntry(candidate="alone", parameters=9, steps=2, score=0.7, scores=[0.7],
                       chosen=False),
        CandidateEntry(candidate="probe of a", parameters=1, steps=8, score=0.2, error=0.01,
                       scores=[0.5, 0.2], chosen=True),
    ]  # fmt: skip
    about = {"step": 8, "changes": 0, "experience": 2, "task": "b", "about": "task",
             "reason": "why", "candidates": entries} | fields  # fmt: skip
    return DecisionEntry(**about)


def test_a_candidate_that_dropped_out_has_no_score_in_later_rounds():
    alone, probe = candidate_rows(decision(), by_round=True)
    assert (alone["round 1"], alone["round 2"]) == ("0.700", "–")
    assert (probe["round 1"], probe["round 2"], probe["±"]) == ("0.500", "0.200", "0.010")
    assert candidate_rows(decision())[0]["score"] == "0.700"


def test_rows_of_decisions_have_the_columns_that_say_something():
    [row] = decision_rows([decision()], [])
    assert row == {"task": "b", "gets": "probe of a", "new parameters": "1", "score": "0.200",
                   "extra steps": "2", "why": "why"}  # fmt: skip
    stream = [ExperienceConfig(("a",)), ExperienceConfig(("b",), expect=("alone", "top"))]
    [row] = decision_rows([decision()], stream)
    assert (row["expected"], row["as expected"]) == ("alone or top", "no")
    rows = decision_rows([decision(), decision(about="growth")], stream)
    assert [(row["about"], row["as expected"]) for row in rows] == [("task", "no"), ("growth", "")]


def test_the_best_earlier_paths_are_named():
    assert prior_sentence(decision()) == "No earlier path reads inputs of its shape."
    assert prior_sentence(decision(about="growth")) == ""
    prior = {f"t{k}": 0.9 - k / 10 for k in range(NEAREST + 2)}
    assert prior_sentence(decision(prior=prior)) == (
        "Loss of a linear head on the best 3 of 5 earlier paths, relative to guessing: "
        "t4 0.500, t3 0.600, t2 0.700."
    )


@pytest.mark.parametrize("width", ["40", "120"])
def test_inspect_says_why(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    assert main(["inspect", str(search_run(tmp_path / "run", GETS))]) == 0
    out = capsys.readouterr().out
    for kind in ("all", "alone", "probe of a"):
        assert f"{kind} is the best" in " ".join(out.split())
