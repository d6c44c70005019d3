"""Tables and plot of the speed benchmark, made from the measurements of a folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import header, row, with_table
from benchmarks.speed.aims import aims_table
from benchmarks.speed.cases import CASES
from benchmarks.speed.floors import floor
from benchmarks.speed.machine import FOLDER

Measurement = dict[str, Any]

NAMES = {
    "cpp": "ThalNet, C++ kernel",
    "fused": "ThalNet, fused in PyTorch",
    "batched": "ThalNet, batched in PyTorch",
    "reference": "ThalNet, reference",
    "triton": "ThalNet, Triton kernel",
    "gru4": "`nn.GRU`, 4 layers",
    "gru1": "`nn.GRU`, 1 layer",
    "lstm4": "`nn.LSTM`, 4 layers",
}
MAIN = {
    "mnist50": "MNIST rows, batch 50",
    "mnist256": "MNIST rows, batch 256",
    "cifar50": "CIFAR-10 rows, batch 50",
    "text8": "text8, 100 × 100 bytes",
}
SCALING = {
    "modules, center of 256 features": [f"center256-modules{n}" for n in (4, 8, 16, 32, 64)],
    "modules of 16 features": [f"features16-modules{n}" for n in (4, 16, 64)],
    "time steps": [f"steps{n}" for n in (28, 112, 784)],
}
DYNAMIC = [
    f"{reading}-features{features}"
    for features in (16, 32)
    for reading in ("linear", "fast_softmax", "fast_gaussian")
]


def load_measurements(results: Path) -> list[Measurement]:
    """Return all measurements of a folder, each with the machine that it was made on."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    return [m | {"machine": machine(record)} for record in records for m in record["measurements"]]


def machine(record: dict[str, Any]) -> str:
    """Return the processor of a record, and the instruction set that was used."""
    environment = record["environment"]
    return f"{environment['processor']}, {environment['cores']} cores, {record['instructions']}"


