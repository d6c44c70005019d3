"""The search benchmark: streams and their answer keys, choosers, scores, runs and tables."""

import json
from dataclasses import make_dataclass

import pytest

from benchmarks.markdown import with_table
from benchmarks.search import choosers, experiments, report, run, scoring, worker
from thalnet_mtl.config.files import configs_folder
from thalnet_mtl.config.load import load_config
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.training.checks import check_expected
from thalnet_mtl.training.setup import set_up

LARGE, SMALL, TINY = (400, 200), (40, 20), (5, 3)
NEW = ("alone", "finetune", "all")
# By stream the last task, after its first one and the fillers: size, changes, right answers.
LAST = {
    "s_minus": (LARGE, SMALL, set(), {"probe of t1"}),
    "s_plus": (SMALL, LARGE, set(), {"alone", "finetune of t1", "all"}),
    "s_in": (LARGE, TINY, {"gains"}, {"bottom of t1"}),
    "s_out": (LARGE, SMALL, {"label_order"}, {"probe of t1", "top of t1"}),
    "input_shape": (LARGE, SMALL, {"inputs_averaged"}, {"bottom of t1"}),
}
CHANGES = {"label_order", "gains", "inputs_averaged", "random_labels"}


def tasks_of(stream):
    """Return permutation (0: none), size, changes and right answers of every task of a stream."""
    config = load_config(*experiments.stream_files(stream))
    check_expected(config)
    assert [experience.tasks for experience in config.stream] == [(name,) for name in config.tasks]
    for entry, experience in zip(config.tasks.values(), config.stream, strict=True):
        options = entry.options
        of = options["of"]
        size = options["train_per_class"], options["validation_per_class"]
        permutation = 0 if of == "mnist_rows" else of["permutation"]
        yield permutation, size, CHANGES & options.keys(), experience.expect


@pytest.mark.parametrize("stream", LAST)
def test_streams_are_those_of_ctrl_with_permutations_of_mnist_between(stream):
    first, *fillers, last = tasks_of(stream)
    size, last_size, changes, answers = LAST[stream]
    assert first == (0, size, set(), ())
    assert [(k, s, c, set(a)) for k, s, c, a in fillers] == [
        (k, SMALL, set(), set(NEW)) for k in range(1, 5)
    ]
    assert (last[0], last[1], last[2], set(last[3])) == (0, last_size, changes, answers)


def test_streams_without_anything_to_reuse_or_to_add():
    *fillers, last = tasks_of("s_pl")
    assert [(k, size) for k, size, _, _ in fillers] == [(k, SMALL) for k in range(1, 5)]
    assert last == (0, LARGE, set(), NEW)
    null = [*tasks_of("null")]
    assert [(k, size) for k, size, _, _ in null] == [(0, LARGE)] * 4
    assert [changes for _, _, changes, _ in null] == [set(), set(), set(), {"random_labels"}]
    assert [answers for *_, answers in null] == [(), ("probe",), ("probe",), ("probe",)]


def test_the_answers_of_the_long_stream_follow_from_its_tasks():
    first = {}
    for number, (permutation, size, changes, answers) in enumerate(tasks_of("s_long30"), 1):
        source = first.setdefault(permutation, f"t{number}")
        if source == f"t{number}":
            right = set(NEW) if number > 1 else set()
        elif "gains" in changes:
            right = {f"bottom of {source}"}
        else:
            kinds = ("probe", "top") if "label_order" in changes else ("probe",)
            right = {f"{kind} of {source}" for kind in kinds}
        assert (set(answers), size) == (right, LARGE if right <= set(NEW) else TINY), number
    assert number == 30 and len(first) == 5


def test_every_stream_has_less_than_forty_lines():
    folder = configs_folder() / "search"
    for path in folder.glob("*.yaml"):
        assert len(path.read_text().splitlines()) < 40, path


