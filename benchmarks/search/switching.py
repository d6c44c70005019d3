"""Growth within a task, where the right number of modules is known: switching linear dynamics.

    python -m benchmarks.search.switching                 all runs that have no record yet
    python -m benchmarks.search.switching --table         only the table in SWITCHING.md

For each number of rules and each seed, of the data and of the network, a network grows from one
module (``configs/search/switching_N.yaml``). Two networks have as many modules as rules from the
start: the same modules, optimizer and batches, without growth. Those of the oracle are told which
rule they follow: the update gate of each begins open in the steps of its rule, and closed in the
others. Both train as many steps as growth cost, with those of the entrants that lost. All are
scored with the weights of their best validation. With one rule there is nothing to add: the null.
Records are lines of ``results/switching.jsonl``.
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
from thalnet_mtl.models.network import Network
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import read_topology
from thalnet_mtl.training.setup import set_up

FOLDER = Path(__file__).parent
TASK = "switching_dynamics"
RULES, SEEDS = (1, 2, 4, 8), range(30, 38)
GATE = 4  # weight of a rule in the update gate of a module of the oracle
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
    """Let a network grow, train the two of full size, and return the record of all."""
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        folder = Path(name)
        grown = train(growing(rules, seed), folder / "grown")
        topology = read_topology(folder / "grown")
        extra = sum(decision.extra_steps for decision in topology.decisions)
        steps = grown.steps + extra
        config = with_all(rules, seed, steps)
        at_once = train(config, folder / "at_once")
        told(config).save(folder / "told")
        oracle = train(config, folder / "oracle", start=folder / "told")
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
        "at_once": loss(at_once),
        "oracle": loss(oracle),
        "steps": grown.steps,
        "cost": round(steps / grown.steps, 4),
        "seconds": [run.train_seconds for run in (grown, at_once, oracle)],
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
    """Return the configuration of a network that has a module for each rule from the start."""
    config = asdict(growing(rules, seed))
    ends = {"input": True, "output": True}
    return load_config(
        task={"name": TASK, "rules": rules, "seed": seed},
        modules={f"m{k}": ends | {"reads": [f"m{k}"]} for k in range(1, 1 + rules)},
        model={key: config["model"][key] for key in ("features", "module", "reading")},
        train=config["train"] | {"steps": steps},
        evaluate=config["evaluate"],
    )


def told(config: Config) -> Network:
    """Return the network of the oracle before its training: the k-th module knows the k-th rule.

    A gate z keeps a state of a GRU where it is 1: h ← (1 − z) n + z h.
    """
    network = set_up(config, fetch=print).network
    for k, cell in enumerate(network.body.cells.values()):
        gates = cell.design.stack[0].weight_ih.detach()  # of reset, update and new state, in rows
        width, rules = len(gates) // 3, len(network.body.cells)
        gates[width : 2 * width, -rules:] = GATE  # the last inputs say which rule is on
        gates[width : 2 * width, k - rules] = -GATE
    return network


def loss(result: RunResult) -> float:
    """Return the test loss as a share of that of guessing."""
    task = result.tasks[TASK]
    return round(task.scores["test"].loss / task.guess["test"]["loss"], 5)


def table(rows: list[Record]) -> str:
    """Return medians over the seeds, a line for each number of rules."""
    lines = header(
        "rules", "seeds", "modules: median (all)", "loss", "all modules at once", "oracle",
        "loss / oracle: median", "cost",
    )  # fmt: skip
    for rules in RULES:
        runs = sorted((r for r in rows if r["rules"] == rules), key=lambda r: r["seed"])
        if runs:
            modules = [r["modules"] for r in runs]
            counts = f"{median(modules):g} ({' '.join(map(str, modules))})"
            losses = (
                f"{median(r[key] for r in runs):.4f}" for key in ("loss", "at_once", "oracle")
            )
            ratio = f"{median(r['loss'] / r['oracle'] for r in runs):.2f}"
            cost = f"{max(r['cost'] for r in runs):.2f}"
            lines.append(row(f"{rules}", f"{len(runs)}", counts, *losses, ratio, cost))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
