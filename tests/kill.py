"""Kill runs at random moments and fill their disk at random points: nothing may be lost.

    python tests/kill.py                          50 kills, then 10 disks that fill up
    python tests/kill.py --kills 5 --disks 1      fewer of them
    python tests/kill.py --seed 3 --out FILE      other moments; a line of JSON for each one

A run of each kind (single, joint, a stream with growth, stacked, a sweep) is trained once without
disturbance. Then it is trained again and again, each time in a new folder: it is killed by SIGKILL
at a random moment, or between two bytes of a file, or its disk is full; afterwards the same command
is given again. Weights, optimizer moments, random state, metrics and results must be those of the
undisturbed run to the bit. The disk is a small tmpfs where that can be mounted, and a limit on the
size of files elsewhere.

``tests/kill.jsonl`` holds the outcomes of a call with ``--seed 7``.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from kill_and_resume import differences

from thalnet_mtl import cli, files

TESTS = Path(__file__).resolve().parent
SHORT = [
    *("--evaluate.every", "30", "--evaluate.batches", "2", "--evaluate.checkpoint_every", "6"),
    *("--evaluate.log_every", "10", "--train.batch", "20"),
]
# A stream over digits, which need no download, with a network that grows for each task.
STREAM = {
    "tasks": {"digits_rows": {}, "digits_labels": {}, "digits_stream": {}},
    "stream": [
        {"tasks": [task], "steps": 40} for task in ("digits_rows", "digits_labels", "digits_stream")
    ],
    "model": {"modules": 2, "features": 8},
    "growth": {"when": "per_task", "modules": {"own": {"input": True, "output": True}}},
    "train": {"strategy": "ewc", "learning_rate": 0.01},
}
DIGITS = ["digits", "--train.steps", "120", *SHORT]
COMMANDS = {
    "single": ["train", *DIGITS],
    "joint": ["train", "joint/digits", "--train.steps", "280", *SHORT],
    "growth": ["train", "stream.yaml", *SHORT],
    "stacked": ["train", *DIGITS, "--seeds", "0", "1", "--stacked"],
    "sweep": ["sweep", *DIGITS, "--seeds", "0", "1", "--jobs", "1"],
}
THALNET = [sys.executable, "-m", "thalnet_mtl.cli"]
# A command that kills itself in the middle of a write, or at a call of fsync or replace.
SELF_KILLED = "import sys, kill; sys.exit(kill.killed_at(int(sys.argv[1]), sys.argv[2:]))"


def main(arguments: list[str] | None = None) -> int:
    """Try all moments; exit status 1 if a run came out different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--runs", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--out", type=Path, help="file for the outcomes")
    options = parser.parse_args(arguments)
    moments, outcomes = random.Random(options.seed), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        os.chdir(folder)
        Path("stream.yaml").write_text(json.dumps(STREAM))
        names = options.runs
        calls = {name: undisturbed(name) for name in names[: options.kills + options.disks]}
        tries = [(names[n % len(names)], kill) for n in range(options.kills)]
        tries += [(names[n % len(names)], fill_disk) for n in range(options.disks)]
        for number, (name, disturb) in enumerate(tries):
            out = Path(f"{name}{number}")
            outcome = {"run": name} | disturb(name, out, moments, calls[name])
            outcome["different"] = different(Path(f"{name}-whole"), out)
            outcomes.append(outcome)
            print(json.dumps(outcome), flush=True)
    good = [not outcome["different"] for outcome in outcomes]
    if options.out:
        options.out.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
    print(f"{sum(good[: options.kills])} of {options.kills} kills, "
          f"{sum(good[options.kills :])} of {options.disks} full disks: the same bits")  # fmt: skip
    return 0 if all(good) else 1


def undisturbed(name: str) -> int:
    """Train a run that nothing happens to. Returns its calls of write, fsync and replace."""
    with counted_calls(0) as calls:
        finish(name, Path(f"{name}-whole"))
    return len(calls)


