"""Some 200 mistakes: each is one line that names it, with a status, and changes no file."""

import io
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from toy_tasks import toy
from wrong_configs import FILES, STRUCTURES, TRAIN, VALUES, Mistake

from thalnet_mtl import SequenceTask, TextTask, UserError, cli
from thalnet_mtl.training.trainer import train


def csv(text: str | bytes, fragment: str, options: str = "window: 2") -> Mistake:
    """A table of one's own that cannot be read as its options say."""
    task = f"task: {{name: csv, path: a.csv, inputs: [x], outputs: [y], {options}}}"
    return Mistake("data check a.yaml", fragment, {"a.csv": text, "a.yaml": task})


def npz(fragment: str, options: str = "", **arrays: object) -> Mistake:
    """A file of arrays that does not fit."""
    stream = io.BytesIO()
    np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items()})
    task = f"task: {{name: npz, path: a.npz{options}}}"
    return Mistake("train a.yaml --out new", fragment, {"a.npz": stream.getvalue(), "a.yaml": task})


def ts(text: str, fragment: str) -> Mistake:
    """A file in the format .ts that is damaged."""
    task = "task: {name: ts, train: a.ts, test: a.ts}"
    return Mistake("train a.yaml --out new", fragment, {"a.ts": text, "a.yaml": task})


def damaged(
    path: str, content: str | bytes | None, fragment: str, verb: str = "compare"
) -> Mistake:
    """A run with a file of other content, or none, in a copy of the run."""
    return Mistake(
        f"{verb} copy", fragment, {f"copy/{path}": b"\0gone" if content is None else content}
    )


XS = np.random.RandomState(0).rand(30, 4, 3)
YS = np.arange(30) % 2
ROWS = "x,y\n" + "".join(f"{k},{k % 7}\n" for k in range(40))
TS = "@problemName a\n@timeStamps false\n@univariate true\n@classLabel true 0 1\n@data\n"