TINY_STREAM = """
tasks:
  t1: {name: digits_rows}
  t2: {name: variant, of: digits_rows, train_per_class: 20, sample_seed: 1}
  t3: {name: variant, of: digits_rows, train_per_class: 20, label_order: 7}
stream: [{tasks: [t1]}, {tasks: [t2], expect: [alone]}, {tasks: [t3], expect: [top, probe of t1]}]
modules: &path {low: {input: true}, high: {output: true}}
model: {features: 6, budget: 0}
growth: {when: search, modules: *path}
train: {steps: 32, batch: 20, optimizer: adam, learning_rate: 0.01}
evaluate: {every: 32, log_every: 32, batches: 1}
"""


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "tiny.yaml"
    path.write_text(TINY_STREAM)
    return str(path)


def decisions(stream, arm, seed=0):
    """Return the records of the decisions on the second and the third task, without training."""
    context = set_up(experiments.load(experiments.command(stream, arm, seed)), fetch=print)
    length = context.stream[0].stop
    for number in (1, 2):
        context.state.step = number * length
        context.state.rule.begin_experience()
    return context.state.growth.decisions


def chosen(stream, arm, seed=0):
    return [
        entry["candidate"]
        for decision in decisions(stream, arm, seed)
        for entry in decision["candidates"]
        if entry["chosen"]
    ]


def test_choosers_decide_as_they_say(stream, monkeypatch):
    assert chosen(stream, "independent") == ["alone", "alone"]
    assert chosen(stream, "oracle") == ["alone", "top of t1"]
    assert chosen(stream, "prior_alone")[0] == "alone"  # t1 has not learned anything
    monkeypatch.setattr(choosers, "USEFUL", 2.0)
    assert chosen(stream, "prior_alone")[0] == "probe of t1"
    every, last = (decisions(stream, arm)[1]["candidates"] for arm in ("exhaustive", "race_alone"))
    assert [entry["steps"] for entry in every] == 6 * [32]
    assert {entry["candidate"].partition(" of ")[2] for entry in last} == {"", "t2"}


def test_the_data_of_a_stream_are_drawn_anew_for_every_seed():
    first, second = (experiments.load(experiments.command("s_in", "search", k)) for k in (0, 2))
    assert first.tasks == experiments.recipe_config("s_in").tasks
    t1, t2, *_, t6 = second.tasks.values()
    assert t1.options["of"] == t6.options["of"] == "mnist_rows"
    assert (t1.options["sample_seed"], t6.options["sample_seed"], t6.options["gains"]) == (
        200, 201, 9
    )  # fmt: skip
    assert t2.options["of"] == {"name": "permuted_mnist", "permutation": 21}
    assert second.stream == first.stream


def test_the_random_chooser_draws_every_candidate_and_repeats_itself(stream):
    drawn = [chosen(stream, "random", seed) for seed in range(12)]
    kinds = {name.partition(" of ")[0] for names in drawn for name in names}
    assert kinds == {"probe", "bottom", "top", "finetune", "alone", "all"}
    assert chosen(stream, "random", 3) == drawn[3]


def decision(chosen, **steps):
    entries = [
        CandidateEntry(candidate=name, parameters=1, steps=n, score=0.5, chosen=name == chosen)
        for name, n in steps.items()
    ]
    return DecisionEntry(step=9, changes=0, experience=2, task="b", about="task", reason="",
                         candidates=entries)  # fmt: skip


def record(last_row, decisions=(), steps=160, **result):
    rows = [[None] * len(last_row), [*last_row]]
    return {"result": {"matrix": rows, "decisions": [*decisions], "steps": steps, **result}}


def test_scores_are_worked_by_hand():
    race = decision("alone", probe=4, alone=16, all=16)
    assert scoring.lost_steps(race, 64) == 20
    to_the_end = decision("alone", probe=64, alone=64)
    assert scoring.lost_steps(to_the_end, 64) == 128  # the chosen one begins again
    choices = [
        {"experience": 2, "chosen": "probe of a", "right": True, "lost_steps": 20},
        {"experience": 3, "chosen": "alone", "right": None, "lost_steps": 0},
        {"experience": 4, "chosen": "alone", "right": False, "lost_steps": 12},
    ]
    ours, alone = record([0.5, 0.7, 0.9], choices), record([0.6, 0.6, 0.8])
    assert scoring.accuracy(ours) == pytest.approx(0.7)
    assert scoring.transfer(ours, alone) == pytest.approx(0.1)
    assert scoring.cost(ours, 128) == pytest.approx((160 + 32) / 128)
    assert report.right_share(ours) == 0.5 and report.last_is_right(ours) == 0.0
    assert report.right_share(alone) is None and report.last_is_right(alone) is None
    runs = {0: record([1], [choices[2] | {"experience": 2}])}
    runs |= {seed: record([1], choices) for seed in (1, 2, 3)}
    assert [*scoring.chosen_kinds(runs)[2].items()] == [("probe", 3), ("alone", 1)]