@contextmanager
def counted_calls(last: int) -> Iterator[list[str]]:
    """Count the calls of write, fsync and replace; in the last one, kill this process.

    A write is killed when half of its bytes are written.
    """
    calls: list[str] = []
    fsync, replace, write = os.fsync, os.replace, files._ReportingFile.write

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(function.__name__)
            if len(calls) == last:
                if function is write:
                    file, content = arguments
                    write(file, bytes(content)[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    os.fsync, os.replace, files._ReportingFile.write = map(counted, (fsync, replace, write))
    try:
        yield calls
    finally:
        os.fsync, os.replace, files._ReportingFile.write = fsync, replace, write


def killed_at(call: int, command: list[str]) -> int:
    """Run a command that is killed in one of its calls of write, fsync and replace."""
    with counted_calls(call):
        return cli.main(command)


def finish(name: str, out: Path) -> None:
    """Give the command of a run."""
    with redirect_stdout(StringIO()) as said:
        status = cli.main([*COMMANDS[name], "--out", str(out)])
    assert status == 0, said.getvalue()


def kill(name: str, out: Path, moments: random.Random, calls: int) -> dict[str, Any]:
    """Start a run, kill it, and give the same command again. Returns when it was killed."""
    command = [*COMMANDS[name], "--out", str(out)]
    if name == "sweep":
        moment = kill_sweep(command, out, moments)
    elif moments.random() < 0.5:
        call = moments.randrange(1, calls)
        process = start(out, [sys.executable, "-c", SELF_KILLED, str(call), *command])
        assert process.wait() == -signal.SIGKILL
        moment = {"killed": f"in call {call} of {calls} of write, fsync and replace"}
    else:
        moment = kill_at_random_time(command, out, moments)
    moment["step"] = last_step(out)
    finish(name, out)
    return moment


def kill_at_random_time(command: list[str], out: Path, moments: random.Random) -> dict[str, Any]:
    """Start a process, and kill it some time after its first line of output, or before that."""
    longest, early = 4.0, moments.random() < 0.1
    while True:
        process, seconds = start(out, [*THALNET, *command]), moments.uniform(0, longest)
        while not early and process.poll() is None and not out.with_suffix(".log").stat().st_size:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            after = "the start" if early else "the first line"
            return {"killed": f"{seconds:.2f} s after {after}"}
        shutil.rmtree(out)  # it was done already
        longest /= 2


def kill_sweep(command: list[str], out: Path, moments: random.Random) -> dict[str, Any]:
    """Kill a sweep, whose runs end then as well, or one of its runs."""
    run, of_sweep = moments.choice(["seed0", "seed1"]), moments.random() < 0.5
    while True:
        process, seconds = start(out, [*THALNET, *command]), moments.uniform(0, 2)
        while process.poll() is None and not (out / run / "checkpoint" / "last.pt").exists():
            time.sleep(0.01)
        time.sleep(seconds)
        victims = processes(f"{out.resolve()}/{run} ")
        for pid in [process.pid] if of_sweep else victims:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 60
        while processes(f"{out.resolve()}/"):
            assert time.monotonic() < end, "a run goes on without its sweep"
            time.sleep(0.05)
        if victims:
            victim = "the sweep" if of_sweep else run
            return {"killed": f"{victim}, {seconds:.2f} s after the first checkpoint of {run}"}
        shutil.rmtree(out)  # the run was done already


def processes(words: str) -> list[int]:
    """Return the processes whose command line has these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended
            continue
        if words in command:
            found.append(int(path.parent.name))
    return found


def fill_disk(name: str, out: Path, moments: random.Random, calls: int) -> dict[str, Any]:
    """Train on a disk that becomes full, then with more room. Returns the size of the disk."""
    out.mkdir()
    whole = Path(f"{name}-whole")
    size = moments.randrange(4096, sum(p.stat().st_size for p in whole.rglob("*") if p.is_file()))
    with small_disk(out, size) as (limit, enlarge):
        command = [*THALNET, *COMMANDS[name], "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        said = done.stderr.strip().splitlines()
        assert done.returncode == 1, (size, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr and (name == "sweep" or len(said) == 1), said
        enlarge()
        finish(name, out)
        copy = out.with_suffix(".copy")
        subprocess.run(["cp", "-r", out, copy], check=True)
    out.rmdir()
    copy.rename(out)
    failed = [line for line in done.stdout.splitlines() if " failed: " in line]
    line = (said or failed)[-1].replace(f"{out.resolve()}", "OUT").replace(str(out), "OUT")
    return {"disk": size, "said": line}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """A disk of so many bytes. Gives functions that limit a process, and that make more room."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        larger = ["mount", "-o", "remount,size=100m", str(folder)]
        try:
            yield lambda: None, lambda: subprocess.run(larger, check=True) and None
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        largest = size // 20  # a run has some files, the largest of them a checkpoint
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)), lambda: None


def start(out: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command, with its output beside its run."""
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def last_step(out: Path) -> int:
    """Return the last step that a run has logged."""
    steps = [0]
    for path in out.rglob("metrics.jsonl"):
        lines = path.read_text().splitlines()
        steps += [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return max(steps)


def different(whole: Path, out: Path) -> list[str]:
    """Return what differs between the runs of two folders, and what was left half-written."""
    found = [str(path.relative_to(out)) for path in out.rglob(".part-*")]
    for path in sorted(whole.rglob("result.json")):
        run = path.parent.relative_to(whole)
        found += [f"{run}: {what}" for what in differences(whole / run, out / run)]
    return found


if __name__ == "__main__":
    sys.exit(main())
