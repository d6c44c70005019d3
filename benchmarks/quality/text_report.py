"""Tables of the runs on text: networks of 1 M parameters, and of 12 and 14 M."""

from math import log
from statistics import mean

from benchmarks.markdown import commands, header, row, verdict
from benchmarks.quality import text_experiments as text
from benchmarks.quality.experiments import RESULTS
from benchmarks.quality.text_experiments import BODIES, SEEDS, Round, bits, finalists
from benchmarks.records import load_records, load_runs
from thalnet_mtl.report.cells import compare
from thalnet_mtl.report.folding import Row
from thalnet_mtl.report.make_table import column, make_table
from thalnet_mtl.report.quantities import find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.report.table import Table

SCORES = "parameters", "validation, bits", "test, bits"
LARGE = {"gru": "14,060,256", "thalnet": "11,897,540"}  # sizes: paper/text8_gru and text8.yaml
FIRST_PASS = (2_800, 3_300)  # steps near the end of the first pass, on bytes not seen before


def small_table() -> str:
    """Return the tables of all rounds at 1 M parameters, and the comparison of the finalists."""
    lines = [line for r in text.ROUNDS for line in (*round_table(r), "", commands(r.records()), "")]
    if cells := comparison_cells():
        places = {body: text.ROUNDS.index(r) + 1 for body, r in finalists().items()}
        titles = (f"{BODIES[body]} of round {place}, test, bits" for body, place in places.items())
        lines += header(*titles, "seeds", "ThalNet − GRU, bits", "ThalNet is")
        lines += [row(*cells), ""]
    return "\n".join(lines[:-1])


def round_table(search: Round) -> list[str]:
    """Return the tables of all trials of a round and of the settings that they selected."""
    trials, best = (load_table(search, part) for part in ("search", "best"))
    lines = header("trials", "shape", "learning rate", "seeds", *SCORES)
    for body, title in BODIES.items():
        for k, setting in enumerate(search.grid(body)):
            lines.append(row(title, *setting, *score_cells(trials, f"{body}-{k}")))
    lines += ["", *header("best setting of the trials", "seeds", *SCORES)]
    lines += [row(title, *score_cells(best, body)) for body, title in BODIES.items()]
    return lines


def load_table(search: Round, part: str) -> Table:
    """Return the runs of a part of a round as a table, a row for each name without its seed."""
    return make_table(load_runs(search.folder(part)), rows=["run"],
                      columns=["parameters", "validation", "test"],
                      decimals={"validation": 3, "test": 3})  # fmt: skip


def score_cells(table: Table, name: str) -> list[str]:
    """Return number of seeds, parameters, validation and test bits; or why no run succeeded."""
    for each, (_, *cells) in zip(table.rows, table.main_grid()[1:], strict=True):
        if each.label == name:
            failed = next((run.problem.removeprefix("failed: ") for run in each.unfinished), "–")
            return cells if each.runs else ["0", "–", "–", failed]
    return ["0", "–", "–", "–"]


def comparison_cells() -> list[str]:
    """Return ThalNet, GRU, number of paired seeds, difference and verdict of the finalists."""
    runs = {
        body: {run.seed: run for run in load_runs(r.folder("best")) if run.name == body}
        for body, r in finalists().items()
    }
    shared = sorted(set.intersection(*map(set, runs.values())))
    if len(shared) < SEEDS:
        return []
    ours, theirs = (
        Row((body,), {(seed, ""): runs[body][seed] for seed in shared})
        for body in ("thalnet", "gru")
    )
    test = find_quantity("text8.test", [*ours.runs.values()], References())
    bits = column(test, [ours, theirs])
    (c,) = compare([(ours, theirs)], [bits])
    both = (cell.format(3) for cell in bits.cells)
    return [*both, str(c.pairs), c.difference.format(3), verdict(c)]


def large_table() -> str:
    """Return the table at 12 and 14 M parameters: loss on unseen bytes, and final scores."""
    titles = "loss on unseen bytes, bits", "validation, bits", "test, bits"
    lines = header("model", "parameters", "training bytes", *titles)
    records = load_records(RESULTS / "text8")
    for name, record in records.items():
        curve = record["curves"]["text8"]
        losses = zip(curve["train_step"], curve["train_loss"], strict=True)
        first, last = FIRST_PASS
        unseen = mean(loss for step, loss in losses if first < step <= last) / log(2)
        validation = curve["validation_bits_per_character"][-1]
        test = f"– ({record['failed']})" if "failed" in record else f"{bits(record, 'test'):.3f}"
        body = "gru" if "_gru" in name else "thalnet"
        scores = f"{validation:.3f} at step {curve['validation_step'][-1]:,}", test
        lines.append(row(BODIES[body], LARGE[body], "80 M", f"**{unseen:.3f}**", *scores))
    return "\n".join([*lines, "", commands(records.values())])
