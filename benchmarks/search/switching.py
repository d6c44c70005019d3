"""Growth within a task, where the right number of modules is known: switching linear dynamics.

    python -m benchmarks.search.switching                 all runs that have no record yet
    python -m benchmarks.search.switching --table         only the table of the records

For each number of rules and each seed, of the data and of the network, a network grows from one
module (``configs/search/switching_N.yaml``). The oracle has a module for each rule from the start:
the same modules, optimizer and batches, without growth. It trains as many steps as the growth cost,
with those of the entrants that lost. Both are scored with the weights of their best validation.
With one rule there is nothing to add: the null. Records are lines of ``results/switching.jsonl``.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

from thalnet_mtl import load_config, train
from thalnet_mtl.config.schema import Config
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import read_topology

RECORDS = Path(__file__).parent / "results" / "switching.jsonl"
TASK = "switching_dynamics"
RULES, SEEDS = (1, 2, 4, 8), range(8)
Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Train what has no record yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--records", type=Path, default=RECORDS)
    options = parser.parse_args(arguments)
    recorded = {(r["rules"], r["seed"]) for r in records(options.records)}
    for rules, seed in jobs():
        if not options.table and (rules, seed) not in recorded:
            record = compare(rules, seed)
            options.records.parent.mkdir(parents=True, exist_ok=True)
            with options.records.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record | {"decisions": "…"}), flush=True)
    print(table(records(options.records)))


def jobs() -> Iterator[tuple[int, int]]:
    """Yield the number of rules and the seed of every comparison, seed after seed."""
    for seed in SEEDS:
        for rules in RULES:
            yield rules, seed


def records(path: Path) -> list[Record]:
    """Return the records so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def compare(rules: int, seed: int) -> Record:
    """Let a network grow, train the oracle, and return the record of both."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        grown = train(growing(rules, seed), Path(folder) / "grown")
        topology = read_topology(Path(folder) / "grown")
        extra = sum(decision.extra_steps for decision in topology.decisions)
        steps = grown.steps + extra
        oracle = train(with_all(rules, seed, steps), Path(folder) / "oracle")
    races = [
        {
            "step": decision.step,
            "losses": [round(e.score - e.price, 5) for e in decision.candidates],
            "p": decision.candidates[1].p_value,
            "chosen": decision.chosen.candidate,
        }
        for decision in topology.decisions
    ]
    return {
        "rules": rules,
        "seed": seed,
        "modules": len(topology.modules),
        "loss": loss(grown),
        "oracle": loss(oracle),
        "steps": grown.steps,
        "cost": round(steps / grown.steps, 4),
        "seconds": [grown.train_seconds, oracle.train_seconds],
        "decisions": races,
    }


def growing(rules: int, seed: int) -> Config:
    """Return the configuration of a network that grows."""
    return load_config(
        f"search/switching_{max(rules, 2)}",
        task={"rules": rules, "seed": seed},
        train={"seed": seed},
    )


def with_all(rules: int, seed: int, steps: int) -> Config:
    """Return the configuration of the oracle, which has a module for each rule from the start."""
    config = asdict(growing(rules, seed))
    ends = {"input": True, "output": True}
    return load_config(
        task={"name": TASK, "rules": rules, "seed": seed},
        modules={f"m{k}": ends | {"reads": [f"m{k}"]} for k in range(1, 1 + rules)},
        model={key: config["model"][key] for key in ("features", "module", "reading")},
        train=config["train"] | {"steps": steps},
        evaluate=config["evaluate"],
    )


def loss(result: RunResult) -> float:
    """Return the test loss as a share of that of guessing."""
    task = result.tasks[TASK]
    return round(task.scores["test"].loss / task.guess["test"]["loss"], 5)


def table(rows: list[Record]) -> str:
    """Return medians over the seeds, a line for each number of rules."""
    lines = [
        "| rules | seeds | modules: median (all) | loss | oracle | ratio of medians | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for rules in RULES:
        runs = sorted((r for r in rows if r["rules"] == rules), key=lambda r: r["seed"])
        if runs:
            modules = [r["modules"] for r in runs]
            grown, oracle = (median(r[key] for r in runs) for key in ("loss", "oracle"))
            lines.append(
                f"| {rules} | {len(runs)} | {median(modules):g} ({' '.join(map(str, modules))}) | "
                f"{grown:.4f} | {oracle:.4f} | {grown / oracle:.2f} | "
                f"{max(r['cost'] for r in runs):.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