COMMANDS = [
    Mistake("trian digits", "unknown command 'trian'. Allowed: train, sweep"),
    Mistake("train", "the following arguments are required: CONFIG"),
    Mistake("train digts", "unknown config 'digts'. Allowed: continual/all_orders"),
    Mistake("train nowhere.yaml", "no config file 'nowhere.yaml': it does not exist"),
    Mistake("train run", "unknown config 'run'"),
    Mistake("train folder.yaml", "'folder.yaml': it is not a file", {"folder.yaml/x": ""}),
    Mistake("train digits --sede 3", "Did you mean '--train.seed'?"),
    Mistake("train digits --train.seed", "--train.seed needs a value"),
    Mistake("train digits --train.seed 1 --train.seed=2", "--train.seed is given twice"),
    Mistake("train digits --out a --out b", "--out is given twice"),
    Mistake("train digits --out=", "--out: the path is empty"),
    Mistake("train digits --out ''", "--out: the path is empty"),
    Mistake("compare ''", "the path is empty"),
    Mistake("evaluate run --split test --split train", "--split is given twice"),
    Mistake("train digits --seeds 1 --seeds 2", "--seeds is given twice"),
    Mistake("train digits --seeds", "argument --seeds: expected at least one argument"),
    Mistake("train digits --seeds 1 1", "--seeds: give each seed once, got 1 1"),
    Mistake("train digits --seeds 1e30", "--seeds: expected a whole number, got '1e30'"),
    Mistake("train digits --seeds 07", "--seeds: expected a whole number, got '07'"),
    Mistake("train digits --seeds -1", "--seeds: must be between 0 and 2147483648, got -1"),
    Mistake("train digits --seeds 0 --train.seed 1", "--seeds and --train.seed: give one"),
    Mistake("train digits --stacked", "--stacked needs --seeds"),
    Mistake("sweep digits --jobs 0", "--jobs must be at least 1, got 0"),
    Mistake("sweep digits --jobs two", "--jobs: expected a whole number, got 'two'"),
    Mistake("sweep digits --grid train.clip", "expected section.field=value,value"),
    Mistake("sweep digits --grid train.clip=1,,2", "--grid train.clip=1,,2: a value is empty"),
    Mistake("sweep digits --grid train.clip=1,1.0", "each value must be given once"),
    Mistake("sweep digits --grid train.clip=1 train.clip=2", "train.clip is given twice"),
    Mistake("sweep digits --grid model.layers=1,2", "--grid model.layers has no effect"),
    Mistake("sweep digits --on rya", "unknown --on 'rya'. Allowed: ray"),
    Mistake("evaluate", "the following arguments are required: RUN"),
    Mistake("evaluate run --batches -1", "--batches must be at least 0, got -1"),
    Mistake("evaluate run --task toy", "unknown task 'toy'. Allowed: toy_rows"),
    Mistake("evaluate run --train.seed=1", "--train.seed is a flag of 'thalnet train'"),
    Mistake("export run", "the following arguments are required: --to"),
    Mistake("export run --to onxn", "unknown --to 'onxn'"),
    Mistake("export run --to safetensors --lengths", "--lengths has no effect"),
    Mistake("export run --to safetensors --task toy_rows", "--task has no effect"),
    Mistake("help tasks", "'tasks' is no command but a section of configurations: see 'thalnet"),
    Mistake("config", "the following arguments are required: ACTION"),
    Mistake("config shwo digits", "unknown action 'shwo'. Allowed: "),
    Mistake("config help", "the following arguments are required: SECTION"),
    Mistake("config help tsks", "unknown section 'tsks'. Allowed: model, task"),
    Mistake("list task", "unknown kind 'task'. Allowed: configs, zoo, tasks"),
    Mistake("list tasks csw", "unknown task 'csw'"),
    Mistake("data", "the following arguments are required: action"),
    Mistake("data fetch mnits", "unknown data set 'mnits'"),
    Mistake("data check", "data check needs a configuration"),
    Mistake("compare 'a\nb'", r"no run directory 'a\nb'"),
    Mistake("train '\x1b[2J'", r"unknown config '\x1b[2J'"),
    Mistake(f"train {'a' * 300}.yaml", "aaa"),
    Mistake(f"train {'a' * 300}", "aaa"),
    Mistake(f"compare {'a' * 300}", "aaa"),
    Mistake(f"{TRAIN}{'w' * 300}", "www"),
]

