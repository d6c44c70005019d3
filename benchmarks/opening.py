"""What the first README begins with, from the records of two benchmarks."""

from pathlib import Path

from benchmarks.claim import tables as claim
from benchmarks.quality import tables as quality
from benchmarks.quality import text
from benchmarks.shared import head, row, spread, with_table

README = Path(__file__).parents[1] / "README.md"


def table() -> str:
    """Single tasks as the paper has them and with the best of each; three tasks jointly."""
    lines = head("test %, ≤ 50,000 parameters a task", "ThalNet", "GRU", "seeds", "ThalNet − GRU",
                 "ThalNet is", "again: `python -m benchmarks.…`")  # fmt: skip
    parts = {
        "poster": ("as we recall the paper", quality.longest()),
        "best": ("best of each", quality.finalists()),
        "confirm": ("best of each, new seeds", quality.pairs("confirm")),
    }
    for part, (how, found) in parts.items():
        for name, (difference, word) in quality.compared(found).items():
            tests = [spread([*quality.percents(own, "test").values()]) for own in found[name]]
            title = f"{quality.TASKS[name.partition('-')[0]]}, {how}"
            count = len(quality.differences(found[name]))
            cells = (title, *tests, str(count), difference, said(word))
            again = f"`quality.run {part} {seeds(count, min(found[name][0]))}`"
            lines.append(row(*cells, again))
    return "\n".join([*lines, *of_the_text(), *of_the_claim()])


def of_the_text() -> list[str]:
    """The larger nets, which read text alone."""
    if not (cells := text.compared()):
        return []
    tried = sum(len(r.grid("gru")) for r in text.over())
    title = f"text8, 1 M parameters, best of {tried} settings, bits"
    parts = " ".join(f"{r.name}_search {r.name}_best" for r in text.over())
    again = f"`quality.run {parts} {seeds(int(cells[2]))}`"
    return [row(title, *cells[:4], said(cells[4]), again)]


def of_the_claim() -> list[str]:
    """The text alone, and one network for three tasks, as soon as the verdicts are there."""
    found = {
        "text8, best of four rates, bits": claim.text_alone(),
        "one net for three tasks, Δm over three GRUs, %": claim.between_bodies(),
    }
    return [
        row(title, *cells, f"`claim.run --tune {seeds(int(cells[2]))}`")
        for title, cells in found.items()
        if cells
    ]


def seeds(count: int, first: int = 0) -> str:
    """As a shell takes them."""
    return f"--seeds {{{first}..{first + count - 1}}}"


def said(verdict: str) -> str:
    """Its word."""
    return verdict.partition(":")[0]


def write() -> None:
    """Put the table where it belongs."""
    README.write_text(with_table(README.read_text(), table()))
