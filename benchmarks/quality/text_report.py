"""Tables of the runs on text: networks of 1 M parameters, and of 12 and 14 M."""

from math import log
from statistics import mean

from benchmarks.markdown import commands, header, row, spread
from benchmarks.quality import text_experiments as text
from benchmarks.quality.experiments import RESULTS
from benchmarks.quality.text_experiments import BODIES, SEEDS, Round, bits, finalists
from benchmarks.records import RunsBySeed, load_by_seed, load_records, succeeded
from thalnet_mtl.metrics.significance import sign_flip_test, verdict

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
    trials, best = load_by_seed(search.folder("search")), load_by_seed(search.folder("best"))
    lines = header("trials", "shape", "learning rate", "seeds", *SCORES)
    for body, title in BODIES.items():
        for k, setting in enumerate(search.grid(body)):
            lines.append(row(title, *setting, *score_cells(trials.get(f"{body}-{k}", {}))))
    lines += ["", *header("best setting of the trials", "seeds", *SCORES)]
    lines += [row(title, *score_cells(best.get(body, {}))) for body, title in BODIES.items()]
    return lines


def score_cells(runs: RunsBySeed) -> list[str]:
    """Return number of seeds, parameters, validation and test bits; or why no run succeeded."""
    records = [*succeeded(runs).values()]
    if not records:
        failed = (record["failed"] for record in runs.values())
        return ["0", "–", "–", next(failed, "–")]
    size = records[0]["result"]["parameters"]["total"]
    scores = (spread([bits(r, split) for r in records], 3) for split in ("validation", "test"))
    return [str(len(records)), f"{size:,}", *scores]


def comparison_cells() -> list[str]:
    """Return ThalNet, GRU, number of paired seeds, difference and verdict of the finalists."""
    ours, theirs = (r.finished(body) for body, r in finalists().items())
    pairs = [
        (bits(record, "test"), bits(theirs[seed], "test"))
        for seed, record in ours.items()
        if seed in theirs
    ]
    if len(pairs) < SEEDS:
        return []
    differences = [a - b for a, b in pairs]
    result = verdict(differences, sign_flip_test(differences), False, 1)
    columns = (*zip(*pairs, strict=True), differences)
    thalnet, gru, difference = (spread(values, 3) for values in columns)
    return [thalnet, gru, str(len(pairs)), difference, f"**{result.word}**: {result.line}"]


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
