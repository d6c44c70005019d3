"""Tables of results of the top README and of the README of all benchmarks."""

from pathlib import Path
from statistics import mean
from typing import NamedTuple

from benchmarks.claim import report as claim
from benchmarks.markdown import header, row, with_table
from benchmarks.quality import report as quality
from benchmarks.quality import text_experiments, text_report
from benchmarks.quality.experiments import TASKS, search
from benchmarks.search import experiments as search_streams
from benchmarks.search import report as search_report
from thalnet_mtl.report.cells import spread

BENCHMARKS_README = Path(__file__).parent / "README.md"
README = Path(__file__).parents[1] / "README.md"

RIGHT = 90  # percent of right decisions, from which on the search is said to be right
SETTING = "setting (test %, ≤ 50,000 parameters a task unless stated otherwise)"


class Result(NamedTuple):
    """A row of the tables, as text."""

    folder: str  # of the README with the protocol
    setting: str
    thalnet: str
    gru: str
    seeds: str
    difference: str
    verdict: str
    command: str


def results() -> list[Result]:
    """Return all results of both tables, as far as their runs are complete."""
    return [*image_results(), *text_results(), *claim_results(), *search_results()]


def full_table() -> str:
    """Return the table with differences and commands."""
    lines = header(SETTING, "ThalNet", "GRU", "seeds", "ThalNet − GRU", "ThalNet is",
                   "reproduce with `python -m benchmarks.…`")  # fmt: skip
    for r in results():
        cells = r.thalnet, r.gru, r.seeds, r.difference, r.verdict
        lines.append(row(r.setting, *cells, f"`{r.command}`"))
    return "\n".join(lines)


def short_table() -> str:
    """Return the table of four columns, in which a setting links to its protocol."""
    lines = header(SETTING, "ThalNet", "GRU", "verdict")
    for r in results():
        verdict = r.verdict if "undecided" in r.verdict else f"ThalNet {r.verdict}"
        lines.append(row(f"[{r.setting}](benchmarks/{r.folder})", r.thalnet, r.gru, verdict))
    return "\n".join(lines)


def image_results() -> list[Result]:
    """Return the results on single image tasks: the paper's recipe, and the best of a search."""
    trials = {task: sum(name.startswith(f"{task}_gru-") for name in search()) for task in TASKS}
    tables = {part: quality.load_table(part) for part in ("poster", "best", "confirm")}
    parts = {
        "poster": ("recipe of the paper as far as known", quality.paper_pairs(tables["poster"])),
        "best": ("best of {} trials each", quality.finalists()),
        "confirm": ("best of {} trials each, new seeds", quality.pairs_of(tables["confirm"])),
    }
    rows = []
    for part, (method, pairs) in parts.items():
        for c in quality.compare(tables[part], pairs):
            task = quality.task_of(c)
            both = (tables[part].cell(each, c.column) for each in (c.row, c.baseline))
            command = f"quality.run {part} {seeds(c.pairs, min(c.row.seeds))}"
            setting = f"{TASKS[task]}, {method.format(trials[task])}"
            difference = c.difference.format()
            cells = *both, str(c.pairs), difference, f"**{c.result.word}**"
            rows.append(Result("quality", setting, *cells, command))
    return rows


def text_results() -> list[Result]:
    """Return the result of the larger networks that were trained on text alone."""
    if not (cells := text_report.comparison_cells()):
        return []
    rounds = text_experiments.complete_rounds()
    trials = sum(len(r.grid("gru")) for r in rounds)
    parts = " ".join(f"{r.name}_search {r.name}_best" for r in rounds)
    setting = f"text8, 1 M parameters, best of {trials} trials each, bits per character"
    thalnet, gru, count, difference, verdict = cells
    command, word = f"quality.run {parts} {seeds(int(count))}", verdict_word(verdict)
    return [Result("quality", setting, thalnet, gru, count, difference, word, command)]


def claim_results() -> list[Result]:
    """Return the results of small networks on text, and of one network for three tasks."""
    settings = {
        "text8, best of 4 learning rates each, bits per character": claim.text_cells(),
        "three tasks in one network, Δm over three single-task GRUs, %": claim.joint_cells(),
    }
    rows = []
    for setting, cells in settings.items():
        if cells:
            thalnet, gru, count, difference, verdict = cells
            command = f"claim.run --tune {seeds(int(count))}"
            rows.append(Result("claim", setting, thalnet, gru, count, difference, verdict, command))
    return rows


def search_results() -> list[Result]:
    """Return the decisions of the search on streams with a known answer, over complete seeds."""
    streams = [runs for name in search_streams.STREAMS if (runs := search_report.searches(name))]
    complete = sorted(set.intersection(*map(set, streams))) if streams else []
    if not complete:
        return []
    shares = [
        100.0 * mean(right for runs in streams for right in search_report.rights(runs[seed]))
        for seed in complete
    ]
    cells = spread(shares, 1), "–", str(len(complete)), "–"
    word = "**right**" if mean(shares) >= RIGHT else "**often wrong**"
    setting = f"search for an architecture, right decisions on {len(streams)} streams of tasks, %"
    command = f"search.run {seeds(len(complete), complete[0])}"
    return [Result("search", setting, *cells, word, command)]


def seeds(count: int, first: int = 0) -> str:
    """Return the flag for consecutive seeds with the braces of a shell."""
    return f"--seeds {{{first}..{first + count - 1}}}"


def verdict_word(verdict: str) -> str:
    """Return the word of a verdict without its reason."""
    return verdict.partition(":")[0]


def write() -> None:
    """Write both tables."""
    for path, table in ((BENCHMARKS_README, full_table()), (README, short_table())):
        path.write_text(with_table(path.read_text(), table))