DATA = [
    csv("", "a.csv is empty"),
    csv("x,y\n", "a.csv holds no rows"),
    csv("x,x,y\n1,2,3\n", "a.csv has two columns 'x'"),
    csv("a,y\n1,2\n", "a.csv has no column 'x'. Its columns: a, y"),
    csv("x,y\n1,2\n1,2,3\n", "line 3"),
    csv("x,y\n1,2\n1,many\n", "a.csv, line 3, column 'y': 'many' is no finite number"),
    csv("x,y\n1,2\nnan,2\n", "a.csv, line 3, column 'x'"),
    csv("x,y\n1,2\n1,inf\n", "a.csv, line 3, column 'y': 'inf' is no finite number"),
    csv("x,y\n1,2\n,2\n", "a.csv, line 3, column 'x': the value is missing"),
    csv("x,y\n1,é\n".encode("latin-1"), "a.csv"),
    csv(ROWS.encode("utf-16"), "a.csv"),
    csv(b"\0\1\2", "a.csv"),
    csv("x;y\n1;2\n", "If its cells are not separated by ',', set separator"),
    csv(ROWS, "window", "window: 1000000000"),
    csv(ROWS, "window -1: expected at least 2 rows", "window: -1"),
    Mistake("data check a.yaml", "needs 'outputs'",
            {"a.csv": ROWS, "a.yaml": "task: {name: csv, path: a.csv, inputs: [x]}"}),
    csv(ROWS, "horizon", "window: 2, horizon: -1"),
    csv(ROWS, "stride", "window: 2, stride: 0"),
    csv(ROWS, "fractions", "window: 2, fractions: [0.5, 0.6, 0.7]"),
    csv(ROWS, "fractions", "window: 2, fractions: [0.5, 0.5]"),
    csv(ROWS, "unknown value 'classes'", "window: 2, target: classes"),
    csv(ROWS, "unknown field 'windows'", "windows: 2"),
    csv(ROWS, "separator", "window: 2, separator: ab"),
    csv(ROWS, "group", "group: g"),
    csv(ROWS, "every_step: expected true or false, got 'on'", "window: 2, every_step: on"),
    Mistake("data check a.yaml", "b.csv", {"a.yaml": "task: {name: csv, path: b.csv, inputs: [x], "
                                           "outputs: [y], window: 2}"}),
    Mistake("data check a.yaml", "folder", {"folder/a": "", "a.yaml": "task: {name: csv, "
                                            "path: folder, inputs: [x], outputs: [y], window: 2}"}),
    npz("xs", ys=YS),
    npz("ys", xs=XS),
    npz("30 sequences in xs, but 29 in ys", xs=XS, ys=YS[1:]),
    npz("holds NaN", xs=np.where(XS > 0.9, np.nan, XS), ys=YS),
    npz("expected an array of numbers", xs=XS.astype(str), ys=YS),
    npz("scale", ", scale: 0", xs=XS, ys=YS),
    npz("fractions", ", fractions: [1, 0, 0]", xs=XS, ys=YS),
    npz("all training targets are 0", xs=XS, ys=YS * 0),
    npz("is no class", xs=XS, ys=YS + 0.5),
    npz("unknown value 'klass'", ", target: klass", xs=XS, ys=YS),
    Mistake("train a.yaml --out new", "a.npz", {"a.npz": b"PK\3\4 cut",
                                                "a.yaml": "task: {name: npz, path: a.npz}"}),
    Mistake("train a.yaml --out new", "a.npz",
            {"a.npz": "", "a.yaml": "task: {name: npz, path: a.npz}"}),
    Mistake("train a.yaml --out new", "b.npz", {"a.yaml": "task: {name: npz, path: b.npz}"}),
    Mistake("train a.yaml --out new", "needs 'path'", {"a.yaml": "task: {name: npz}"}),
    Mistake("train a.yaml --out new", "the path of the data is empty",
            {"a.yaml": "task: {name: npz, path: ''}"}),
    Mistake("train a.yaml --out new", "no file d", {"a.yaml": "task: {name: folder, path: d}"}),
    Mistake("train a.yaml --out new", "d has no array 'train_xs'",
            {"d/x": "", "a.yaml": "task: {name: folder, path: d}"}),
    Mistake("train a.yaml --out new", "train_xs.npy",
            {"d/train_xs.npy": b"\x93NUMPY", "a.yaml": "task: {name: folder, path: d}"}),
    ts("", "no line @data"),
    ts("1,2:0\n", "line 1: a case before @data"),
    ts(TS, "no case follows @data"),
    ts(TS + "1,2:7\n", "line 6: unknown class '7'"),
    ts(TS + "1,x:0\n", "line 6"),
    ts(TS + "1,2:3,4:0\n", "line 6: 2 channels and a target, expected 1"),
    ts(TS.replace("univariate", "univariat"), "unknown name 'univariat'"),
    ts(TS.replace("true 0 1", "maybe"), "line 4: @classLabel is 'maybe', expected true or false"),
    Mistake("train a.yaml --out new", "/dev/zero is not a file",
            {"a.yaml": "task: {name: ts, train: /dev/zero, test: /dev/zero}"}),
    Mistake("train a.yaml --out new", "no file /dev/zero",
            {"a.yaml": "task: {name: csv, path: /dev/zero, inputs: [x], outputs: [y], window: 2}"}),
    csv(ROWS, "the longest series has 1 rows; a sequence needs 1000000001",
        "group: x, horizon: 1000000000"),
    Mistake("train a.yaml --out new", "permutation must be between",
            {"a.yaml": "task: {name: permuted_mnist, permutation: 1000000000000}"}),
    Mistake("train a.yaml --out new", "windows of 1000000000 steps",
            {"a.yaml": "task: {name: solar, steps: 1000000000}"}),
    Mistake("train a.yaml --out new", "b.ts",
            {"a.yaml": "task: {name: ts, train: b.ts, test: b.ts}"}),
]  # fmt: skip