def by_machine(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Return measurements by machine, the widest instructions first."""
    machines = sorted({m["machine"] for m in measurements}, key=lambda name: "AVX-512" not in name)
    return {name: [m for m in measurements if m["machine"] == name] for name in machines}


def save(record: dict[str, Any], out: Path, publish: bool) -> None:
    """Write a record, and with ``publish`` the page of all records."""
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if publish:
        write_page()


def write_page() -> None:
    """Write the tables of all records into the README."""
    readme = FOLDER / "README.md"
    text = with_table(readme.read_text(encoding="utf-8"), report(FOLDER / "results"))
    readme.write_text(text, encoding="utf-8")


def report(results: Path) -> str:
    """Return all tables in Markdown."""
    measurements = load_measurements(results)
    machines = by_machine([m for m in measurements if m["device"] == "cpu"])
    runs = by_machine(load_measurements(results / "whole_run"))
    parts = [aims_table({name: [*of, *runs.get(name, [])] for name, of in machines.items()})]
    for name, cpu in machines.items():
        tables = main_table(cpu), scaling_table(cpu), reading_table(cpu)
        parts += [f"**{name}**", *tables]
    parts.append(lengths_table(load_measurements(results / "lengths")))
    parts.append(ranks_table(load_measurements(results / "ranks")))
    gpu = [m for m in measurements if m["device"] == "cuda"]
    parts.append(gpu_table(gpu) if gpu else "**On a GPU**: not measured.")
    return "\n\n".join(parts)


def pick(
    measurements: Sequence[Measurement], config: str, path: str, threads: int
) -> Measurement | None:
    """Return the measurement of a path on a config, if there is one."""
    key = config, path, threads
    return next((m for m in measurements if (m["config"], m["path"], m["threads"]) == key), None)


def main_table(measurements: Sequence[Measurement]) -> str:
    """Return the times of all paths on the main configs, with one thread and with all threads."""
    threads = max(m["threads"] for m in measurements)
    lines = header("config", "path", "parameters", "ms, 1 thread",
                   "× GRU, processor time, 1 thread", f"ms, {threads} threads",
                   f"**× GRU, {threads} threads**", "target", "peak memory, MiB")  # fmt: skip
    for config, name in MAIN.items():
        for path in NAMES:
            single = pick(measurements, config, path, 1)
            parallel = pick(measurements, config, path, threads)
            if single is None or parallel is None:
                continue
            target = dict(CASES[config].targets).get(path)
            cells = [name, NAMES[path], f"{single['parameters']:,}"]
            cells += [f"{1e3 * single['seconds']:.2f}", f"{single['cpu_ratio_to_gru']:.3f}"]
            cells += [f"{1e3 * parallel['seconds']:.2f}", f"**{parallel['ratio_to_gru']:.3f}**"]
            cells += [f"≤ {target}" if target else "", f"{single['peak_bytes'] / 2**20:.0f}"]
            lines.append(row(*cells))
    return "\n".join(lines)


def scaling_table(measurements: Sequence[Measurement]) -> str:
    """Return times relative to the smallest network or sequence of a family."""
    threads = max(m["threads"] for m in measurements)
    lines = header("varied", "path", "time relative to the smallest, 1 thread",
                   f"{threads} threads", f"× GRU of equal size, {threads} threads")  # fmt: skip
    for varied, configs in SCALING.items():
        sizes = " → ".join(config.rpartition("s")[2].lstrip("s") for config in configs)
        for path in ("cpp", "fused", "batched"):
            single, parallel = (
                [m for config in configs if (m := pick(measurements, config, path, count))]
                for count in (1, threads)
            )
            if min(len(single), len(parallel)) < len(configs):
                continue
            times = [m["cpu_seconds"] for m in single], [m["seconds"] for m in parallel]
            cells = [" → ".join(f"{t / series[0]:.2f}" for t in series) for series in times]
            ratios = " → ".join(f"{m['ratio_to_gru']:.2f}" for m in parallel)
            lines.append(row(f"{varied}: {sizes}", NAMES[path], *cells, ratios))
    return "\n".join(lines)


def reading_table(measurements: Sequence[Measurement]) -> str:
    """Return the times of dynamic readings relative to the linear reading at equal widths."""
    lines = header("reading", "features", "path", "parameters", "ms, 1 thread",
                   "× linear, same path", "floor", "× linear, batched")  # fmt: skip
    for config in DYNAMIC:
        reading, _, features = config.rpartition("-features")
        for path in ("cpp", "batched"):
            m = pick(measurements, config, path, 1)
            linear = [
                base["cpu_seconds"]
                for p in (path, "batched")
                if (base := pick(measurements, f"linear-features{features}", p, 1))
            ]
            if m is None or len(linear) < 2:
                continue
            ratios = [f"{m['cpu_seconds'] / seconds:.2f}" for seconds in linear]
            ratios.insert(1, f"{floor(config):.2f}")
            size, time = f"{m['parameters']:,}", f"{1e3 * m['seconds']:.2f}"
            lines.append(row(reading, features, NAMES[path], size, time, *ratios))
    return "\n".join(lines)


def lengths_table(measurements: Sequence[Measurement]) -> str:
    """Return the times on sequences of unequal lengths relative to the same padded batch."""
    kinds = list(dict.fromkeys(m["lengths"] for m in measurements))
    lines = header("config", "path", *(f"× padded batch, {kind} lengths" for kind in kinds))
    by_name = {(m["config"], m["path"], m["lengths"]): m for m in measurements}
    for config, path in dict.fromkeys((m["config"], m["path"]) for m in measurements):
        cells = [MAIN.get(config, config), NAMES[path]]
        for kind in kinds:
            m = by_name[config, path, kind]
            low, high = m["quartiles"]
            cells.append(f"**{m['cpu_ratio_to_padded']:.2f}** ({low:.2f} to {high:.2f})")
        lines.append(row(*cells))
    return "\n".join(lines)


def ranks_table(measurements: Sequence[Measurement]) -> str:
    """Return the times of steps that processes share, and relative to those of one process."""
    count = measurements[0]["ranks"]
    lines = header("batch", "parameters", "ms, 1 process, 1 thread",
                   f"ms, 1 process, {count} threads", f"ms, {count} processes",
                   f"**{count} processes × 1 thread**", f"{count} processes × {count} threads",
                   "processor time of the busier process × 1 thread")  # fmt: skip
    for m in measurements:
        kind, _, size = m["config"].partition("-")
        cells = [f"{size.rpartition('-')[2]} sequences of {kind}", f"{m['parameters']:,}"]
        kinds = "threads1", f"threads{count}"
        cells += [f"{1e3 * m['seconds'][each]:.2f}" for each in (*kinds, "ranks")]
        ratios = [*(m["ratios"][each] for each in kinds), m["cpu_ratio"]]
        first, *rest = (f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in ratios)
        lines.append(row(*cells, f"**{first}**", *rest))
    return "\n".join(lines)


def gpu_table(measurements: Sequence[Measurement]) -> str:
    """Return ratios to cuDNN's GRU in the same mode and precision, launched and graphed."""
    measured = {m["path"] for m in measurements}
    paths = [path for path in NAMES if path != "gru4" and path in measured]
    ratios = (f"{NAMES[path]}, × GRU" for path in paths)
    lines = header("config", "precision", "steps", "`nn.GRU`, 4 layers, ms", *ratios)
    by_name = {(m["config"], m["precision"], m["path"]): m for m in measurements}
    for config, precision in dict.fromkeys((m["config"], m["precision"]) for m in measurements):
        for suffix, mode in {"": "launched", " graphed": "CUDA graph"}.items():
            base = by_name[config, precision, "gru4" + suffix]
            cells = [config, precision, mode, f"{1e3 * base['seconds']:.2f}"]
            for path in paths:
                m = by_name.get((config, precision, path + suffix))
                cells.append(f"{m['ratio_to_gru']:.2f}" if m else "–")
            lines.append(row(*cells))
    return "\n".join(lines)


def plot(results: Path, out: Path) -> None:
    """Plot the ratios by config and path, and the time by number of modules."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    machines = by_machine([m for m in load_measurements(results) if m["device"] == "cpu"])
    (name, measurements), *further = machines.items()
    threads = max(m["threads"] for m in measurements)
    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2, 1))
    paths = ["cpp", "fused", "batched", "lstm4", "gru1"]
    for k, path in enumerate(paths):
        positions, heights = [], []
        for n, config in enumerate(MAIN):
            m = pick(measurements, config, path, threads)
            if m:
                positions.append(n + 0.16 * (k - 2))
                heights.append(m["ratio_to_gru"])
        container = bars.bar(positions, heights, 0.15, label=NAMES[path].replace("`", ""))
        bars.bar_label(container, fmt="%.2f", fontsize=7, padding=1)
    for machine, marked in further:  # a mark on the bar of the kernel
        steps = [pick(marked, config, "cpp", threads) for config in MAIN]
        pairs = [(n - 0.32, m["ratio_to_gru"]) for n, m in enumerate(steps) if m]
        label = f"{NAMES['cpp']}, {machine.rpartition(', ')[2]}"
        bars.scatter(*zip(*pairs, strict=True), marker="D", s=22, color="red", label=label)
    for n, config in enumerate(MAIN):
        for path, target in CASES[config].targets:
            x = n + 0.16 * (paths.index(path) - 2)
            bars.plot([x - 0.08, x + 0.08], [target, target], color="black", linewidth=1.5)
    bars.axhline(1, color="0.4", linewidth=1)
    bars.set_xticks(range(len(MAIN)), [name.replace(", ", "\n") for name in MAIN.values()])
    bars.set_ylabel("time of a step relative to a 4-layer nn.GRU of equal size")
    bars.set_title(f"{name}, {threads} threads (black: target)", fontsize=10)
    bars.set_ylim(top=1.4)  # above the bars is the legend
    bars.legend(fontsize=8, frameon=False, ncol=2, loc="upper left")
    configs = SCALING["modules, center of 256 features"]
    counts = [int(config.rpartition("modules")[2]) for config in configs]
    for path in ("cpp", "fused", "batched"):
        series = [m for config in configs if (m := pick(measurements, config, path, threads))]
        if len(series) == len(configs):
            times = [1e3 * m["seconds"] for m in series]
            lines.plot(counts, times, marker="o", label=NAMES[path])
    lines.set_xscale("log", base=2)
    lines.set_xticks(counts, counts)
    lines.set_ylim(bottom=0)
    lines.set_xlabel("modules, 256 features in total")
    lines.set_ylabel("ms per step")
    lines.set_title("more and smaller modules", fontsize=10)
    lines.legend(fontsize=8, frameon=False)
    for axes in (bars, lines):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
