"""Kill workers of ``torchrun`` at random moments: the runs must end as if nothing had happened.

    python tests/kill_ranks.py --kills 10 --seed 7 --out FILE      a line of JSON for each run

A continual run that grows is trained in some processes without disturbance, then again and again:
up to ``MOST`` times a random worker gets SIGKILL, and ``torchrun`` starts all of them again.
Weights, optimizer moments, random state, metrics and results must be the same to the bit.
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
LONGEST = 6.0  # seconds to a kill from the first line of output, or from the kill before it


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
    while process.poll() is None and not started(out):
        time.sleep(0.01)
    for _ in range(moments.randint(1, most)):
        seconds, rank = moments.uniform(0, LONGEST), moments.randrange(ranks)
        time.sleep(seconds)
        workers = children(process.pid)
        if len(workers) == ranks:  # they have not ended, and are not being started
            os.kill(workers[rank], signal.SIGKILL)
            killed.append({"worker": rank, "seconds": round(seconds, 2), "step": last_step(out)})
    assert process.wait() == 0, out.with_suffix(".log").read_text()
    return killed


def children(pid: int) -> list[int]:
    """Return the processes that another one has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
