"""Kill workers of ``torchrun`` at random moments: the runs must end as if nothing had happened.

    python tests/kill_ranks.py --kills 10 --seed 7 --out FILE      a line of JSON for each run

A continual run that grows is trained in some processes without disturbance, then again and again:
up to ``MOST`` times a random worker gets SIGKILL, and ``torchrun`` starts all of them again.
Weights, optimizer moments, random state, metrics and results must be the same to the bit.

``tests/kill_ranks.jsonl`` holds the outcomes of a call with ``--seed 7``.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kill import SHORT, STREAM
from kill_and_resume import differences, last_step, started

ROOT = Path(__file__).resolve().parents[1]
MOST = 3  # kills of one run
STEPS = 120  # of the run
LONGEST = 1.5  # seconds to a kill after its step was logged


def main(arguments: list[str] | None = None) -> int:
    """Try all moments; exit status 1 if a run came out different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="file for the outcomes")
    options = parser.parse_args(arguments)
    moments, outcomes, kills = random.Random(options.seed), list[dict[str, Any]](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stream.yaml").write_text(json.dumps(STREAM))
        whole = start(folder / "whole", options.ranks)
        assert whole.wait() == 0, (folder / "whole.log").read_text()
        while kills < options.kills:
            out = folder / f"killed{len(outcomes)}"
            killed = disturb(out, options.ranks, min(MOST, options.kills - kills), moments)
            kills += len(killed)
            outcome = {"ranks": options.ranks, "killed": killed}
            outcomes.append(outcome | {"different": differences(folder / "whole", out)})
            print(json.dumps(outcomes[-1]), flush=True)
    if options.out:
        options.out.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
    good = sum(not outcome["different"] for outcome in outcomes)
    print(f"{kills} kills, {good} of {len(outcomes)} runs have the same bits")
    return 0 if good == len(outcomes) else 1


def start(out: Path, ranks: int) -> subprocess.Popen[bytes]:
    """Start a run in some processes, its output beside it."""
    torchrun = ["--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={MOST}"]
    words = ["-m", "thalnet_mtl", "train", "stream.yaml", *SHORT, "--out", str(out)]
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *torchrun, *words],
            cwd=out.parent,
            env=os.environ | path | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def disturb(out: Path, ranks: int, most: int, moments: random.Random) -> list[dict[str, Any]]:
    """Start a run, kill workers, and wait for its end. Returns the kills."""
    process, killed = start(out, ranks), list[dict[str, Any]]()
    for step in sorted(moments.randrange(STEPS) for _ in range(moments.randint(1, most))):
        rank, seconds = moments.randrange(ranks), moments.uniform(0, LONGEST)
        while process.poll() is None and not (started(out) and last_step(out) >= step):
            time.sleep(0.01)
        time.sleep(seconds)
        while process.poll() is None and len(workers := children(process.pid)) < ranks:
            time.sleep(0.01)  # they are being started
        if process.poll() is None:
            os.kill(workers[rank], signal.SIGKILL)
            killed.append({"worker": rank, "after step": last_step(out)})
            time.sleep(1.0)  # until torchrun has seen it
    assert process.wait() == 0, out.with_suffix(".log").read_text()
    return killed


def children(pid: int) -> list[int]:
    """Return the processes that another one has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
