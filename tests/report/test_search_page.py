"""The page of a search: a picture for each task, its candidates, and why one was chosen."""

import json
import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from page_parts import assert_needs_nothing_from_outside
from properties import examples
from run_fixtures import add_topology, make_run
from search_fixtures import KINDS, SearchedTopology, search_run, write_search

from thalnet_mtl.cli import main
from thalnet_mtl.config.schema import ExperienceConfig
from thalnet_mtl.report.decisions import NEAREST, candidate_rows, decision_rows, prior_sentence
from thalnet_mtl.report.figures.growth import Layout
from thalnet_mtl.report.html import write
from thalnet_mtl.report.stages import sizes, stages
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry, TopologySnapshot

GETS = {"a": "", "b": "probe", "c": "all", "d": "alone"}


def search_section(folder):
    """Return what a report says on the search of a run."""
    html = write([folder], folder / "report.html").read_text()
    return html.partition("<h2>Search</h2>")[2].partition("<h2>")[0]


def stage_parts(section):
    return section.split('<section class="stage">')[1:]


def marks(part, state):
    return re.findall(rf'class="mark [^"]*\b{state}\b[^"]*"[^>]*><title>([^<]*)', part)


def test_a_stage_shows_what_is_new_and_what_is_reused(tmp_path):
    first, probe, all_, alone = stage_parts(search_section(search_run(tmp_path / "run", GETS)))
    assert [part.count("<svg") for part in (first, probe, all_, alone)] == [1] * 4
    size = "1,000 parameters"
    assert marks(first, "new") == [
        f"low, new, {size}",
        f"high, new, {size}",
        "data: a",
        "head of a",
    ]
    reused = [f"{name}, reused, frozen, {size}" for name in ("low", "high")]
    assert marks(probe, "reused") == reused and marks(probe, "new") == ["data: b", "head of b"]
    assert marks(all_, "reused") == reused
    assert marks(all_, "new")[:2] == [f"c_low, new, {size}", f"c_high, new, {size}"]
    # The last task reuses nothing: all earlier modules and heads are faded, also frozen ones.
    others = [title.split(",")[0] for title in marks(alone, "other")]
    assert sorted(others) == [
        "c_high",
        "c_low",
        "head of a",
        "head of b",
        "head of c",
        "high",
        "low",
    ]


def test_candidates_stand_below_a_picture_with_the_reason(tmp_path):
    part = stage_parts(search_section(search_run(tmp_path / "run", GETS)))[2]
    assert "3. c <span>all</span>" in part and "all is the best." in part
    rows = re.findall(r"<tr( class=\"chosen\")?><td[^>]*>([^<]*)", part)
    assert rows == [("", "probe of a"), ("", "alone"), (' class="chosen"', "all ✓")]
    assert "Loss of a linear head on each earlier path, relative to guessing: a 0.500, b" in part


def test_decisions_within_a_task_stand_in_its_stage(tmp_path):
    topology = SearchedTopology("a")
    topology.add("b", "alone")
    topology.decide("pruning", "without b_side")
    part = stage_parts(search_section(write_search(tmp_path / "run", topology)))[1]
    assert "Pruning at step 40: without b_side helps." in part
    assert "<th>p</th>" in part and "<td>0.03</td>" in part


def test_pictures_of_further_runs_are_folded(tmp_path):
    runs = [search_run(tmp_path / name, GETS) for name in ("x", "y", "z")]
    html = write(runs, tmp_path / "report.html").read_text()
    first, _, others = html.partition("<details><summary>The search of 2 more runs</summary>")
    assert first.count('<section class="stage">') == 4
    assert others.partition("</div>\n</details>")[0].count('<section class="stage">') == 8


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
    section = search_section(run)
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;, new" in section
    assert "&lt;img src=x&gt; &amp; &lt;b&gt;." in section
    elements = Elements()
    elements.feed(section)
    assert not elements.open and not elements.seen & {"script", "img", "b"}


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
    assert "Search" not in pages[0] and 'class="stage' not in pages[0]


def test_thirty_tasks_are_drawn_in_seconds_and_in_two_megabytes(tmp_path):
    tasks = {f"t{k}": ("all", "probe", "alone")[k % 3] if k else "" for k in range(30)}
    run = search_run(tmp_path / "run", tasks)
    start = time.process_time()
    section = search_section(run)
    assert time.process_time() - start < 10
    assert (run / "report.html").stat().st_size < 2e6
    parts = stage_parts(section)
    assert len(parts) == 30 and all("<details><summary>3 candidates" in p for p in parts[1:])


@examples(max_examples=30)
@given(
    gets=st.integers(1, 40).flatmap(
        lambda tasks: st.lists(st.sampled_from(KINDS), min_size=tasks, max_size=tasks)
    ),
    side=st.integers(0, 3),
)
@example(gets=["all"] * 40, side=3)
@example(gets=["probe"] * 40, side=0)
def test_marks_are_apart_and_within_their_picture(gets, side):
    topology = SearchedTopology("a")
    for number, kind in enumerate(gets):
        topology.add(f"t{number}", kind)
    for number in range(side if gets[-1] != "probe" else 0):
        topology.attach(f"side{number}", read_by=[f"t{len(gets) - 1}_high"])
    snapshot = TopologySnapshot.from_json(topology.content, "topology.json")
    layout = Layout(stages(snapshot), sizes(snapshot))
    for number in {0, len(gets) // 2, len(gets)}:
        picture = layout.picture(number)
        for place, mark in enumerate(picture.marks):
            assert mark.x - mark.radius >= 0 and mark.x + mark.radius <= picture.width
            assert mark.y - mark.radius >= 0 and mark.y + mark.radius <= picture.height
            for other in picture.marks[:place]:
                assert abs(mark.place - other.place) >= mark.radius + other.radius
        numbers = [number for number, _ in picture.numbers]
        assert numbers == sorted(set(numbers)) and numbers[-1] == number + 1
        gaps = [b[1] - a[1] for a, b in zip(picture.numbers, picture.numbers[1:], strict=False)]
        assert all(gap >= 14 - 1e-9 for gap in gaps)


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
