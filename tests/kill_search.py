"""Kill a search in the middle of its decisions: the same command must decide the same, to the bit.

    python tests/kill_search.py                      ten kills
    python tests/kill_search.py --out FILE           a line of JSON for each of them

A stream with ``growth: {when: search}``, growth within tasks and pruning is trained once without
disturbance. Then it is killed by SIGKILL in a training step, a gradient or a score inside a race
for a new task, a race within a task, or pruning; afterwards the same command is given again.

``tests/kill_search.jsonl`` holds the outcomes of a call with ``--seed 7``.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kill

from thalnet_mtl import cli
from thalnet_mtl.training.search import edges, race, rule

MODULES = {"low": {"input": True}, "high": {"output": True}}
GROWTH = {
    "when": "search",
    "every": 40,
    "cost": 2.2,
    "prune": True,
    "harm": 0.3,  # so that there is something to take out
    "modules": MODULES,
}
STREAM = {
    "tasks": {
        "first": {"name": "digits_rows"},
        "second": {"name": "variant", "of": "digits_rows", "label_order": 7},
        "third": {"name": "variant", "of": "digits_rows", "steps_joined": 2},
    },
    "stream": [{"tasks": [task]} for task in ("first", "second", "third")],
    "modules": {"low": {"input": True, "reads": ["low"]}, "high": {"output": True}},
    "model": {"features": 6},
    "growth": GROWTH,
    "train": {"steps": 170, "batch": 32, "optimizer": "adam", "learning_rate": 0.01},
    "evaluate": {"every": 85, "log_every": 17, "checkpoint_every": 20},
}
PHASES = ("race", "growth", "pruning")
SELF_KILLED = (
    "import sys, kill_search; "
    "sys.exit(kill_search.killed_in(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))"
)


def main(arguments: list[str] | None = None) -> int:
    """Try all kills; exit status 1 if a run came out different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="file for the outcomes")
    options = parser.parse_args(arguments)
    moments, outcomes = random.Random(options.seed), list[dict[str, Any]]()
    tests = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(tests), str(tests.parent)])
        os.chdir(folder)
        Path("search.yaml").write_text(json.dumps(STREAM))
        kill.COMMANDS["search"] = ["train", "search.yaml"]
        calls = counted("", 0)
        kill.finish("search", Path("search-whole"))
        counts = dict(calls)
        for number in range(options.kills):
            phase, out = PHASES[number % len(PHASES)], Path(f"search{number}")
            call = moments.randint(1, counts[phase])
            command = [sys.executable, "-c", SELF_KILLED, phase, str(call), "train", "search.yaml"]
            assert kill.start(out, [*command, "--out", str(out)]).wait() == -signal.SIGKILL
            moment = f"in call {call} of {counts[phase]} of {phase}"
            outcome = {"run": "search", "killed": moment, "step": kill.last_step(out)}
            kill.finish("search", out)
            outcome["different"] = [
                *kill.different(Path("search-whole"), out),
                *(["decisions"] if decisions(out) != decisions(Path("search-whole")) else []),
            ]
            outcomes.append(outcome)
            print(json.dumps(outcome), flush=True)
    good = [not outcome["different"] for outcome in outcomes]
    if options.out:
        options.out.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
    print(f"{sum(good)} of {options.kills} kills: the same decisions and bits")
    return 0 if all(good) else 1


def counted(phase: str, last: int) -> Counter[str]:
    """Count the steps, gradients and scores of decisions by phase; in the last one, kill this."""
    counts, now = Counter[str](), [""]

    def within(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            now[0] = name
            try:
                return function(*arguments, **options)
            finally:
                now[0] = ""

        return call

    def ticking(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[now[0]] += 1
            result = function(*arguments, **options)
            if now[0] == phase and counts[phase] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    patched: Any = rule.Search
    patched.decide = within("race", patched.decide)
    names: Any = rule
    names.grow_within = within("growth", names.grow_within)
    names.prune_modules = within("pruning", names.prune_modules)
    race_step: Any = race
    race_step.next_batches = ticking(race_step.next_batches)  # at the begin of each step
    race_step.Race.losses = ticking(race_step.Race.losses)
    of_edges: Any = edges
    of_edges.loss_gradients = ticking(of_edges.loss_gradients)
    return counts


def killed_in(phase: str, call: int, command: list[str]) -> int:
    """Run a command that is killed in one of the calls of a phase."""
    counted(phase, call)
    return cli.main(command)


def decisions(folder: Path) -> Any:
    """Return the decisions of a run."""
    return json.loads((folder / "topology.json").read_text())["decisions"]


if __name__ == "__main__":
    sys.exit(main())
