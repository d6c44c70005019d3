"""Growth within a task, where the right number of modules is known: switching linear dynamics.

    python -m benchmarks.search.switching                 all runs that have no record yet
    python -m benchmarks.search.switching --table         only the table in SWITCHING.md

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

from benchmarks.markdown import header, row, with_table
from thalnet_mtl import load_config, train
from thalnet_mtl.config.schema import Config
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import read_topology

FOLDER = Path(__file__).parent
TASK = "switching_dynamics"
RULES, SEEDS = (1, 2, 4, 8), range(22, 30)
Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Train what has no record yet, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of page and records")
    options = parser.parse_args(arguments)
    path, page = options.folder / "results" / "switching.jsonl", options.folder / "SWITCHING.md"
    recorded = {(r["rules"], r["seed"]) for r in records(path)}
    for rules, seed in jobs():
        if not options.table and (rules, seed) not in recorded:
            record = compare(rules, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record | {"decisions": "…"}), flush=True)
    page.write_text(with_table(page.read_text(), table(records(path))))


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
    lines = header("rules", "seeds", "modules: median (all)", "loss", "oracle", "ratio", "cost")
    for rules in RULES:
        runs = sorted((r for r in rows if r["rules"] == rules), key=lambda r: r["seed"])
        if runs:
            modules = [r["modules"] for r in runs]
            grown, oracle = (median(r[key] for r in runs) for key in ("loss", "oracle"))
            counts = f"{median(modules):g} ({' '.join(map(str, modules))})"
            losses = f"{grown:.4f}", f"{oracle:.4f}", f"{grown / oracle:.2f}"
            cost = f"{max(r['cost'] for r in runs):.2f}"
            lines.append(row(f"{rules}", f"{len(runs)}", counts, *losses, cost))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
