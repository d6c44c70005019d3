"""The speed benchmark: its tables and measurements."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.markdown import with_table
from benchmarks.speed import lengths, run, whole_run
from benchmarks.speed.aims import AIMS, aims_table
from benchmarks.speed.floors import floor, multiplications
from benchmarks.speed.machine import record_name
from benchmarks.speed.report import by_machine, load_measurements, report

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_speed_table_is_made_from_the_raw_results():
    readme = BENCHMARKS / "speed" / "README.md"
    table = report(BENCHMARKS / "speed" / "results")
    assert table.count("\n") > 20
    assert with_table(readme.read_text(), table) == readme.read_text()


def test_the_floor_of_readings_is_worked_out_by_hand():
    # Two features, a center of six. A GRU has 6 · 4 weights, each used three times, and 8
    # exponentials at 8; the composed reading has 6 · 2 weights, the dense layer beside others 4.
    assert multiplications("linear", 2, 3) == 72 + 64 + 36
    # 12 weights of R: logits of 2 products each, three times; an exponential and 3 more.
    assert multiplications("fast_softmax", 2, 3) == 72 + 64 + 12 + 72 + 12 * 11
    # Means and variances of 4 weights each; 2 + 24 / 16 for a density, and 4 more.
    assert multiplications("fast_gaussian", 2, 3) == 72 + 64 + 12 + 24 + 12 * 7.5
    assert floor("linear-features16") == 1


def test_the_readmes_tell_the_measured_speed():
    cpu = [m for m in load_measurements(BENCHMARKS / "speed" / "results") if m["device"] == "cpu"]
    configs = "mnist50", "mnist256", "cifar50", "text8"
    kernel = [m for m in cpu if m["path"] == "cpp" and m["config"] in configs]
    for instructions, count in (("AVX-512", 4 * 2), ("AVX2", 3 * 2)):  # without text8
        ratios = [m["ratio_to_gru"] for m in kernel if m["machine"].endswith(instructions)]
        assert len(ratios) == count
        low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
        phrases = f"{low} to {high} times with {instructions}", f"{low}–{high}× with {instructions}"
        for folder in (BENCHMARKS.parent, BENCHMARKS):
            text = (folder / "README.md").read_text()
            assert any(phrase in text for phrase in phrases), (folder, phrases)


def test_a_speed_measurement_says_what_was_measured(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(run, "add_memory", lambda measurements: None)
    threads = torch.get_num_threads()
    words = ["run", "--configs", "mnist50", "--paths", "cpp", "--rounds", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", words)
    try:
        run.main()
    finally:
        torch.set_num_threads(threads)
    measurements = json.loads(out.read_text())["measurements"]
    assert {m["path"] for m in measurements} == {"gru4", "gru1", "lstm4", "cpp"}
    for m in measurements:
        assert m["seconds"] > 0 and m["device"] == "cpu" and m["precision"] == "fp32"
        assert m["ratio_to_gru"] == pytest.approx(m["seconds"] / m["baseline_seconds"])
        assert abs(m["parameters"] / 46_852 - 1) < 0.03
    assert len(capsys.readouterr().out.splitlines()) == len(measurements)


def test_the_readme_tells_what_unequal_lengths_cost():
    measurements = load_measurements(BENCHMARKS / "speed" / "results" / "lengths")
    fast = [m for m in measurements if m["path"] in ("cpp", "fused", "batched")]
    assert {m["config"] for m in fast} == {"mnist50"}
    assert {m["lengths"] for m in fast} == {"random", "nearly equal"}
    for m in fast:
        low, high = m["quartiles"]
        assert low <= m["cpu_ratio_to_padded"] <= high and m["pairs"] >= 40 and m["threads"] == 1
        assert low <= 1, m  # as the README says, within noise


def test_a_measurement_of_unequal_lengths_says_what_was_measured(tmp_path, monkeypatch, capsys):
    out, threads = tmp_path / "lengths.json", torch.get_num_threads()
    words = ["lengths", "--configs", "mnist50", "--paths", "cpp", "gru1", "--pairs", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--json", str(out)])
    try:
        lengths.main()
    finally:
        torch.set_num_threads(threads)
    measurements = json.loads(out.read_text())["measurements"]
    names = [(m["path"], m["lengths"]) for m in measurements]
    assert names == [(p, kind) for p in ("cpp", "gru1") for kind in ("random", "nearly equal")]
    for m in measurements:
        drawn = lengths.draw_lengths(lengths.CASES["mnist50"], m["lengths"])
        assert m["real_steps"] == pytest.approx(drawn.sum().item() / (50 * 28))
        assert m["cpu_seconds"] > 0 and m["threads"] == 1 and m["pairs"] == 2
    assert len(capsys.readouterr().out.splitlines()) == len(measurements)


def test_a_step_with_lengths_reads_the_last_real_steps():
    case = lengths.CASES["mnist50"]
    drawn = lengths.draw_lengths(case, "random")
    step = lengths.step_of(case, "batched", drawn)
    alone = [step.net(x[None, :n])[0][0, -1] for x, n in zip(step.xs, drawn, strict=True)]
    loss = torch.nn.functional.cross_entropy(step.head(torch.stack(alone)), step.ys)
    expected = torch.autograd.grad(loss, step.head.weight)[0]
    step()
    torch.testing.assert_close(step.head.weight.grad, expected)


def test_what_was_reached_stands_beside_every_aim():
    whole = [
        {"what": "steps", "config": "mnist50", "throughput_to_bare": 0.9712},
        {"what": "steps", "config": "cifar50", "throughput_to_bare": 0.9649},
        {"what": "joint", "to_sum_of_parts": 0.96},
        {"what": "growth", "rule": "changes", "milliseconds": 50.4},
    ]
    steps = [
        {"config": f"center256-modules{n}", "path": "cpp", "threads": threads, "device": "cpu",
         "cpu_seconds": 1.0, "seconds": seconds}
        for n, threads, seconds in ((4, 1, 1), (64, 1, 1), (4, 2, 2.0), (64, 2, 2.5))
    ]  # fmt: skip
    table = aims_table({"one": [*steps, *whole], "two": []}).splitlines()
    assert table[0].endswith("| one | two |") and len(table) == 2 + len(AIMS)
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in table}
    train = "| throughput of `thalnet train`"
    assert cells[f"{train}, MNIST rows, batch 50, × bare step"][:2] == ["≥ 0.970", "0.971"]
    assert cells[f"{train}, CIFAR-10 rows, batch 50, × bare step"][1] == "0.965 (missed)"
    assert cells["| joint step of three tasks, × sum of its parts"][1] == "0.96"
    assert cells["| growth by a configured change, ms"][1] == "50 (missed)"
    assert cells["| 64 modules of a center of 256, × 4 modules"][:2] == ["≤ 1.30", "1.25"]
    assert all(line.endswith("| not measured |") for line in table[2:])


def test_records_of_two_instruction_sets_stand_side_by_side(tmp_path, monkeypatch):
    results = BENCHMARKS / "speed" / "results"
    record = json.loads((results / "cpu.json").read_text())
    for folder in ("lengths", "ranks"):
        shutil.copytree(results / folder, tmp_path / folder)
    for name in ("", "avx2"):
        monkeypatch.setenv("THALNET_INSTRUCTIONS", name)
        record["instructions"] = name.upper() or "AVX-512"
        (tmp_path / record_name("cpu")).write_text(json.dumps(record))
    names = list(by_machine(load_measurements(tmp_path)))
    assert [name.rpartition(", ")[2] for name in names] == ["AVX-512", "AVX2"]
    text = report(tmp_path)
    assert all(f"**{name}**" in text for name in names) and f"| {' | '.join(names)} |" in text


def test_steps_of_a_run_are_timed_without_the_scores_of_new_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_run, "process_time", iter(range(1000)).__next__)
    config = {
        "tasks": {"a": {"name": "digits_rows"}, "b": {"name": "digits_rows"}},
        "stream": [{"tasks": ["a"], "steps": 2}, {"tasks": ["b"], "steps": 2}],
        "model": {"modules": 1, "features": 4},
        "growth": {"when": "per_task", "modules": {"new": {"output": True, "tasks": ["new"]}}},
        "evaluate": {"every": 10, "batches": 1},
    }
    threads = torch.get_num_threads()
    try:
        with whole_run.trainer(config, folder=tmp_path / "run") as trainer:
            times = list(whole_run._step_times(trainer))
    finally:
        torch.set_num_threads(threads)
    assert trainer.run.step == 4 and len(trainer.run.network.body.graph) == 2
    # A clock that ticks when it is read: twice for a step, and twice more for a score, which is 1.
    assert times == [1, 1, 2, 1]