RUNS = [
    Mistake("compare nowhere", "no run directory 'nowhere'"),
    Mistake("compare a.txt", "a.txt", {"a.txt": ""}),
    Mistake("inspect nowhere", "nowhere"),
    Mistake("evaluate nowhere", "no run directory 'nowhere': it does not exist"),
    Mistake("export nowhere --to torch", "no run directory 'nowhere': it does not exist"),
    Mistake("report run --out run/config.yaml/x", "run/config.yaml/x"),
    Mistake("compare run --baseline nowhere", "no run directory 'nowhere'"),
    Mistake(
        TRAIN.replace("--out new", "--out run") + " --train.seed 3", "run holds a run of another"
    ),
    Mistake(TRAIN.replace("new", "run/config.yaml"), "run/config.yaml"),
    Mistake(TRAIN.replace("new", "a.txt/b"), "a.txt/b", {"a.txt": ""}),
    Mistake("sweep digits --seeds 0 --out run", "is the directory of a run, not of a sweep"),
    Mistake("sweep digits --seeds 0 --out s", "s/sweep.json", {"s/sweep.json": "{"}),
    damaged("config.yaml", "a: [", "copy/config.yaml"),
    damaged("config.yaml", "task: {name: toy_rows}\ntask: {name: a}", "'task' is given twice"),
    damaged("config.yaml", b"\xff\xfe\0", "copy/config.yaml"),
    damaged("config.yaml", "runs: {a: {}}", "describes several runs"),
    damaged("result.json", "{", "copy/result.json"),
    damaged("result.json", "[]", "copy/result.json"),
    damaged("result.json", '{"tasks": {}}', "copy/result.json"),
    damaged("metrics.jsonl", '{"step": 1}\n{"step": 2}\n', "copy/metrics.jsonl"),
    damaged("environment.json", "[1]", "copy/environment.json"),
    damaged("topology.json", "{}", "copy/topology.json", "inspect"),
    damaged("topology.json", "", "copy/topology.json", "inspect"),
    damaged("checkpoint/best.pt", "no archive", "best.pt", "evaluate"),
    damaged("checkpoint/best.pt", "", "best.pt", "evaluate"),
    damaged("model/reading_weights.safetensors", "\0", "copy/model/reading_weights", "report"),
]

ENVIRONMENT = [
    Mistake(TRAIN, "OMP_NUM_THREADS is 999999", {}, 2, {"OMP_NUM_THREADS": "999999"}),
    Mistake("data fetch digits_rows", "unknown data set 'digits_rows'", {}, 2, {"COLUMNS": "20"}),
    Mistake("data fetch mnist", "a.txt", {"a.txt": ""}, 2, {"THALNET_DATA": "a.txt"}),
    Mistake("data fetch mnist", "a.txt", {"a.txt": ""}, 2, {"THALNET_DATA": "a.txt/data"}),
    Mistake("sweep digits --train.steps 2 --seeds 0 --on ray --out s", "RAY_ADDRESS", {}, 2,
            {"RAY_ADDRESS": "127.0.0.1:1"}),
]  # fmt: skip

