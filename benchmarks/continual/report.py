"""Tables of the continual benchmark, made from the records of its runs."""

from benchmarks.continual.methods import METHODS, RESULTS, STREAMS, best_setting
from benchmarks.markdown import commands, header, lines_of, row, select
from benchmarks.records import load_records, load_runs
from thalnet_mtl.report.make_table import make_table
from thalnet_mtl.report.relative import References
from thalnet_mtl.report.table_formats import Grid

SINGLE = "independent"  # ten networks, one for each task
BASELINE = "naive"  # compared with every other method
MEASURES = ("parameters", "ACC", "AIA", "forgetting", "forgetting_avalanche", "BWT", "FWT",
            "transfer", "intransigence")  # fmt: skip
COSTS = ("min-ACC", "steps_to_90", "skill", "gain", "parameters.start", "parameters",
         "parameters.trainable", "multiply_adds", "stored", "seconds")  # fmt: skip
MAIN = {
    "run": "method",
    "parameters": "parameters at the end",
    "seeds": "seeds",
    "ACC, %": "ACC, %",
    "AIA, %": "AIA, %",
    "forgetting, %": "forgetting, %",
    "forgetting (Avalanche), %": "forgetting (first − last), %",
    **{name: name for name in ("BWT, %", "FWT, %", "transfer, %", "intransigence, %")},
}
COURSE = {
    "run": "method",
    **{name: name for name in ("min-ACC, %", "steps to 90 % of S", "skill, %", "Δm, %")},
    "sizes": "parameters: first → last, trainable at the end",
    "multiply-adds, M": "M multiply-adds",
    "stored, kB": "stored, kB",
    "training, s": "seconds",
}


def report() -> str:
    """Return all tables in Markdown."""
    runs = load_runs(RESULTS)
    single, joint, streams = (
        [run for run in runs if run.name.startswith(names)]
        for names in ((SINGLE,), ("joint",), tuple(STREAMS))
    )
    references = References(single, joint)
    titles = {name: method.title for name, method in METHODS.items()}
    main = make_table([*streams, *joint], references, rows=["run"], columns=MEASURES,
                      over=["stream"], titles=titles)  # fmt: skip
    alone = make_table(single, rows=["model.body"], columns=["parameters", "ACC"], over=["task"])
    course = make_table(streams, references, rows=["run"], columns=COSTS, over=["stream"],
                        titles=titles, decimals={"seconds": 0})  # fmt: skip
    compared = make_table(streams, rows=["run"], columns=["ACC"], over=["stream"],
                          titles=titles, against=BASELINE)  # fmt: skip
    (_, seeds, size, accuracy) = alone.main_grid()[1]
    last = [METHODS[SINGLE].title, f"{size} each", seeds, accuracy, *["–"] * 7]
    parts = [
        [*lines_of(select(main.main_grid(), MAIN)), row(*last)],
        lines_of(select(with_sizes(course.main_grid()), COURSE)),
        lines_of(compared.comparison_grid()),
        selection_table([run.label for run in course.rows]),
        [commands(load_records(RESULTS, "*-seed*").values())],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def with_sizes(grid: Grid) -> Grid:
    """Return the second table with a column of the parameters at both ends, and the trainable."""
    places = [grid[0].index(n) for n in ("parameters at the start", "parameters", "trainable")]
    cells = ([line[k] for k in places] for line in grid[1:])
    sizes = (f"{first} → {last}, {trainable}" for first, last, trainable in cells)
    return [[*grid[0], "sizes"], *([*r, s] for r, s in zip(grid[1:], sizes, strict=True))]


def selection_table(names: list[str]) -> list[str]:
    """Return the table of the settings that the trials selected."""
    titles = {"train.learning_rate": "learning rate", "strategy.strength": "strength"}
    lines = header("method", "selected, of 4 trials")
    for name in names:
        words = (f"{titles[key]} {value}" for key, value in best_setting(name).items())
        lines.append(row(METHODS[name].title, ", ".join(words)))
    return lines
