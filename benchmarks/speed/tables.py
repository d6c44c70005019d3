"""Tables and the plot of all measurements in a folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.cases import CASES

Measurement = dict[str, Any]

NAMES = {
    "cpp": "ThalNet, C++",
    "fused": "ThalNet, one node in PyTorch",
    "batched": "ThalNet, batched",
    "reference": "ThalNet, as defined",
    "triton": "ThalNet, Triton",
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
GROWTH = {
    "modules, center 256": [f"center256-modules{n}" for n in (4, 8, 16, 32, 64)],
    "modules of 16 features": [f"features16-modules{n}" for n in (4, 16, 64)],
    "steps (28 rows are 1)": [f"steps{n}" for n in (28, 112, 784)],
}
DYNAMIC = [
    f"{reading}-features{features}"
    for features in (16, 32)
    for reading in ("linear", "fast_softmax", "fast_gaussian")
]


def measurements(results: Path) -> list[Measurement]:
    """All of a folder."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    return [found for record in records for found in record["measurements"]]


def tables(results: Path) -> str:
    """Everything in Markdown."""
    found = measurements(results)
    cpu = [m for m in found if m["device"] == "cpu"]
    parts = [against_gru(cpu), growth(cpu), dynamic(cpu)]
    gpu = [m for m in found if m["device"] == "cuda"]
    parts.append(on_gpu(gpu) if gpu else "**On a GPU**: not measured; none was at hand.")
    return "\n\n".join(parts)


def pick(found: Sequence[Measurement], config: str, path: str, threads: int) -> Measurement | None:
    """One of them."""
    key = config, path, threads
    return next((m for m in found if (m["config"], m["path"], m["threads"]) == key), None)


