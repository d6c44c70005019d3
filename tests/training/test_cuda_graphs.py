"""Captured and replayed steps train as others do; tested on a CPU, without CUDA."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from toy_tasks import GROWTH, JOINT, toy

from benchmarks.continual.strategy_table import configuration
from thalnet_mtl.errors import RunError
from thalnet_mtl.training import cuda_graphs as graphs
from thalnet_mtl.training import step
from thalnet_mtl.training import trainer as training
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.cuda_graphs import WARM
from thalnet_mtl.training.step import can_capture

# Two tasks on the same sequences, and one that is only scored.
SHARED = {
    "a": {"name": "toy_kinds"},
    "b": {"name": "toy_kinds", "answer": "labels", "missing": 0.9, "inputs_of": "a"},
    "c": {"name": "toy_kinds", "head": "a", "only_scored": True},
}


def recorder(captured):
    """What CUDA does: take in now, do later, on the same memory."""

    def record(act):
        captured.append(act)
        return act

    return record


def weights(folder):
    return load_checkpoint(folder / "checkpoint" / "last.pt")


@pytest.mark.parametrize(
    ("sections", "graphs_made"),
    [
        ({"train": {"steps": 12}}, 1),
        (JOINT | {"train": {"steps": 40, "optimizer": "adam", "clip": 0.5}}, 1),
        (JOINT | {"train": {"steps": 40, "combine": "uncertainty", "draw": 1.0}}, 2),
        ({"tasks": SHARED, "train": {"steps": 12}}, 1),
        (JOINT | {"changes": GROWTH}, 1 + len({change["step"] for change in GROWTH})),
    ],
)
def test_repeated_steps_train_as_others_do(tmp_path, monkeypatch, sections, graphs_made):
    training.train(toy(**sections), tmp_path / "plain")
    captured = []
    monkeypatch.setattr(step, "can_capture", lambda config, device: True)
    monkeypatch.setattr(graphs, "cuda_recorder", lambda: recorder(captured))
    training.train(toy(**sections), tmp_path / "repeated")
    assert len(captured) == graphs_made
    plain, repeated = weights(tmp_path / "plain"), weights(tmp_path / "repeated")
    for name, weight in plain["network"].items():
        assert torch.equal(repeated["network"][name], weight), name
    for name, state in plain["carried_states"].items():
        for mine, other in zip(repeated["carried_states"][name], state, strict=True):
            assert torch.equal(mine, other), name


@pytest.mark.parametrize(
    ("kind", "captures"),
    [("labels", 1), ("numbers at every step", 1), ("named inputs", 1), ("unequal lengths", 0)],
)
def test_kinds_of_target_are_captured_unless_lengths_differ(tmp_path, monkeypatch, kind, captures):
    config = configuration("naive", kind)
    training.train(config, tmp_path / "plain")
    captured = []
    monkeypatch.setattr(step, "can_capture", lambda config, device: True)
    monkeypatch.setattr(graphs, "cuda_recorder", lambda: recorder(captured))
    training.train(config, tmp_path / "repeated")
    assert len(captured) == 2 * captures  # of two tasks, one after the other
    plain, repeated = weights(tmp_path / "plain"), weights(tmp_path / "repeated")
    for name, weight in plain["network"].items():
        assert torch.equal(repeated["network"][name], weight), name


def test_what_cannot_be_captured_is_said_in_one_line(tmp_path, monkeypatch):
    def refuse(act):
        raise RuntimeError("operation not permitted when stream is capturing.\nmore")

    monkeypatch.setattr(step, "can_capture", lambda config, device: True)
    monkeypatch.setattr(graphs, "cuda_recorder", lambda: refuse)
    with pytest.raises(RunError, match=r"^the step cannot be captured as a CUDA graph: operation"):
        training.train(toy(train={"steps": WARM + 1}), tmp_path / "run")


def test_runs_are_captured_on_streams_of_their_own(monkeypatch):
    """Graphs captured on one stream share what cuBLAS works in: PyTorch's issue 193402."""
    current, fresh, captured = ["default"], iter(["new 1", "new 2"]), []

    @contextmanager
    def graph(made, pool, stream):
        captured.append((pool, stream))
        yield

    cuda = {
        "graph_pool_handle": object,
        "current_stream": lambda: current[-1],
        "default_stream": lambda: "default",
        "Stream": lambda: next(fresh),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph": graph,
    }
    for name, stand_in in cuda.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    recorders = [graphs.cuda_recorder(), graphs.cuda_recorder()]
    for current[0] in ("a", "b"):
        recorders.append(graphs.cuda_recorder())
    for record in recorders * 2:
        record(lambda: None)
    assert [stream for _, stream in captured] == ["new 1", "new 2", "a", "b"] * 2
    pools = [pool for pool, _ in captured]
    assert pools[:4] == pools[4:] and len(set(pools)) == 4


@pytest.mark.parametrize(
    ("device", "options", "repeated"),
    [
        ("cuda", {}, True),
        ("cuda", {"combine": "uncertainty"}, True),
        ("cuda", {"combine": "upgrad"}, False),
        ("cuda", {"ops": "batched"}, False),
        ("cuda", {"optimizer": "sgd"}, False),
        ("cpu", {}, False),
    ],
)
def test_steps_are_captured_on_a_gpu_where_nothing_forbids_it(device, options, repeated):
    assert can_capture(toy(train=options), torch.device(device)) == repeated
