"""A search for settings: equal trials, the choice on validation, winners with new seeds."""

import json
import shutil
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import torch
from filelock import FileLock
from sweep_fixtures import InProcessWorkers
from toy_tasks import TOY, toy_rows

from thalnet_mtl import cli
from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import METRICS
from thalnet_mtl.registry import registered
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.sweep import tuning, workers
from thalnet_mtl.sweep.arms import describe_fields, make_arms
from thalnet_mtl.sweep.devices import Slots
from thalnet_mtl.sweep.jobs import LOG
from thalnet_mtl.sweep.plan import parse, plan
from thalnet_mtl.sweep.sampler import FinishedTrial, random_values, tpe_values
from thalnet_mtl.sweep.space import Distribution, parse_samples
from thalnet_mtl.sweep.trials import ArmRecord, Trial

RATE = "train.learning_rate=log:1e-4,1e-1"
SMALL = [*TOY, "--train.optimizer=adam", "--train.steps=4"]
SMALL.remove("--train.steps=20")
STREAM = ["s.yaml", "debug", "--model.features=6", "--model.modules=2", "--train.optimizer=adam"]


def search(capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["sweep", *map(str, words)])
    output = capsys.readouterr()
    return status, output.out, output.err


def record(folder: str = "s") -> dict:
    return json.loads(Path(folder, "tuning.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[list[str], dict]:
    """A command, and the record of it where nothing has ended it early."""
    words = [*SMALL, "--sample", RATE, "train.batch=log:8,64", "--trials", "2", "--confirm", "1"]
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(workers, "make_workers", lambda *options: InProcessWorkers())
        assert cli.main(["sweep", *words, "--out", "s"]) == 0
        return [*words, "--out", "s"], record()


def write_stream(*tasks: str, file: str = "s.yaml") -> None:
    """A stream of one experience for each task."""
    names = {chr(97 + k): {"name": task} for k, task in enumerate(tasks)}
    stream = [{"tasks": [name], "steps": 3} for name in names]
    Path(file).write_text(json.dumps({"tasks": names, "stream": stream}))


def test_the_best_score_wins_the_first_of_equals_and_never_a_failed_trial():
    scores = [0.5, None, 0.75, 0.75, None, 0.625]
    trials = [Trial(k, {}, [], "done", score) for k, score in enumerate(scores)]
    up = ArmRecord("", {}, {}, trials, METRICS["accuracy"])
    assert up.best(6).number == 2 and up.best(2).number == 0
    down = ArmRecord("", {}, {}, trials, METRICS["bits_per_character"])
    assert down.best(6).number == 0
    assert ArmRecord("", {}, {}, trials[1:2]).best(6) is None


def test_all_arms_get_the_same_trials_and_the_choice_is_on_validation(capsys, trained):
    words = [*SMALL, "--grid", "model.body=gru,thalnet", "--trials", "3", "--sample", RATE]
    words += ["model.layers=1,2", "--confirm", "2", "--out", "s", "--tuning-seed", "5"]
    status, out, _ = search(capsys, *words)
    assert status == 0
    gru, thalnet = (record()["arms"][f"body={body}"] for body in ("gru", "thalnet"))
    space = {"train.learning_rate": Distribution("log", (1e-4, 1e-1)),
             "model.layers": Distribution("values", (1, 2))}  # fmt: skip
    drawn = [random_values(space, 5, number) for number in range(3)]
    assert [trial["values"] for trial in gru["trials"]] == drawn
    rates = [{"train.learning_rate": values["train.learning_rate"]} for values in drawn]
    assert [trial["values"] for trial in thalnet["trials"]] == rates
    [reason] = thalnet["left_out"].values()
    assert "only a baseline" in reason or "thalnet" in reason
    assert f"note: model.layers is not sampled for body=thalnet: {reason}" in " ".join(out.split())
    for name, arm in record()["arms"].items():
        results = [RunResult.load(f"s/trials/{t['runs'][0]}") for t in arm["trials"]]
        scores = [result.tasks["toy_rows"].validation for result in results]
        assert [trial["score"] for trial in arm["trials"]] == scores
        assert arm["winner"] == scores.index(max(scores))
        best = arm["trials"][arm["winner"]]["values"]
        for seed in (1, 2):  # as the trials have seed 0
            config = load_run_config(Path(f"s/winners/{name}-trial{arm['winner']:02}-seed{seed}"))
            assert config.train.seed == seed
            assert config.train.learning_rate == best["train.learning_rate"]
        assert f"{name}" in out and f"trial {arm['winner']}" in out
    assert len(trained) == 6 + 4 and record()["command"] == ["thalnet", "sweep", *words]


def test_the_same_command_repeats_nothing_and_more_trials_and_seeds_add_to_it(capsys, trained):
    words = [*SMALL, "--sample", RATE, "--out", "s"]
    assert search(capsys, *words, "--trials", "2", "--confirm", "1")[0] == 0
    first = record()
    assert search(capsys, *words, "--trials", "2", "--confirm", "1")[0] == 0
    assert record() | {"command": []} == first | {"command": []} and len(trained) == 3
    assert search(capsys, *words, "--trials", "4", "--confirm", "2")[0] == 0
    again = record()["arms"][""]
    assert again["trials"][:2] == first["arms"][""]["trials"] and len(again["trials"]) == 4
    same_winner = again["winner"] == first["arms"][""]["winner"]
    assert len(trained) == 3 + 2 + (1 if same_winner else 2)
    assert trained[:2] == ["trial00-seed0", "trial01-seed0"]
    status, _, err = search(capsys, *words, "--trials", "3")
    assert status == 2 and "s holds 4 trials of an arm; give --trials 4 or more" in err


def test_runs_of_a_winner_that_is_surpassed_leave_the_folder_of_winners(capsys, trained):
    words = [*SMALL, "--sample", "train.learning_rate=1e-9,0.02", "--out", "s", "--tuning-seed"]
    seed = next(s for s in range(99) if _rates(s) == [1e-9, 0.02])
    words += [str(seed), "--train.steps=60"]
    words.remove("--train.steps=4")
    assert search(capsys, *words, "--trials", "1", "--confirm", "1")[0] == 0
    assert search(capsys, *words, "--trials", "2")[0] == 0
    assert [path.name for path in Path("s/winners").iterdir()] == ["sweep.json"]
    assert json.loads(Path("s/winners/sweep.json").read_text())["runs"] == {}
    assert [path.name for path in Path("s/former_winners").iterdir()] == ["trial00-seed1"]
    assert search(capsys, *words, "--trials", "2", "--confirm", "1")[0] == 0
    assert [path.name for path in Path("s/winners").glob("*-seed*")] == ["trial01-seed1"]
    assert list(json.loads(Path("s/winners/sweep.json").read_text())["runs"]) == ["trial01-seed1"]


def _rates(seed: int) -> list[float]:
    space = {"train.learning_rate": Distribution("values", (1e-9, 0.02))}
    return [random_values(space, seed, k)["train.learning_rate"] for k in range(2)]


def test_a_diverged_trial_counts_is_recorded_never_wins_and_is_not_repeated(capsys, trained):
    words = [*SMALL, "--sample", "train.learning_rate=0.01,1e30", "--trials", "4", "--out", "s"]
    status, out, _ = search(capsys, *words, "--seeds", "3")
    trials = record()["arms"][""]["trials"]
    rates = [trial["values"]["train.learning_rate"] for trial in trials]
    assert status == 0 and set(rates) == {0.01, 1e30} and len(trained) == 2
    for rate, trial in zip(rates, trials, strict=True):
        assert trial["status"] == ("done" if rate == 0.01 else "failed")
        assert (trial["score"] is None) == (rate == 1e30)
        assert trial["runs"] == trials[rates.index(rate)]["runs"]  # equal trials share their run
    assert record()["arms"][""]["winner"] == rates.index(0.01)
    assert f"4, {rates.count(1e30)} failed" in out and "training has diverged" in out
    assert "tries again" not in out
    assert search(capsys, *words, "--seeds", "3")[0] == 0 and len(trained) == 2


def test_without_any_score_there_is_no_winner_and_the_status_says_so(capsys, trained):
    words = [*SMALL, "--sample", "train.learning_rate=1e29,1e30", "--trials", "2", "--confirm", "2"]
    status, out, _ = search(capsys, *words, "--out", "s")
    assert status == 1 and "no trial has a score" in out
    assert record()["arms"][""]["winner"] is None and len(trained) <= 2


@pytest.mark.parametrize("writes", [1, 2, 4, 5, 7])
def test_a_search_killed_at_any_time_goes_on_with_the_same_trials(
    capsys, trained, whole, monkeypatch, writes
):
    words, expected = whole
    write, count = tuning.Tuning.write, 0

    def killed(self):
        nonlocal count
        count += 1
        if count == writes:
            raise SystemExit(9)
        write(self)

    monkeypatch.setattr(tuning.Tuning, "write", killed)
    with pytest.raises(SystemExit):
        search(capsys, *words)
    monkeypatch.setattr(tuning.Tuning, "write", write)
    assert search(capsys, *words)[0] == 0
    found = record()
    for name in ("arms", "space", "seeds"):
        assert found[name] == expected[name]
    for name in ("trial_runs", "winner_runs"):
        statuses = {run: entry["status"] for run, entry in found[name].items()}
        assert statuses == {run: "done" for run in expected[name]}
    assert sorted(trained) == sorted([*expected["trial_runs"], *expected["winner_runs"]])


def test_a_field_of_one_arm_alone_and_a_distribution_of_its_own(capsys, trained):
    write_stream("toy_rows", "toy_turned", "toy_rows")
    words = [*STREAM, "--grid", "train.strategy=naive,ewc,si", "--trials", "2", "--out", "s"]
    words += ["--sample", "strategy.strength=log:1,10", "si:strategy.strength=log:100,1000"]
    status, out, _ = search(capsys, *words)
    assert status == 0
    naive, ewc, si = record()["arms"].values()
    assert [trial["values"] for trial in naive["trials"]] == [{}, {}]
    assert naive["trials"][0]["runs"] == naive["trials"][1]["runs"] and len(trained) == 1 + 2 + 2
    for first, second in zip(ewc["trials"], si["trials"], strict=True):
        [low], [high] = first["values"].values(), second["values"].values()
        assert 1 <= low <= 10 and high == pytest.approx(100 * low, rel=1e-3)
    shown = " ".join(out.split())
    assert "strategy.strength is not sampled for strategy=naive: strategy 'naive' has no" in shown
    assert "strategy=naive has none of the sampled fields: its trials are all the same run" in shown


def test_arms_are_runs_and_values_of_the_grid_and_may_have_their_own_distribution():
    bases = {"a": Config(), "b": Config()}
    words = ["train.strategy=ewc,si,naive", "growth.when=never"]
    samples = parse_samples(["strategy.strength=log:1,10", "b:train.clip=0,1", "train.clip=2,3"])
    planned = plan(bases, parse(words), [], {})
    arms = make_arms(bases, planned, samples, {}, lambda config, key: "")
    assert [arm.name for arm in arms[:3]] == [
        f"a-strategy={name},when=never" for name in ("ewc", "si", "naive")
    ]
    clips = {arm.run: arm.space["train.clip"].values for arm in arms}
    assert clips == {"a": (2.0, 3.0), "b": (0.0, 1.0)}
    assert [("strategy.strength" in arm.space) for arm in arms] == [True, True, False] * 2
    alike, left_out = describe_fields(arms)
    assert alike == (
        "strategy.strength is sampled alike for ewc, si; for another distribution in one of them, "
        "write --sample si:strategy.strength=…"
    )
    assert left_out.startswith("strategy.strength is not sampled for a-strategy=naive,when=never, ")
    samples = parse_samples(["strategy.strength=log:1,10", "si:strategy.strength=log:1,20"])
    arms = make_arms(bases, planned, samples, {}, lambda config, key: "")
    assert not any("alike" in line for line in describe_fields(arms))
    with pytest.raises(UserError, match="are both for the arm"):
        both = parse_samples(["si:train.clip=0,1", "never:train.clip=0,1"])
        make_arms(bases, planned, both, {}, lambda config, key: "")


def test_an_option_is_sampled_where_the_sampled_strategy_has_it(capsys, trained):
    write_stream("toy_rows", "toy_turned", "toy_rows")
    words = [*STREAM, "--trials", "4", "--out", "s", "--sample", "train.strategy=naive,ewc"]
    assert search(capsys, *words, "strategy.strength=log:1,10")[0] == 0
    values = [trial["values"] for trial in record()["arms"][""]["trials"]]
    assert {len(point) for point in values} == {1, 2}
    for point in values:
        assert ("strategy.strength" in point) == (point["train.strategy"] == "ewc")


def test_trials_of_a_stream_train_its_first_experiences_and_winners_all_of_it(capsys, trained):
    write_stream("toy_rows", "toy_turned", "toy_rows", "toy_turned")
    words = [*STREAM, "--sample", RATE, "--trials", "1", "--confirm", "1"]
    for more, count in (([], 2), (["--tune-on", "all"], 4)):
        status, out, _ = search(capsys, *words, *more, "--out", f"s{count}")
        shown = " ".join(out.split())
        assert status == 0
        config = load_run_config(Path(f"s{count}/trials/trial00-seed0"))
        assert (len(config.stream), list(config.tasks)) == (count, list("abcd")[:count])
        winner = load_run_config(Path(f"s{count}/winners/trial00-seed1"))
        assert len(winner.stream) == 4
        loud = "WARNING: trials train on ALL 4 experiences" in shown
        assert loud == (count == 4)
        assert (f"trials train and validate on experiences 1 to {count} of 4" in shown) != loud
        result = RunResult.load(f"s{count}/trials/trial00-seed0")
        mean = sum(task.validation for task in result.tasks.values()) / count
        assert record(f"s{count}")["arms"][""]["trials"][0]["score"] == pytest.approx(mean)


def test_data_of_later_tasks_have_no_part_in_the_choice(capsys, trained):
    def noise(seed: int):
        def late():
            task = toy_rows()
            generator = torch.Generator().manual_seed(seed)
            splits = {
                name: (xs, torch.randint(3, ys.shape, generator=generator))
                for name, (xs, ys) in task.read_splits().items()
            }
            return type(task)("late", splits, task.spec, scale=255)

        return late

    write_stream("toy_rows", "toy_turned", "late", "late")
    words = [*STREAM, "--sample", RATE, "--trials", "2"]
    for seed in (0, 1):
        with registered("task", {"late": noise(seed)}):
            assert search(capsys, *words, "--out", f"s{seed}", "--confirm", "1")[0] == 0
    assert record("s0")["arms"] == record("s1")["arms"]
    first, second = (RunResult.load(next(Path(f"s{k}/winners").glob("*-seed1"))) for k in (0, 1))
    assert first.tasks["a"].test == second.tasks["a"].test or first != second
    assert first.tasks["c"].scores["test"] != second.tasks["c"].scores["test"]  # they did change


def test_tpe_gives_the_same_next_trial_again_and_looks_at_scores():
    pytest.importorskip("optuna")
    space = {
        "train.learning_rate": Distribution("log", (1e-4, 1e-1)),
        "model.modules": Distribution("int", (2, 5), whole=True),
        "model.reading": Distribution("values", ("linear", "random")),
    }

    def score(values) -> float:
        best = values["train.learning_rate"] / 0.01
        return -max(best, 1 / best) - values["model.modules"]

    def trials(count: int, maximize: bool = True) -> list[dict]:
        history: list[FinishedTrial] = []
        for number in range(count):
            values = tpe_values(space, 0, number, history, maximize)
            sign = 1 if maximize else -1
            history.append(FinishedTrial(values, None if number == 3 else sign * score(values)))
        return [dict(trial.values) for trial in history]

    first = trials(30)
    assert first == trials(30) == trials(30, maximize=False)
    assert first[:10] == [random_values(space, 0, number) for number in range(10)]
    later = [score(values) for values in first[15:]]
    others = [score(random_values(space, 0, number)) for number in range(15, 30)]
    assert sum(later) / 15 > sum(others) / 15  # better than random ones
    for values in first:
        assert 1e-4 <= values["train.learning_rate"] <= 1e-1
        assert values["train.learning_rate"] == float(f"{values['train.learning_rate']:.4g}")
        assert values["model.modules"] in range(2, 6)


def test_tpe_resumes_with_the_same_trials(capsys, trained, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr("thalnet_mtl.sweep.sampler.STARTUP", 2)
    words = [*SMALL, "--sample", RATE, "--sampler", "tpe", "--out"]
    assert search(capsys, *words, "s", "--trials", "4")[0] == 0
    assert search(capsys, *words, "t", "--trials", "3")[0] == 0
    assert search(capsys, *words, "t", "--trials", "4")[0] == 0
    assert record("s")["arms"] == record("t")["arms"] and len(trained) == 8
    status, _, err = search(capsys, *SMALL, "--sample", RATE, "--trials", "4", "--out", "s")
    assert status == 2 and "s holds a tuning with another sampler, tpe, not random" in err


def test_tpe_asks_for_as_many_trials_at_a_time_as_were_recorded(capsys, trained, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr("thalnet_mtl.sweep.sampler.STARTUP", 1)
    asked: list[tuple[int, int]] = []

    def suggest(space, seed, number, finished, maximize):
        asked.append((number, len(finished)))
        return tpe_values(space, seed, number, finished, maximize)

    monkeypatch.setattr("thalnet_mtl.sweep.trials.tpe_values", suggest)
    words = [*SMALL, "--sample", RATE, "--sampler", "tpe", "--out"]
    workers.make_workers().slots = Slots(2)
    assert search(capsys, *words, "s", "--trials", "4")[0] == 0
    assert asked == [(0, 0), (1, 0), (2, 2), (3, 2)]
    assert search(capsys, *words, "t", "--trials", "3")[0] == 0
    workers.make_workers().slots = Slots(1)  # with --jobs 1
    assert search(capsys, *words, "t", "--trials", "4")[0] == 0
    assert asked[-1] == (3, 2) and record("s")["arms"] == record("t")["arms"]


def test_what_failed_for_another_reason_is_said_and_tried_again(capsys, trained, monkeypatch):
    words = [*SMALL, "--sample", "train.clip=0,1", "--trials", "1", "--out", "s"]
    submit, broken = InProcessWorkers.submit, True

    def submit_or_fail(self, job):
        if broken:
            (job.folder / LOG).write_text("No space left on device\n")
            self._ends.append(workers.ProcessResult(job.name, 1, 1.0))
        else:
            submit(self, job)

    monkeypatch.setattr(InProcessWorkers, "submit", submit_or_fail)
    status, out, _ = search(capsys, *words)
    assert status == 1 and "the same command tries again what has not diverged:" in out
    assert "trial00-seed0 failed: exit status 1, No space left on device" in out
    assert record()["arms"][""]["trials"][0]["status"] == "failed"
    broken = False
    status, out, _ = search(capsys, *words)
    assert status == 0 and "tries again" not in out
    assert record()["arms"][""]["winner"] == 0


def test_a_table_says_which_runs_of_the_winners_are_missing(capsys, trained, monkeypatch):
    words = [*SMALL, "--sample", "train.clip=0,1", "--trials", "1", "--confirm", "3", "--out", "s"]
    submit = InProcessWorkers.submit

    def submit_first(self, job):
        if job.name == "trial00-seed2":
            self._ends.append(workers.ProcessResult(job.name, None, 1.0, "the node is gone"))
        elif job.name == "trial00-seed3":
            raise SystemExit(9)
        else:
            submit(self, job)

    monkeypatch.setattr(InProcessWorkers, "submit", submit_first)
    with pytest.raises(SystemExit):
        search(capsys, *words)
    shutil.rmtree("s/winners/trial00-seed3")  # killed before it had a folder
    capsys.readouterr()
    assert cli.main(["table", "s"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the node is gone" in shown and "not begun" in shown and "trial00-seed3" in shown


def test_a_run_that_its_killed_search_left_behind_is_waited_for(capsys, trained):
    words = [*SMALL, "--sample", "train.clip=0,1", "--trials", "1", "--out", "s"]
    folder = Path("s/trials/trial00-seed0")
    folder.mkdir(parents=True)
    lock = FileLock(folder / ".lock", thread_local=False)
    lock.acquire()

    def release():
        while not Path("s/tuning.json").exists():  # the trials are about to begin
            time.sleep(0.01)
        time.sleep(0.5)
        lock.release()

    thread = Thread(target=release)
    thread.start()
    status, _, _ = search(capsys, *words)
    thread.join()
    assert status == 0 and record()["arms"][""]["winner"] == 0


def test_what_is_shown_fits_80_columns(capsys, trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    write_stream("toy_rows", "toy_turned", "toy_rows")
    words = [*STREAM, "--grid", "train.strategy=naive,ewc", "growth.when=never", "--trials", "1"]
    words += ["--sample", RATE, "train.batch=8,16", "strategy.strength=log:1,10", "--out", "s"]
    status, out, _ = search(capsys, *words, "--confirm", "1")
    own = [line for line in out.splitlines() if " step" not in line and "ACC" not in line]
    assert status == 0 and max(map(len, own)) <= 80
    assert own[0].startswith("2 arms × 1 trial, random")
    assert "2/2  strategy=ewc,when=never-trial00-seed1" in own  # its scores are on the next line


def test_without_optuna_the_line_says_what_to_install_and_random_needs_none(
    capsys, trained, monkeypatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = [*SMALL, "--sample", RATE, "--trials", "1", "--out", "s"]
    status, _, err = search(capsys, *words, "--sampler", "tpe")
    assert status == 2 and not Path("s").exists()
    assert err == "thalnet: --sampler tpe needs Optuna: pip install 'thalnet-mtl[tuning]'.\n"
    assert search(capsys, *words)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trials 2", "--trials needs --sample: fields, and the values to try"),
        ("--sample train.clip=0,1", "--sample is for tuning: give --trials N as well"),
        ("--confirm 2", "--confirm is for tuning: give --trials N as well"),
        ("--trials 0 --sample train.clip=0,1", "--trials must be at least 1, got 0"),
        ("--trials 2 --sample train.clip=0,1 --confirm 0", "--confirm must be at least 1, got 0"),
        ("--trials 2 --sample train.clpi=0,1", "unknown field 'clpi'"),
        ("--trials 2 --sample train.clip=0,x", "--sample train.clip: expected a number, got 'x'"),
        ("--trials 2 --sample train.clip=0:1", "Write uniform:0,1 for a range."),
        ("--trials 2 --sample train.dropout=uniform:0,2", "must be between 0 and 0.9, got 2.0"),
        ("--trials 2 --sample train.batch=uniform:2,4", "whole numbers; write int:2,4"),
        ("--trials 2 --sample train.seed=0,1", "seeds are given by --seeds and --confirm"),
        ("--trials 2 --sample train.steps=10,20", "--sample train.steps and --train.steps: give"),
        (
            "--trials 2 --sample train.clip=0,1 --grid train.clip=0,1",
            "--sample train.clip and --grid train.clip: give one of them",
        ),
        (
            "--trials 2 --sample gru:train.clip=0,1",
            "--sample gru:train.clip: there is no --grid that has 'gru'",
        ),
        (
            "--trials 2 --sample liner:train.clip=0,1 --grid model.reading=linear,random",
            "unknown value of the grid 'liner'. Allowed: linear, random. Did you mean 'linear'?",
        ),
        (
            "--trials 2 --sample strategy.strength=1,2 --grid train.strategy=naive",
            "--sample strategy.strength has no effect: strategy 'naive' has no option 'strength'",
        ),
        ("--trials 2 --sample train.clip=0,1 --tune-on 2", "--tune-on is for streams"),
        ("--trials 2 --sample train.clip=0,1 --seeds 0 0", "give each seed once"),
        ("--trials 2 --sample train.clip=0,1 --sampler tep", "unknown --sampler 'tep'. Allowed:"),
        ("--trials 2 --sample model.budget=1,2", "trial 0 (budget="),
        ("--trials 10001 --sample train.clip=0,1", "10,001 runs of trials are over 10,000"),
    ],
)
def test_a_mistake_is_one_line_before_the_first_trial(
    capsys, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    status, _, err = search(capsys, *SMALL, *words.split())
    assert status == 2 and err.count("\n") == 1 and message in err
    assert not any(tmp_path.iterdir())


def test_a_wrong_number_of_experiences_is_one_line(capsys, trained):
    write_stream("toy_rows", "toy_turned")
    hidden = {"a": {"name": "toy_rows", "head": "h"}, "b": {"name": "toy_rows", "head": "h"}}
    Path("h.yaml").write_text(json.dumps({"tasks": hidden, "train": {"boundaries": "hidden"}}))
    words = ["s.yaml", "h.yaml", *STREAM[1:], "--trials", "1", "--sample", RATE]
    status, _, err = search(capsys, *words)
    assert status == 2 and "), on 1 of 2 experiences (--tune-on): train.boundaries hidden: " in err
    words = [*STREAM, "--trials", "1", "--sample", RATE, "--tune-on"]
    for text in ("3", "0", "some"):
        status, _, err = search(capsys, *words, text)
        message = f"--tune-on {text}: expected a number of experiences from 1 to 2, or all"
        assert status == 2 and message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--sample train.clip=0,2", "s holds a tuning with another space, train.clip=0,1, not"),
        ("--tuning-seed 1", "s holds a tuning with another tuning seed, 0, not 1"),
        ("--seeds 4", "s holds a tuning with another seeds, 0, not 4"),
        ("--train.batch=7", "train.batch 7, there 16"),
        ("--out s/trials/trial00-seed0", "is the directory of a run. Give --out DIR"),
        (None, "s is the directory of a tuning, not of a sweep. Give --out DIR"),
    ],
)
def test_a_folder_of_another_tuning_is_left_as_it_is(capsys, trained, words, message):
    base = [*SMALL, "--trials", "1"]
    clip = ["--sample", "train.clip=0,1"]
    assert search(capsys, *base, *clip, "--out", "s")[0] == 0
    before = {path: path.read_bytes() for path in Path("s").rglob("*") if path.is_file()}
    more = (words or "").split()
    more += [] if "--sample" in more else clip
    more += [] if "--out" in more else ["--out", "s"]
    command = [*base, *more] if words is not None else [*SMALL, "--seeds", "0", "--out", "s"]
    status, _, err = search(capsys, *command)
    assert status == 2 and err.count("\n") == 1 and message in err
    assert {path: path.read_bytes() for path in before} == before


def test_a_damaged_record_is_one_line(capsys, trained):
    words = [*SMALL, "--trials", "1", "--sample", "train.clip=0,1", "--out", "s"]
    assert search(capsys, *words)[0] == 0
    for change, message in (
        ({"arms": 3}, "tuning.json: arms is damaged"),
        ({"trial_runs": {}}, "the trials of '' are incomplete"),
    ):
        content = record()
        Path("s/tuning.json").write_text(json.dumps(content | change))
        status, _, err = search(capsys, *words)
        assert status == 2 and err.count("\n") == 1 and message in err
        Path("s/tuning.json").write_text(json.dumps(content))