def against_gru(found: Sequence[Measurement]) -> str:
    """Every path on the main configs, with one thread and with all."""
    many = max(m["threads"] for m in found)
    lines = [
        f"| config | path | parameters | ms, 1 thread | × GRU, processor time, 1 thread "
        f"| ms, {many} threads | **× GRU, {many} threads** | aim | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for config, name in MAIN.items():
        for path in NAMES:
            one, all_ = pick(found, config, path, 1), pick(found, config, path, many)
            if one is None or all_ is None:
                continue
            aim = dict(CASES[config].target).get(path)
            lines.append(
                f"| {name} | {NAMES[path]} | {one['parameters']:,} "
                f"| {1e3 * one['seconds']:.2f} | {one['cpu_ratio_to_gru']:.3f} "
                f"| {1e3 * all_['seconds']:.2f} | **{all_['ratio_to_gru']:.3f}** "
                f"| {f'≤ {aim}' if aim else ''} | {one['peak_bytes'] / 2**20:.0f} |"
            )
    return "\n".join(lines)


def growth(found: Sequence[Measurement]) -> str:
    """Time relative to the smallest of a family; for more steps also by step."""
    many = max(m["threads"] for m in found)
    lines = [
        f"| what grows | path | times the smallest, 1 thread | {many} threads "
        f"| × GRU of equal size, {many} threads |",
        "|---|---|---|---|---|",
    ]
    for what, configs in GROWTH.items():
        for path in ("cpp", "fused", "batched"):
            row = [[pick(found, config, path, n) for config in configs] for n in (1, many)]
            if None in row[0] + row[1]:
                continue
            times = [[m["cpu_seconds"] for m in row[0]], [m["seconds"] for m in row[1]]]
            sizes = " → ".join(config.rpartition("s")[2].lstrip("s") for config in configs)
            cells = [" → ".join(f"{t / of[0]:.2f}" for t in of) for of in times]
            ratios = " → ".join(f"{m['ratio_to_gru']:.2f}" for m in row[1])
            lines.append(f"| {what}: {sizes} | {NAMES[path]} | {' | '.join(cells)} | {ratios} |")
    return "\n".join(lines)


def dynamic(found: Sequence[Measurement]) -> str:
    """Dynamic readings against the linear one, at equal widths."""
    lines = [
        "| reading | features | path | parameters | ms, 1 thread | × linear, same path "
        "| × linear, batched |",
        "|---|---|---|---|---|---|---|",
    ]
    for config in DYNAMIC:
        reading, _, features = config.rpartition("-features")
        for path in ("cpp", "batched"):
            m = pick(found, config, path, 1)
            bases = [pick(found, f"linear-features{features}", p, 1) for p in (path, "batched")]
            if m is None or None in bases:
                continue
            ratios = [f"{m['cpu_seconds'] / base['cpu_seconds']:.2f}" for base in bases]  # type: ignore
            lines.append(
                f"| {reading} | {features} | {NAMES[path]} | {m['parameters']:,} "
                f"| {1e3 * m['seconds']:.2f} | {' | '.join(ratios)} |"
            )
    return "\n".join(lines)


def on_gpu(found: Sequence[Measurement]) -> str:
    """Step by step and as a whole-step graph, each against cuDNN in the same mode and precision."""
    paths = [path for path in NAMES if path != "gru4" and any(m["path"] == path for m in found)]
    head = ["config", "precision", "steps", "`nn.GRU`, 4 layers, ms"]
    head += [f"{NAMES[path]}, ×" for path in paths]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    by_name = {(m["config"], m["precision"], m["path"]): m for m in found}
    for config, precision in dict.fromkeys((m["config"], m["precision"]) for m in found):
        for mode, said in {"": "launched", " graphed": "graphed"}.items():
            row = [by_name.get((config, precision, path + mode)) for path in paths]
            base = by_name[config, precision, "gru4" + mode]
            cells = [config, precision, said, f"{1e3 * base['seconds']:.2f}"]
            cells += [f"{m['ratio_to_gru']:.2f}" if m else "–" for m in row]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: Path, out: Path) -> None:
    """Ratios by config and path, and how the time grows with modules."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [m for m in measurements(results) if m["device"] == "cpu"]
    many = max(m["threads"] for m in found)
    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2, 1))
    paths = ["cpp", "fused", "batched", "lstm4", "gru1"]
    for k, path in enumerate(paths):
        at, heights = [], []
        for n, config in enumerate(MAIN):
            m = pick(found, config, path, many)
            if m:
                at.append(n + 0.16 * (k - 2))
                heights.append(m["ratio_to_gru"])
        drawn = bars.bar(at, heights, 0.15, label=NAMES[path].replace("`", ""))
        bars.bar_label(drawn, fmt="%.2f", fontsize=7, padding=1)
    for n, config in enumerate(MAIN):
        for path, aim in CASES[config].target:
            x = n + 0.16 * (paths.index(path) - 2)
            bars.plot([x - 0.08, x + 0.08], [aim, aim], color="black", linewidth=1.5)
    bars.axhline(1, color="0.4", linewidth=1)
    bars.set_xticks(range(len(MAIN)), [name.replace(", ", "\n") for name in MAIN.values()])
    bars.set_ylabel("time of a step, 4-layer nn.GRU of equal size = 1")
    bars.set_title(f"CPU, {many} threads (black: the aim)", fontsize=10)
    bars.legend(fontsize=8, frameon=False)
    configs = GROWTH["modules, center 256"]
    for path in ("cpp", "fused", "batched"):
        row = [pick(found, config, path, many) for config in configs]
        if None in row:
            continue
        counts = [int(config.rpartition("modules")[2]) for config in configs]
        times = [1e3 * m["seconds"] for m in row if m]
        lines.plot(counts, times, marker="o", label=NAMES[path])
    lines.set_xscale("log", base=2)
    lines.set_xticks(counts, counts)
    lines.set_ylim(bottom=0)
    lines.set_xlabel("modules, 256 features together")
    lines.set_ylabel("ms a step")
    lines.set_title("more, smaller modules", fontsize=10)
    lines.legend(fontsize=8, frameon=False)
    for axes in (bars, lines):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