# What a user hands over in Python.
ARRAYS = {
    "floats as classes": (XS, YS + 0.5, {}, "target 0.5 of row 0 is no class"),
    "numbers as classes": (XS, XS.mean((1, 2)), {}, "For regression set the target to 'numbers'"),
    "classes with NaN": (XS, np.where(YS, np.nan, 1.0), {}, "target nan of row 1 is no class"),
    "several labels": (XS, (XS.mean(1) > 0.5).astype(int), {}, "targets have shape (30, 3)"),
    "NaN": (np.where(XS > 0.9, np.nan, XS), YS, {}, "holds NaN"),
    "too few targets": (XS, YS[:9], {}, "30 sequences but 9 targets"),
    "texts": (["a", "b"], YS[:2], {}, "expected an array of numbers"),
    "numbers beyond float32": (XS * 1e300, YS, {}, "input of row 0"),
    "one class": (XS, YS * 0, {}, "all training targets are 0"),
    "no sequence": (XS[:0], YS[:0], {}, "there is no sequence"),
    "a scale of 0": (XS, YS, {"scale": 0}, "scale must be a number other than 0, got 0"),
    "an unknown target": (XS, YS, {"target": "klass"}, "klass"),
    "an unknown loss": (XS, YS, {"loss": "huberr"}, "unknown loss 'huberr'"),
    "a metric of numbers": (XS, YS, {"metrics": ["rmse"]}, "rmse"),
}

ALL = [*COMMANDS, *FILES, *VALUES, *STRUCTURES, *DATA, *RUNS, *ENVIRONMENT]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run, in which all mistakes are made: none may change it."""
    folder = tmp_path_factory.mktemp("home")
    train(toy(), folder / "run")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that a folder holds, by path, but for locks, which hold nothing."""
    paths = sorted(path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.mark.parametrize("number", range(len(ALL)))
def test_a_mistake_is_one_line_that_names_it_and_changes_nothing(capsys, monkeypatch, home, number):
    mistake = ALL[number]
    monkeypatch.chdir(home)
    for name, value in mistake.variables.items():
        monkeypatch.setenv(name, value)
    if any(path.startswith("copy/") for path in mistake.files):
        shutil.copytree("run", "copy")
    try:
        for path, content in mistake.files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
        before, start = contents(home), time.perf_counter()
        status = cli.main(shlex.split(mistake.command))
        seconds = time.perf_counter() - start
        err = capsys.readouterr().err
        assert contents(home) == before
    finally:
        for path in set(home.iterdir()) - {home / "run"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert err.startswith("thalnet: ") and err.count("\n") == 1 and len(err) < 2000, err
    assert mistake.fragment in err
    assert status == mistake.status
    assert seconds < 5  # on a busy machine


def test_the_table_holds_at_least_150_different_mistakes():
    assert len({(m.command, *map(repr, m.files.items()), *m.variables) for m in ALL}) >= 150


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_one_line_before_anything_is_written(tmp_path, name):
    xs, ys, options, fragment = ARRAYS[name]
    with pytest.raises(UserError) as error:
        task = SequenceTask(
            "own", dict.fromkeys(("train", "validation", "test"), (xs, ys)), **options
        )
        train(toy(task={"name": "own"}), tmp_path / "new", tasks=[task])
    assert fragment in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_text_of_real_numbers_is_one_line():
    series = np.sin(np.arange(900) / 9.0) * 100 + 120.7
    parts = dict.fromkeys(("train", "validation", "test"), series)
    with pytest.raises(UserError, match="'own', train: expected"):
        train(toy(task={"name": "own"}), "new", tasks=[TextTask("own", lambda: parts)])
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COLUMNS", "0"), ("COLUMNS", "-5"), ("COLUMNS", "abc"), ("COLUMNS", "1"), ("COLUMNS", "²"),
        ("COLUMNS", "9" * 30), ("LINES", "²"), ("TERM", ""), ("TERM", "dumb"), ("NO_COLOR", "1"),
        ("FORCE_COLOR", "1"), ("LANG", "nowhere"), ("LC_ALL", "C"), ("TTY_COMPATIBLE", "maybe"),
    ],
)  # fmt: skip
def test_a_strange_environment_is_no_mistake(capsys, monkeypatch, home, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    for command in ("compare run", "inspect run", "list readings", "data ls", "train --help"):
        try:
            status = cli.main(command.split())
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        assert status == 0 and output.err == ""
        assert len(output.out.splitlines()) > 3