def test_arms_without_a_race_train_as_long_as_a_race_costs(stream):
    steps = {name: experiments.load(experiments.command(stream, name, 1)).train.steps
             for name in experiments.ARMS}  # fmt: skip
    races = {"search", "exhaustive", "race_alone", "any_path", "price_0"}
    assert steps == {name: 32 if name in races else 42 for name in experiments.ARMS}
    configs = {name: experiments.load(experiments.command(stream, name, 1)) for name in steps}
    assert configs["price_0"].growth.options == {"price": 0.0}
    assert configs["columns"].growth.modules["high"].module == "gru"
    assert {config.train.seed for config in configs.values()} == {1}


def test_a_new_field_with_its_default_changes_no_fingerprint(stream):
    old = make_dataclass("Config", [("steps", int, 1), ("tasks", tuple, ())])
    new = make_dataclass("Config", [("clip", float, 0.0)], bases=(old,))
    shown = [experiments.without_defaults(each) for each in (old(2, (old(),)), new(2, (new(),)))]
    assert shown == [{"steps": 2, "tasks": [{}]}] * 2
    assert experiments.without_defaults(new(clip=1.0)) == {"clip": 1.0}
    words = experiments.command(stream, "never", 1)
    same = [*words, "--train.accumulate", "1"], [*words, "--train.accumulate", "2"]
    numbers = [experiments.fingerprint(each) for each in (words, *same)]
    assert numbers[0] == numbers[1] != numbers[2]


def test_runs_are_trained_in_order_recorded_not_repeated_and_shown(stream, tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    commands = experiments.jobs([stream], ["never", "search", "independent"], [0, 1])
    arms = [("search", 0), ("independent", 0), ("search", 1), ("independent", 1)]
    assert [*commands][:4] == [f"tiny/{arm}-seed{seed}" for arm, seed in arms]
    commands = dict([*commands.items()][:4])
    run.launch(commands, runs, results, 1)
    assert run.pending(commands, results) == {}
    changed = {"tiny/search-seed1": [*commands["tiny/search-seed1"], "--train.batch", "19"]}
    assert run.pending(changed, results) == changed
    (kept,) = runs.glob("tiny/search-seed0-*")
    assert not [*runs.glob("tiny/*-seed1-*")]
    saved = json.loads((results / "tiny" / "search-seed0.json").read_text())["result"]
    result = RunResult.load(kept)
    assert saved["matrix"][-1] == [round(task.test, 4) for task in result.tasks.values()]
    assert saved["parameters"] == result.parameters.total
    right = [each["right"] for each in saved["decisions"]]
    assert [len(right), sum(right)] == [result.decisions.scored, result.decisions.as_expected]
    table = report.report([stream], results)
    for title in ("**search**", "independent networks"):
        assert f"\n| {title} | 2 |" in table
    assert "t3 | top, probe of t1 |" in table
    assert table.count("p = ") == 2  # of two measures


def test_a_run_that_fails_is_recorded_and_trained_again(stream, tmp_path):
    name, words = "tiny/search-seed0", experiments.command(stream, "search", 0)
    wrong = [*words, "--train.batch", "9999"]
    assert "9999" in worker.train_and_record(name, wrong, tmp_path / "runs", tmp_path)
    saved = json.loads((tmp_path / f"{name}.json").read_text())
    assert "9999" in saved["failed"] and "result" not in saved
    assert run.pending({name: wrong}, tmp_path) == {name: wrong}


def test_the_tables_of_the_search_are_made_from_the_raw_results():
    assert with_table(run.README.read_text(), report.report()) == run.README.read_text()
