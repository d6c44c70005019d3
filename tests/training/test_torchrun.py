"""Workers of ``torchrun`` that are killed: it starts them again, and the run goes on."""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from kill_and_resume import differences
from rank_processes import in_ranks
from toy_tasks import OWN

from thalnet_mtl import load_config, train
from thalnet_mtl.console import Console
from thalnet_mtl.training import ranks

TESTS = Path(__file__).parents[1]
SECTIONS = {
    "tasks": {"toy_rows": {}, "toy_wide": {}},
    "stream": [{"tasks": [name], "steps": 10} for name in ("toy_rows", "toy_wide")],
    "model": {"modules": 2, "features": 6},
    "growth": {"when": "per_task", "modules": OWN},
    "train": {"strategy": "ewc", "learning_rate": 0.01, "batch": 10},
    "evaluate": {"every": 10, "batches": 1, "checkpoint_every": 3},
}
LIMIT = 120  # seconds


def torchrun(folder: Path, plan: list[tuple[int, str, int]]) -> str:
    """Train in two processes that kill themselves as planned. Returns what they print."""
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(SECTIONS))
    words = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(len(plan))]
    words += [TESTS / "killed_rank.py", json.dumps(plan), "train", config, "--out", folder]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        process.terminate()  # which ends its workers, if there still are any
        process.wait()
    assert process.returncode == 0, said
    return said


def test_an_attempt_reads_nothing_that_the_one_before_has_left_in_the_store():
    def names_of_keys() -> list[str]:
        store = dist.TCPStore("localhost", int(os.environ["MASTER_PORT"]), is_master=False)
        ranks.TIMEOUT = timedelta(seconds=10)
        for attempt in "01":
            os.environ["TORCHELASTIC_RESTART_COUNT"] = attempt
            ranks._groups = 0  # as in a new process
            with ranks.process_group() as group:
                group.any(False)
        return store.list_keys()

    for keys in in_ranks(2, names_of_keys):
        by_attempt = Counter(key.partition("/")[0] for key in keys)
        assert len(by_attempt) == 2 and len(set(by_attempt.values())) == 1, keys


def test_a_worker_that_is_killed_while_it_writes_changes_nothing(tmp_path):
    """Rank 0 is killed in the middle of the first checkpoint after the network has grown."""
    config = load_config(**SECTIONS)
    in_ranks(2, train, config, tmp_path / "whole", Console.silent())
    said = torchrun(tmp_path / "killed", [(0, "write", 11)])
    assert "exitcode: -9" in said and "resuming" in said and "at step 10 of 20" in said
    assert differences(tmp_path / "whole", tmp_path / "killed") == []
