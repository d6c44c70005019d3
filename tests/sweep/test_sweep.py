import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from kill_and_resume import timeless
from toy_tasks import TOY, toy

from thalnet_mtl import cli
from thalnet_mtl.cli.parser import split_flags
from thalnet_mtl.config.load import load_configs, load_run_config
from thalnet_mtl.sweep import plan as grid
from thalnet_mtl.sweep.sweep import Sweep
from thalnet_mtl.training.trainer import train

RATES = "train.learning_rate=0.01,1e30"
REAL = [
    "digits", "debug", "--train.steps=20", "--evaluate.every=10", "--train.optimizer=adam",
    "--model.modules=2", "--seeds", "0", "1", "--grid", RATES,
]  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A sweep of four runs, two of which diverge: its folder, exit status and output."""
    out = tmp_path_factory.mktemp("real") / "sweep"
    command = [sys.executable, "-m", "thalnet_mtl.cli", "sweep", *REAL, "--jobs", "2"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True)
    return out, done.returncode, done.stdout


def sweep(capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["sweep", *map(str, words)])
    output = capsys.readouterr()
    return status, output.out, output.err


def runs(out: Path) -> dict:
    return json.loads((out / "sweep.json").read_text())["runs"]


def result(folder: Path) -> dict:
    return timeless(json.loads((folder / "result.json").read_text()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid train.learning_rat=1,2", "unknown field 'learning_rat'. Allowed: epochs, "),
        ("--grid train.learning_rat=1,2", "Did you mean 'learning_rate'?"),
        ("--grid trane.clip=1", "unknown field 'trane'. Allowed: model, "),
        ("--grid learning_rate=1,2", "Did you mean 'train.learning_rate=1,2'?"),
        ("--grid train.clip", "--grid train.clip: expected section.field=value,value."),
        ("--grid train.clip=1,,2", "--grid train.clip=1,,2: a value is empty"),
        ("--grid train.clip=", "--grid train.clip=: a value is empty"),
        (
            "--grid model.layers=2,some",
            "--grid model.layers: expected a whole number, got 'some'",
        ),
        ("--grid model.layers=2,2.5", "--grid model.layers: expected a whole number, got 2.5"),
        ("--grid model.layers=2,0", "--grid model.layers: must be between 1 and 1000, got 0"),
        ("--grid train.optimizer=adam,adan", "unknown optimizer 'adan'. Allowed: rmsprop, adam"),
        ("--grid train.clip=1,1.0", "--grid train.clip: each value must be given once, got 1,1.0"),
        ("--grid train.clip=1 train.clip=2", "--grid train.clip is given twice"),
        ("--grid train.clip=1 --grid train.clip=2", "--grid train.clip is given twice"),
        ("--grid train.steps=1,2", "--grid train.steps and --train.steps: give one of them"),
        ("--grid train.seed=1,2 --seeds 0 1", "--grid train.seed: seeds are given by --seeds"),
        ("--seeds 0 1 --train.seed 3", "--seeds and --train.seed: give one of them"),
        ("--seeds 0 0", "--seeds: give each seed once, got 0 0"),
        ("--seeds -1", "--seeds: must be between 0 and 2147483648, got -1"),
        ("--grid modules.trunk.reads=a,b", "a list cannot be told from several values"),
        ("--grid model.module=a,b/c,b_c", "2 runs of this sweep would have the name 'module=b_c-"),
        ("--grid model.reading=linear,softmax", "unknown reading 'softmax'. Allowed: "),
        ("--grid train.optimizer=adam,adan", "unknown optimizer 'adan'"),
        ("--grid train.combine=fixed,upgrad", "--grid train.combine has no effect: only one task"),
        ("--seeds 0 --train.epochs 3", "--train.epochs has no effect: train.steps is 20"),
        ("--seeds 0 1 --jobs 0", "--jobs must be at least 1, got 0"),
        ("--seeds 0 --per-gpu 0", "--per-gpu must be between 1 and 100, got 0"),
        ("--seeds 0 --per-gpu two", "--per-gpu: expected a whole number, got 'two'"),
        ("--seeds 0 --per-gpu 2 --train.device cpu", "--per-gpu has no effect: train.device is"),
        ("--seeds 0 --per-gpu 2 --train.device auto", "--per-gpu: no GPU that PyTorch can use."),
        ("--seeds 0 --on rya", "unknown --on 'rya'. Allowed: ray"),
        ("--seeds 0 --gird train.clip=1", "unknown argument '--gird'. Did you mean '--grid'?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_before_the_first_run(
    capsys, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    status, out, err = sweep(capsys, *TOY, *words.split())
    assert status == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("thalnet: ") and message in err
    assert not any(tmp_path.iterdir())


def test_a_finished_sweep_is_shown_and_a_mistake_refused_without_torch(real):
    code = (
        "import sys\nfrom thalnet_mtl.cli.main import main\n"
        "main(sys.argv[1:])\nprint('torch' in sys.modules)\n"
    )
    finished = [word.replace(",1e30", "") for word in REAL]
    for words, text in (
        ([*finished, "--out", real[0]], "2 of 2 runs are done already"),
        ([*REAL, "--out", real[0], "--model.reading=softmax"], "unknown reading 'softmax'"),
    ):
        for _ in range(2):  # the first one may have to import what it stores
            command = [sys.executable, "-c", code, "sweep", *words]
            done = subprocess.run(command, capture_output=True, text=True)
            if "importing" not in done.stdout:
                break
        assert text in done.stdout + done.stderr and done.stdout.endswith("False\n")


def test_the_runs_are_those_of_plain_training(real, tmp_path):
    out, _, _ = real
    for seed in (0, 1):
        name = f"learning_rate=0.01-seed{seed}"
        [planned] = [run for run in _plan_of_real() if run.name == name]
        train(planned.config, tmp_path / name)
        assert result(out / name) == result(tmp_path / name)
        model = "model/model.safetensors"
        assert (out / name / model).read_bytes() == (tmp_path / name / model).read_bytes()
        assert (out / name / "report.html").exists()


def test_a_run_that_fails_is_recorded_and_the_others_are_finished(real):
    out, status, shown = real
    assert status == 1
    for name, entry in runs(out).items():
        assert entry["seed"] == int(name[-1]) and entry["seconds"] > 0
        if entry["values"] == {"train.learning_rate": 0.01}:
            assert (entry["status"], entry["exit_status"], entry["error"]) == ("done", 0, "")
            continue
        assert (entry["status"], entry["exit_status"]) == ("failed", 1)
        assert entry["error"].startswith("exit status 1, loss nan at step 2 ")
        assert "training has diverged" in (out / name / "log.txt").read_text()
        assert f"{name} failed: exit status 1, loss nan" in shown
    assert len(runs(out)) == 4


def test_the_table_has_a_row_a_point_and_fits_80_columns(real):
    out, _, shown = real
    lines = shown.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("learning_rate "))
    assert lines[start].split() == ["learning_rate", "seeds", "validation", "95", "%", "interval",
                                    "test"]  # fmt: skip
    folders = [out / f"learning_rate=0.01-seed{seed}" for seed in (0, 1)]
    scores = {part: [result(folder)["tasks"]["digits_rows"][part]["accuracy"] for folder in folders]
              for part in ("validation", "test")}  # fmt: skip
    means = [f"{100 * sum(scores[part]) / 2:.2f}" for part in ("validation", "test")]
    low, high = (f"{100 * value:.2f}" for value in sorted(scores["validation"]))
    first = ["0.01", "2", "done", means[0], "%", low, "–", high, means[1], "%"]
    assert lines[start + 1].split() == first
    assert lines[start + 2].split() == ["1e+30", "2", "failed", "–", "–", "–"]
    assert max(map(len, lines[start : start + 6])) <= 80 and "better" not in shown
    assert "\x1b" not in shown and lines[-1] == f"record: {out / 'sweep.json'}"
    assert sum("/4  learning_rate=" in line for line in lines) == 4


def test_the_same_command_repeats_nothing_that_is_done(capsys, trained):
    words = [*TOY, "--seeds", "0", "1", "--grid", "model.modules=2,3", "--out", "s"]
    words.remove("--model.modules=3")
    status, first, _ = sweep(capsys, *words)
    assert status == 0 and len(trained) == 4
    before = {path: path.stat().st_mtime_ns for path in Path("s").rglob("result.json")}
    status, second, _ = sweep(capsys, *words)
    assert status == 0 and len(trained) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert second.splitlines()[0] == "4 of 4 runs are done already"
    assert first.endswith(second.partition("\n")[2]) and "* best mean on validation" in second
    (Path("s") / "sweep.json").unlink()  # killed before it was written
    assert sweep(capsys, *words)[0] == 0 and len(trained) == 4
    assert [entry["status"] for entry in runs(Path("s")).values()] == ["done"] * 4


def test_a_sweep_over_strategies_gives_each_its_options_and_repeats_nothing(capsys, trained):
    tasks = {"a": {"name": "toy_rows"}, "b": {"name": "toy_rows"}}
    stream = [{"tasks": [name], "steps": 2} for name in tasks]
    Path("c.yaml").write_text(json.dumps({"tasks": tasks, "stream": stream}))
    words = ["c.yaml", "--strategy.memory=9", "--strategy.strength=3", "--train.batch=10"]
    words += ["--model.features=6", "--grid", "train.strategy=naive,si,gem", "--out", "s"]
    status, out, _ = sweep(capsys, *words)
    assert status == 0 and len(trained) == 3
    assert "note: strategy.memory has no effect where train.strategy is naive, si" in out
    found = {
        name: load_run_config(Path("s") / f"strategy={name}-seed0").strategy.options
        for name in ("naive", "si", "gem")
    }
    gem = {"memory": 9, "choice": "reservoir"}
    assert found == {"naive": {}, "si": {"strength": 3.0, "interval": 100}, "gem": gem}
    assert sweep(capsys, *words)[0] == 0 and len(trained) == 3


def test_what_failed_is_tried_again(capsys, trained):
    words = [*TOY, "--train.optimizer=adam", "--grid", RATES, "--out", "s"]
    assert sweep(capsys, *words)[0] == 1
    assert sweep(capsys, *words)[0] == 1
    assert trained == [f"learning_rate={rate}-seed0" for rate in ("0.01", "1e+30", "1e+30")]
    assert runs(Path("s"))["learning_rate=1e+30-seed0"]["seconds"] == 2.0


def test_where_all_that_failed_are_mistakes_the_status_is_2(capsys, trained):
    words = [*TOY, "--grid", "train.warmup=0,20"]
    assert sweep(capsys, *words, "--out", "some")[0] == 2
    error = runs(Path("some"))["warmup=20-seed0"]["error"]
    assert error.startswith("exit status 2, train.warmup (20) must be smaller than ")
    assert error.endswith("(20 steps).")
    assert sweep(capsys, *words, RATES, "--train.optimizer=adam", "--out", "both")[0] == 1


def test_a_flag_that_changes_nothing_starts_no_other_sweep(capsys, trained, tmp_path):
    words = [*TOY, "--seeds", "0"]
    for more in ([], ["--train.clip=0"], ["--model.body=thalnet", "--train.learning_rate=1e-3"]):
        assert sweep(capsys, *words, *more)[0] == 0
    assert len(trained) == 1 and len(list((tmp_path / "runs").iterdir())) == 1


def test_more_seeds_and_values_add_to_what_is_there(capsys, trained):
    words = [*TOY, "--out", "s", "--grid"]
    assert sweep(capsys, *words, "train.clip=0,1", "--seeds", "0")[0] == 0
    assert sweep(capsys, *words, "train.clip=1,2", "--seeds", "0", "1")[0] == 0
    assert trained[:2] == ["clip=0.0-seed0", "clip=1.0-seed0"]
    assert trained[2:] == ["clip=1.0-seed1", "clip=2.0-seed0", "clip=2.0-seed1"]
    assert len(runs(Path("s"))) == 5


def test_without_a_directory_the_same_keys_find_their_sweep_and_others_do_not(capsys, trained):
    for words in (["train.clip=0"], ["train.clip=1"], ["train.warmup=0"]):
        assert sweep(capsys, *TOY, "--seeds", "0", "--grid", *words)[0] == 0
    folders = sorted(path.name for path in Path("runs").iterdir())
    assert len(folders) == 2 and folders[0].endswith("-sweep-train.clip")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid train.warmup=1", "s holds a sweep over train.clip, not train.warmup"),
        ("--seeds 1", "s holds a sweep over train.clip, not seeds alone"),
        ("--grid train.clip=3 --train.batch=7", "train.batch 7, there 16"),
        ("two.yaml --grid train.clip=3", "s holds another sweep, with 'clip=0.0-seed0'"),
        ("--seeds 0 --out s/clip=0.0-seed0", "is the directory of a run, not of a sweep"),
    ],
)
def test_a_folder_of_something_else_is_left_as_it_is(capsys, trained, words, message):
    Path("two.yaml").write_text("runs: {a: {}, b: {}}")
    assert sweep(capsys, *TOY, "--grid", "train.clip=0", "--out", "s")[0] == 0
    before = {path: path.read_bytes() for path in Path("s").rglob("*") if path.is_file()}
    to = [] if "--out" in words else ["--out", "s"]
    status, _, err = sweep(capsys, *TOY, *words.split(), *to)
    assert status == 2 and err.count("\n") == 1 and message in err
    assert {path: path.read_bytes() for path in Path("s").rglob("*") if path.is_file()} == before
    assert len(trained) == 1


def test_a_folder_is_of_one_process(capsys, trained):
    Path("s").mkdir()
    with FileLock("s/.lock"):
        status, _, err = sweep(capsys, *TOY, "--seeds", "0", "--out", "s")
    assert status == 2 and "another process is writing to s" in err and not trained


def test_ctrl_c_saves_what_is_going_and_the_same_command_goes_on(capsys, trained, tmp_path):
    words = ["digits", "debug", "--train.steps=500", "--evaluate.every=500", "--out", "s"]
    words += ["--model.modules=1", "--model.features=8", "--seeds", "0", "1"]
    command = [sys.executable, "-m", "thalnet_mtl.cli", "sweep", *words, "--jobs", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run behind "&"
    )  # fmt: skip
    log = Path("s/seed0/metrics.jsonl")
    while process.poll() is None and not (log.exists() and b'"train"' in log.read_bytes()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == (
        f"thalnet: stopped, 0 of 2 runs are done; resume with: thalnet sweep {' '.join(words)} "
        "--jobs 1\n"
    )
    assert [entry["status"] for entry in runs(Path("s")).values()] == ["stopped", "waiting"]
    error = runs(Path("s"))["seed0"]["error"]
    assert "saved at step" in error and "; resume with: thalnet train" in error
    assert not Path("s/seed0/result.json").exists() and not Path("s/seed1").exists()
    with FileLock("s/seed0/.lock", timeout=0):  # the run has ended
        pass
    assert sweep(capsys, *words)[0] == 0 and trained == ["seed0", "seed1"]
    train(load_run_config(Path("s/seed0")), tmp_path / "alone")
    assert result(Path("s/seed0")) == result(tmp_path / "alone")


def test_without_ray_the_line_says_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, out, err = sweep(capsys, *TOY, "--seeds", "0", "--on", "ray")
    assert status == 2 and out == "" and not any(tmp_path.iterdir())
    assert err == "thalnet: --on ray needs Ray: pip install 'thalnet-mtl[sweep]'.\n"


def test_ray_trains_the_same_runs_on_loopback(real, tmp_path):
    pytest.importorskip("ray")
    out, _, _ = real
    shutil.copytree(out, tmp_path / "s")
    good, bad = "learning_rate=0.01-seed1", "learning_rate=1e+30-seed1"
    shutil.rmtree(tmp_path / "s" / good)
    code = (
        "import sys\n"
        "from thalnet_mtl import cli\nfrom thalnet_mtl.sweep import workers\n"
        "close = workers.RayTasks.close\n"
        "def told(self):\n"
        "    print(self._ray.get_runtime_context().gcs_address)\n"
        "    close(self)\n"
        "workers.RayTasks.close = told\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = ["sweep", *(word for word in REAL if word != "0"), "--jobs", "2", "--on", "ray"]
    words += ["--out", tmp_path / "s"]
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 1 and done.stderr == ""
    assert re.search(r"^127\.0\.0\.1:\d+$", done.stdout, re.MULTILINE)
    assert result(tmp_path / "s" / good) == result(out / good)
    after, before = runs(tmp_path / "s"), runs(out)
    for name in (good, bad):
        assert after[name]["seconds"] > before[name]["seconds"] * (name == bad)
        assert after[name] | {"seconds": 0} == before[name] | {"seconds": 0}


def test_a_cluster_that_does_not_answer_is_one_line_and_status_2(capsys, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    status, _, err = sweep(capsys, *TOY, "--seeds", "0", "--on", "ray")
    assert (
        status == 2 and err.count("\n") == 1 and f"no Ray cluster at RAY_ADDRESS {address}" in err
    )
    assert not any(tmp_path.iterdir())


def _plan_of_real() -> list[grid.PlannedRun]:
    rest, flags = split_flags(REAL)
    return grid.plan(load_configs(rest[:2], flags), grid.parse([RATES]), [0, 1], flags)


def test_a_finished_run_of_a_sweep_waits_for_more_steps(tmp_path):
    def planned(steps):
        return grid.plan({"": toy(train={"steps": steps})}, {}, [0], {})

    (short,) = planned(6)
    train(short.config, tmp_path / "seed0")
    for steps, status in ((6, "done"), (9, "waiting")):
        plan = planned(steps)
        with closing(Sweep(tmp_path, {"": plan[0].config}, plan, lambda config: None)) as runs:
            assert runs.status == {"seed0": status}
            jobs = list(runs._jobs(runs.plan, {}))
    (job,) = jobs
    assert job.command[-3:] == ["--train.steps=9", "--out", str(tmp_path / "seed0")]
    assert cli.main(["train", *job.arguments, "--out", str(job.folder)]) == 0
    assert result(tmp_path / "seed0")["steps"] == 9
