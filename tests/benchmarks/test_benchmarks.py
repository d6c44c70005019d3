"""Published tables are what their raw results say."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import beside, opening, shared, trials
from benchmarks.attach import run as attach
from benchmarks.claim import plans as claim_plans
from benchmarks.claim import run as claim_run
from benchmarks.claim import tables as claim
from benchmarks.continual import run as continual
from benchmarks.continual import tables as continual_tables
from benchmarks.quality import connectivity, text
from benchmarks.quality import run as quality
from benchmarks.quality import tables as quality_tables
from benchmarks.sequence import run as sequence
from benchmarks.shared import with_table
from benchmarks.speed import run as speed
from benchmarks.speed.tables import measurements, pick, tables
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import RunError
from thalnet_mtl.models.build import count_parameters
from thalnet_mtl.training.setup import make_network, make_tasks

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_quality_tables_are_made_from_the_raw_results():
    for readme, table in (
        (quality.README, quality_tables.report()),
        (opening.README, opening.table()),
    ):
        assert table.count("\n") >= 3
        assert with_table(readme.read_text(), table) == readme.read_text()


def test_the_nets_that_training_began_with_are_those_of_the_configs():
    kept = json.loads((quality.plans.RESULTS / "initial.json").read_text())
    made = connectivity.initial("paper/cifar10_thalnet", 7)
    for reader, sources in kept["cifar10"][7].items():
        assert made[reader] == pytest.approx(sources, abs=1e-5)


def test_alike_nets_are_told_from_others_by_hand():
    def net(a, b, c, d):
        names = ("input", "side1", "side2", "output")
        rows = ([a, b, b, a], [b, c, d, a], [b, d, c, a], [d, d, d, c])
        return {
            reader: dict(zip(names, row, strict=True))
            for reader, row in zip(names, rows, strict=True)
        }

    def swapped(net):
        turn = {"side1": "side2", "side2": "side1"}
        return {
            turn.get(r, r): {turn.get(s, s): x for s, x in row.items()} for r, row in net.items()
        }

    one, other = net(1.0, 2.0, 3.0, 5.0), net(4.0, 2.0, 1.0, 1.5)
    lopsided = {**one, "side1": dict.fromkeys(one, 1.0) | {"side2": 9.0}}
    assert connectivity.similarity(lopsided, swapped(lopsided)) == pytest.approx(1)
    assert connectivity.similarity(one, other) < 0.9
    louder = {r: {s: 7 * x for s, x in row.items()} for r, row in one.items()}
    assert connectivity.similarity(one, louder) == pytest.approx(1)
    even = {r: dict.fromkeys(one, 0.3) for r in one}
    assert connectivity.shares(even) == pytest.approx(np.ones((4, 4)))
    assert connectivity.shares(one)[0] == pytest.approx(np.array([1, 2, 2, 1]) / 2.5**0.5)
    # Two pairs of equal nets: 1 within, x across; half of all ways to pair them do as well.
    alike = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert connectivity.within(alike, [[0, 1], [2, 3]]) == 1
    assert connectivity.shuffled(alike, [[0, 1], [2, 3]]) == pytest.approx(1 / 3, abs=0.02)


def test_trials_are_as_many_for_each_and_within_the_budget():
    jobs = quality.plans.search()
    for task in quality.plans.TASKS:
        names = [name for name in jobs if name.startswith(task)]
        counts = [sum(f"_{body}-" in name for name in names) for body in ("gru", "thalnet")]
        assert counts == ([28, 28] if task == "cifar10" else [16, 16])
    assert len({" ".join(command) for command in jobs.values()}) == len(jobs)


def test_a_trial_is_chosen_on_validation_and_goes_on_with_other_seeds(tmp_path, monkeypatch):
    trial = quality.plans.search()["cifar10_gru-trial01"]
    elsewhere = " ".join(["thalnet train", *trial, "--train.precision tf32"])

    def record(validation, test):
        scores = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
        return {"command": elsewhere, "result": {"tasks": {"a": scores}}}

    (tmp_path / "search").mkdir()
    records = {"cifar10_gru-trial00": record(0.8, 0.9), "cifar10_gru-trial01": record(0.9, 0.7)}
    records["cifar10_gru-trial02"] = {"command": "thalnet train recipe.yaml", "failed": "diverged"}
    for name, content in records.items():
        (tmp_path / "search" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(quality.plans, "RESULTS", tmp_path)
    assert quality.plans.winners() == {("cifar10", "gru"): ["cifar10_gru-trial01"]}
    (job,) = quality.plans.best([4], ["--train.threads", "1"]).items()
    words = " ".join(trial).replace("--train.seed 100", "--train.seed 4")
    assert job == ("cifar10_gru-seed4", [*words.split(), "--train.threads", "1"])


def test_where_trials_tie_two_of_each_body_go_on_and_their_seeds_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(quality.plans, "RESULTS", tmp_path)
    monkeypatch.setattr(quality_tables, "RESULTS", tmp_path)

    def put(part, name, validation, test=0.5):
        scores = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
        scores["train"] = scores["test"]
        size = {"parameters": {"total": 10}}
        record = {"command": name, "result": {"tasks": {"a": scores}} | size}
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / f"{name}.json").write_text(json.dumps(record))

    for number, validation in enumerate((0.8, 0.9, 0.7, 0.9)):
        put("search", f"cifar10_thalnet-trial{number:02}", validation)
        put("search", f"cifar10_gru-trial{number:02}", validation + number / 100)
        put("search", f"permuted_mnist_gru-trial{number:02}", validation + number / 100)
    assert quality.plans.winners() == {
        ("cifar10", "gru"): ["cifar10_gru-trial03", "cifar10_gru-trial01"],
        ("cifar10", "thalnet"): ["cifar10_thalnet-trial01", "cifar10_thalnet-trial03"],
        ("permuted_mnist", "gru"): ["permuted_mnist_gru-trial03"],
    }
    names = ["cifar10_thalnet-seed0", "cifar10_thalnet-trial03-seed0"]
    assert [n for n in quality.plans.best([0]) if "thalnet" in n] == names
    for seed in range(6):
        put("best", f"cifar10_thalnet-seed{seed}", 0.8, 0.9)
        put("best", f"cifar10_thalnet-trial03-seed{seed}", 0.81, 0.6)
        put("best", f"cifar10_gru-seed{seed}", 0.8, 0.5)
    (pair,) = quality_tables.finalists().values()
    assert quality_tables.differences(pair) == pytest.approx([10] * 6)
    assert "| ThalNet, trial03 | 10 | 6 | 81.00 | 60.00 | 60.00 |" in quality_tables.best()
    again = quality.plans.confirm([9])
    assert [*again] == ["cifar10_gru-seed9", "cifar10_thalnet-seed9"]
    assert again["cifar10_thalnet-seed9"] == quality.plans.with_seed("cifar10_thalnet-trial03", 9)
    assert "Once more" not in quality_tables.best()
    for body, test in {"thalnet": 0.4, "gru": 0.5}.items():
        put("confirm", f"cifar10_{body}-seed8", 0.8, test)
        put("confirm", f"cifar10_{body}-seed9", 0.8, test)
    assert "| CIFAR-10 by rows | -10.00 | **undecided**: 2 pairs" in quality_tables.best()


def test_the_texts_sizes_are_those_of_the_configs():
    files = {"thalnet": "benchmarks/quality/text8.yaml", "gru": "paper/text8_gru"}
    for body, config in files.items():
        made = load_configs([config])[""]
        with torch.device("meta"):
            assert f"{count_parameters(make_network(made, make_tasks(made))):,}" == text.LARGE[body]


@pytest.mark.parametrize("trials", text.ROUNDS, ids=lambda trials: trials.name)
def test_texts_trials_are_as_many_for_each_at_the_same_rates(trials):
    jobs = trials.search()
    of_each = [[words for name, words in jobs.items() if name.startswith(b)] for b in text.BODIES]
    rates = [[w[w.index("--train.learning_rate") + 1] for w in words] for words in of_each]
    assert rates[0] == rates[1] and len(rates[0]) >= 8
    assert len({" ".join(words) for words in jobs.values()}) == 2 * len(rates[0])


def test_of_text_the_best_trial_goes_on_and_fewer_bits_are_better(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "RESULTS", tmp_path)
    first, trials = (
        text.Round(name, text.SHAPES, ("0.1", "0.2"), (5, 6)) for name in ("old", "new")
    )
    monkeypatch.setattr(text, "ROUNDS", [first, trials])

    def put(within, part, name, validation, test):
        splits = {"validation": validation, "test": test}
        record = scored(0.5, 0.5, validation) | {"command": name}
        record["result"]["tasks"] = {
            "text8": {split: {"bits_per_character": bits} for split, bits in splits.items()}
        }
        path = within.folder(part) / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record))

    for name in trials.search():  # the third has the best seed, the fourth the best mean
        _, k, seed = name.split("-")
        found = {("2", "seed5"): 1.0}.get((k, seed), 2.0 if k == "3" else 4.0)
        put(trials, "search", name, found, found)
    assert [*trials.best([7])] == ["thalnet-seed7", "gru-seed7"]
    assert trials.best([7])["gru-seed7"] == [
        *("benchmarks/quality/text.yaml", "--model.body", "gru", "--train.seed", "7"),
        *("--model.layers", "2", "--train.learning_rate", "0.2"),
    ]
    assert text.compared() == []
    assert "| GRU | 0 | – | – | – |" in text.small()
    for seed in range(6):
        put(first, "best", f"gru-seed{seed}", 2.5 + seed / 8, 2.5 + seed / 8)
        put(trials, "best", f"thalnet-seed{seed}", 1.5 + seed / 8, 1.5 + seed / 8)
        put(trials, "best", f"gru-seed{seed}", 3, 0.1)  # worse on validation: not the one
        put(first, "best", f"thalnet-seed{seed % 5}", 0.1, 0.1)  # five only: not compared
    put(trials, "best", "thalnet-seed6", 1, 1)  # without its pair
    assert text.compared()[2:] == ["6", "-1.000", "**better**: 6 pairs, p = 0.03125."]
    assert text.small().endswith("| 6 | -1.000 | **better**: 6 pairs, p = 0.03125. |")
    assert "| ThalNet of round 2, test, bits | GRU of round 1, test, bits |" in text.small()
    assert "| GRU | 2 layers | 0.2 | 2 | 10 | 2.000 | 2.000 |" in text.small()


def test_the_tables_of_the_claim_are_made_from_the_raw_results():
    table = claim.report()
    assert table.count("\n") > 10
    assert with_table(claim_run.README.read_text(), table) == claim_run.README.read_text()


def scored(mnist, cifar, text, **more):
    """A record of those test scores."""
    values = zip(claim.TASKS, (mnist, cifar, text), strict=True)
    tasks = {t: {"test": {claim.metric_of(t).name: x}} for t, x in values}
    return {"command": f"{mnist}", "result": {"tasks": tasks, "parameters": {"total": 10}}} | more


def test_gains_are_paired_by_seed_and_point_up():
    alone = {0: scored(0.5, 0.4, 2.0), 1: scored(0.8, 0.5, 4.0), 2: {"failed": "exit status 1"}}
    found = {
        f"alone_{task}_gru": {seed: record | {"command": task} for seed, record in alone.items()}
        for task in claim.TASKS
    }
    found["weighted_gru"] = {k: scored(0.6, 0.4, 1.5) for k in range(4)}
    expected = {"permuted_mnist": 20, "cifar10_rows": 0, "text8": 25}
    lower = {"permuted_mnist": -25, "cifar10_rows": -20, "text8": 62.5}
    assert claim.gains(found, "gru", "weighted", "gru") == {
        0: pytest.approx(expected),
        1: pytest.approx(lower),
    }
    assert claim.scores(found)[2:] == [
        "| GRU | one each, a third | 30 | 2 (3 failed) | "
        "65.00 [50.00, 80.00] | 45.00 [40.00, 50.00] | 3.000 [2.000, 4.000] |",
        "| GRU | jointly, fixed weights | 10 | 4 | 60.00 | 40.00 | 1.500 |",
    ]
    assert claim.changes(found)[2].endswith(
        "-2.50 [-25.00, 20.00] | -10.00 [-20.00, 0.00] | 43.75 [25.00, 62.50] "
        "| **10.42 [5.83, 15.00]** |"
    )
    (said,) = claim.verdicts(found)[2:]
    assert "| GRU, jointly, fixed weights | GRU, one each, a third | GRU | 10.42" in said
    assert "**undecided**: 2 pairs cannot go below" in said


def test_nets_for_one_task_are_told_apart_task_by_task_and_fewer_bits_are_better():
    runs = {"thalnet": (0.5, 0.75, 3.0), "gru": (0.6, 0.5, 2.0)}
    found = {
        f"alone_{task}_{body}": {seed: scored(*scores) for seed in range(8)}
        for task in claim.TASKS
        for body, scores in runs.items()
    }
    assert [line.partition(": 8 pairs")[0] for line in claim.apart(found)[2:]] == [
        "| permuted MNIST, % | 8 | -10.00 | **worse**",
        "| CIFAR-10 by rows, % | 8 | 25.00 | **better**",
        "| text8, first 74 MB, bits | 8 | 1.000 | **worse**",
    ]


def test_the_opening_has_rows_of_the_claim_once_both_networks_have_run(monkeypatch):
    names = {f"alone_{task}_{body}": body for task in claim.TASKS for body in claim.BODIES}
    own = {"thalnet": scored(0.1, 0.1, 4.0), "gru": scored(0.5, 0.5, 2.0)}
    found = {name: dict[int, dict]() for name in names}
    monkeypatch.setattr(claim, "by_seed", lambda folder: found)
    assert opening.of_the_claim() == []
    found |= {name: {0: own[body]} for name, body in names.items()}
    found["weighted_thalnet"] = {0: scored(0.6, 0.5, 2.0)}
    alone = "| text8, best of four rates, bits | 4.000 | 2.000 | 1 | 2.000 | **undecided** "
    assert opening.of_the_claim() == [f"{alone}| `claim.run --tune --seeds {{0..0}}` |"]
    found["weighted_gru"] = {0: scored(0.5, 0.5, 1.4)}
    assert opening.of_the_claim()[1:] == [
        "| one net for three tasks, Δm over three GRUs, % | 6.67 | 10.00 | 1 | -3.33 "
        "| **undecided** | `claim.run --tune --seeds {0..0}` |"
    ]


def test_later_seeds_are_for_joint_against_single_thalnets(monkeypatch):
    monkeypatch.setattr(claim_plans, "settings", lambda *_: [])
    monkeypatch.setattr(claim_plans, "chosen", lambda *_: {})
    made = claim_plans.jobs([7, 8])
    assert sum(name.endswith("-seed7") for name in made) == 2 * (3 + 1 + 1) + 3
    alone = {f"{way}_{task}_thalnet-seed8" for task in claim.TASKS for way in ("alone", "wide")}
    assert {name for name in made if name.endswith("-seed8")} == {"weighted_thalnet-seed8", *alone}
    assert claim.parts_of({"a": {7: {}, 8: {}}, "b": {7: {}}}) == (
        {"a": {7: {}}, "b": {7: {}}},
        {"a": {8: {}}, "b": {}},
    )


def test_what_a_task_loses_without_a_module_points_up():
    without = {"trunk": dict(zip(claim.TASKS, (0.7, 0.5, 3.5), strict=True)), "eye": {"text8": 2.0}}
    found = {"weighted_thalnet": {k: scored(0.9, 0.5, 2.5, lesions=without) for k in range(2)}}
    assert claim.silenced(found) == [
        "| silent module, 2 seeds | permuted MNIST loses | CIFAR-10 by rows loses | text8 loses |",
        "|---|---|---|---|",
        "| trunk | 20.00 | 0.00 | 1.000 |",
        "| eye |  |  | -0.500 |",
    ]


def test_commands_that_differ_by_seed_alone_are_one():
    words = ["thalnet train a --train.seed 0", "thalnet train a --train.seed 1 --x 2"]
    words += ["thalnet train a --train.seed 12", *words]
    assert shared.commands({"command": one} for one in words).splitlines()[3:-3] == [
        "thalnet train a --train.seed SEED",
        "thalnet train a --train.seed 1 --x 2",
    ]


def test_a_trial_is_chosen_on_validation_alone(tmp_path):
    for number, (seen, tested) in enumerate([(0.5, 0.9), (0.7, 0.2), (0.6, 0.3)]):
        scores = {"metric": "accuracy"} | {
            split: {"accuracy": x} for split, x in (("validation", seen), ("test", tested))
        }
        record = {"result": {"tasks": {"cifar10_rows": scores}}}
        (tmp_path / f"trial_a-{number}.json").write_text(json.dumps(record))
    (tmp_path / "trial_a-3.json").write_text(json.dumps({"failed": "diverged"}))
    settings = [{"x": str(k)} for k in range(4)]
    assert trials.chosen(tmp_path, "a", settings) == {"x": "1"}
    with pytest.raises(SystemExit, match="no trial of b has succeeded"):
        trials.chosen(tmp_path, "b", settings)


def test_weights_and_aggregators_are_tried_at_the_rate_that_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_plans, "RESULTS", tmp_path)
    assert claim_plans.settings("gru", "weighted") == claim_plans.JOINT_RATES
    assert claim_plans.settings("gru", "aggregated") == []
    for number, seen in enumerate([0.6, 0.7, 0.9]):
        scores = {"metric": "accuracy", "validation": {"accuracy": seen}}
        record = {"result": {"tasks": {"cifar10_rows": scores}}}
        (tmp_path / f"trial_weighted_gru-{number}.json").write_text(json.dumps(record))
    rate = {"train.learning_rate": "0.006"}  # trial 2 is at this rate itself
    assert claim_plans.settings("gru", "weighted")[2] == rate | {"tasks.cifar10_rows.weight": "3"}
    assert claim_plans.settings("gru", "aggregated")[0] == rate | {"train.combine": "upgrad"}
    assert claim_plans.settings("thalnet", "aggregated") == []
    words = claim_plans.tried()["trial_aggregated_gru-3"]
    assert words[-4:] == ["--train.learning_rate", "0.006", "--train.combine", "aligned_mtl"]


def test_a_trial_has_the_seed_and_the_words_of_what_is_tried():
    made = trials.trials("a", [{"x": "1"}, {}], lambda seed, f: [f"{seed}", *trials.words(f)])
    assert made == {"trial_a-0": ["102", "--x", "1"], "trial_a-1": ["102"]}


def test_the_level_of_a_run_is_between_guessing_and_perfection():
    tasks = {
        "cifar10_rows": {"metric": "accuracy", "validation": {"accuracy": 0.55}},
        "text8": {"metric": "bits_per_character", "validation": {"bits_per_character": 2.0}},
    }
    assert trials.levels({"result": {"tasks": tasks}}) == pytest.approx([0.5, 0.75])


def test_the_continual_tables_are_made_from_the_raw_results():
    table = continual_tables.report()
    assert table.count("\n") > 40
    assert with_table(continual.README.read_text(), table) == continual.README.read_text()


def test_the_table_of_attaching_is_made_from_the_raw_results():
    table = attach.table()
    assert table.count("\n") > 8
    assert with_table(attach.README.read_text(), table) == attach.README.read_text()


def test_the_tables_of_the_sequence_are_made_from_the_raw_results():
    table = sequence.table()
    assert with_table(sequence.README.read_text(), table) == sequence.README.read_text()


def test_what_a_sequence_forgets_and_gains_is_worked_by_hand():
    names = [*sequence.TASKS]
    scores = [[0.1, 0.1, 8.0], [0.9, 0.1, 8.0], [0.7, 0.55, 8.0], [0.6, 0.4, 3.0]]
    forgot = {"permuted_mnist": 0.3, "cifar10_rows": 0.15}
    ends = zip(names, scores[-1], strict=True)
    record = {
        "result": {
            "tasks": {
                name: {"test": {sequence.metric_of(name).name: score}} for name, score in ends
            },
            "continual": {
                "trained": [[name] for name in names],
                "scores": scores,
                "measures": {"forgetting": {"values": forgot}},
            },
        }
    }
    alone = {"permuted_mnist": 0.8, "cifar10_rows": 0.5, "text8": 4.0}
    assert sequence.on_the_way(record, alone) == pytest.approx(
        {"image forgetting": 22.5, "image transfer": 5, "text transfer": 1.0}
    )

    def single(name, validation, score):
        metric = sequence.metric_of(name).name
        of = {"metric": metric, "validation": {metric: validation}, "test": {metric: score}}
        return {3: {"result": {"tasks": {name: of}}}}

    found = {"never": {3: record}}
    for name, score in alone.items():
        better, worse = (3.0, 5.0) if name == "text8" else (0.7, 0.2)
        found[f"single_{name}_at_0.1"] = single(name, worse, 0.123)
        found[f"single_{name}_at_0.01"] = single(name, better, score)
    # −25 %, −20 %, and a quarter fewer bits.
    assert sequence.gained(found, "never") == pytest.approx({3: -20 / 3})


def test_what_a_method_does_on_the_way_is_worked_by_hand():
    def task(test, untrained):
        return {"test": {"accuracy": test}, "untrained": {"accuracy": untrained}}

    record = {
        "result": {
            "tasks": {"a": task(0.6, 0.1), "b": task(0.8, 0.2)},
            "continual": {
                "trained": [["a"], ["b"]],
                "ends": [300, 600],
                "scores": [[0.1, 0.2], [0.9, 0.2], [0.6, 0.8]],
            },
        },
        "curves": {
            "a": {
                "validation_step": [100, 300, 400, 600],
                "validation_accuracy": [0.5, 0.9, 0.4, 0.6],
            },
            "b": {
                "validation_step": [100, 300, 400, 600],
                "validation_accuracy": [0.9, 0.9, 0.3, 0.8],
            },
        },
    }
    assert continual_tables.lowest(record) == 0.4  # of a, in the second experience
    # 0.9 · 0.9 is reached by a after 300 steps; b was better before its time, and never in it.
    assert continual_tables.steps(record, {"a": 0.9, "b": 0.95}) == 300
    assert continual_tables.steps(record, {"a": 0.5, "b": 0.3}) == 100
    skilled, gain = continual_tables.against(record, {"a": 0.6, "b": 0.5})
    assert skilled == pytest.approx((1 + 2) / 2)
    assert gain == pytest.approx((0 + 0.6) / 2)
    assert continual_tables.against(record, {"a": 0.6}) == (None, None)
    assert (
        continual_tables.percent([0.5, None]) == "50.00" and continual_tables.percent([0]) == "0.0"
    )
    assert continual_tables.number([]) == continual_tables.number([None]) == "–"


@pytest.mark.parametrize(
    ("benchmark", "budget"),
    [
        ("quality", 50_000),
        ("claim", 150_000),
        ("continual", 50_000),
        ("attach", 50_000),
        ("sequence", 150_000),
    ],
)
def test_every_published_run_says_where_it_comes_from(benchmark, budget):
    results = BENCHMARKS / benchmark / "results"
    paths = [path for path in results.rglob("*.json") if path.name != "initial.json"]
    assert paths
    for path in paths:
        record = json.loads(path.read_text())
        assert record["command"].startswith("thalnet train ")
        if "failed" in record:
            continue
        about = record["environment"]
        assert len(about["commit"]) == 40, f"{path.name}: trained from changed files"
        assert about["data"] and about["packages"]["torch"] and about["processor"]
        part, size = path.parent.name, record["result"]["parameters"]["total"]
        small = 1_000_000 if part in text.PARTS else budget
        assert size <= (14_100_000 if part == "text8" else small)


def test_the_speed_table_is_made_from_the_raw_results():
    readme = BENCHMARKS / "speed" / "README.md"
    table = tables(BENCHMARKS / "speed" / "results")
    assert table.count("\n") > 20
    assert with_table(readme.read_text(), table) == readme.read_text()


def test_the_first_readme_tells_the_measured_speed():
    found = [m for m in measurements(BENCHMARKS / "speed" / "results") if m["device"] == "cpu"]
    ratios = [
        pick(found, config, "cpp", threads)["ratio_to_gru"]
        for config in ("mnist50", "mnist256", "cifar50", "text8")
        for threads in {m["threads"] for m in found}
    ]
    told = f"{min(ratios):.2f} to {max(ratios):.2f} times on a CPU"
    assert told in (BENCHMARKS.parent / "README.md").read_text(), told


def test_a_speed_measurement_says_what_was_measured(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(speed, "add_memory", lambda found: None)
    threads = torch.get_num_threads()
    given = ["run", "--configs", "mnist50", "--paths", "cpp", "--rounds", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", given)
    try:
        speed.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())["measurements"]
    assert {m["path"] for m in found} == {"gru4", "gru1", "lstm4", "cpp"}
    for m in found:
        assert m["seconds"] > 0 and m["device"] == "cpu" and m["precision"] == "fp32"
        assert m["ratio_to_gru"] == pytest.approx(m["seconds"] / m["baseline_seconds"])
        assert abs(m["parameters"] / 46_852 - 1) < 0.03
    assert len(capsys.readouterr().out.splitlines()) == len(found)


def test_runs_side_by_side_are_recorded_whether_they_succeed_or_not(tmp_path, monkeypatch, capsys):
    def together(found, screen):
        """The first of a group fails."""
        for number, (folder, config) in enumerate(found.items()):
            assert config.train.seed == int(folder.name[-1])
            folder.mkdir(parents=True)
            if number:
                (folder / "result.json").write_text(json.dumps({"seed": config.train.seed}))
                (folder / "environment.json").write_text("{}")
                (folder / "metrics.jsonl").write_text("")
        raise RunError("1 of them failed.")

    jobs = {f"run{k}": ["digits", "--train.seed", str(k)] for k in range(3)}
    monkeypatch.setattr(beside, "WIDTH", 2)
    monkeypatch.setattr(beside, "train_stacked", together)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(jobs)))
    monkeypatch.setattr("sys.argv", ["beside", str(tmp_path / "runs"), str(tmp_path / "results")])
    beside.main()
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert {name: "failed" in record for name, record in kept.items()} == {
        "run0": True, "run1": False, "run2": True,
    }  # fmt: skip
    assert kept["run0"]["failed"] == kept["run2"]["failed"] == "1 of them failed."
    assert kept["run1"]["result"] == {"seed": 1}
    assert kept["run1"]["command"] == "thalnet train digits --train.seed 1"
    assert not shared.done(tmp_path / "results" / "run0.json")
    assert shared.done(tmp_path / "results" / "run1.json")
