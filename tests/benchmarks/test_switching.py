"""The benchmark of growth within a task: what it compares, and that it goes on where it stopped."""

import json

import torch

from benchmarks.search import switching
from thalnet_mtl.tasks.switching import FORCES
from thalnet_mtl.training.setup import set_up


def test_the_oracle_has_a_module_for_each_rule_and_the_same_training():
    for rules in switching.RULES:
        growing, oracle = switching.growing(rules, 3), switching.with_all(rules, 3, 500)
        assert len(growing.modules) == 1 and len(oracle.modules) == rules
        assert growing.growth.when == "search" and oracle.growth.when == "never"
        assert all(module.reads == (name,) for name, module in oracle.modules.items())
        assert oracle.train.steps == 500 < growing.train.steps
        for key in ("batch", "optimizer", "learning_rate", "clip", "seed"):
            assert getattr(oracle.train, key) == getattr(growing.train, key)
        assert growing.task == oracle.task and growing.task.options["rules"] == rules
        module = vars(set_up(oracle, fetch=print).network.body.graph["m1"])
        assert module == vars(set_up(growing, fetch=print).network.body.graph["m1"])


def test_modules_of_the_oracle_move_only_with_their_rule():
    """A GRU keeps its state where its update gate is 1."""
    network = switching.told(switching.with_all(4, 3, 500))
    inputs = torch.zeros(4, 1, FORCES + 4)
    inputs[range(4), 0, FORCES + torch.arange(4)] = 1
    inputs[..., :FORCES] = torch.randn(FORCES)
    with torch.no_grad():
        features, _ = network.features("switching_dynamics", inputs)
    moved = features.view(4, 4, 2).norm(dim=-1)
    others = moved.masked_fill(torch.eye(4, dtype=torch.bool), 0).amax(dim=0)
    assert (moved.diag() > 10 * others).all()


def test_what_is_recorded_is_not_trained_again(tmp_path, monkeypatch):
    done = []

    def compare(rules, seed):
        done.append((rules, seed))
        if len(done) == 6:
            raise KeyboardInterrupt
        losses = {"loss": 0.02, "at_once": 0.08, "oracle": 0.04}
        return {"rules": rules, "seed": seed, "modules": rules + seed % 2, "cost": 1.25, **losses}

    monkeypatch.setattr(switching, "compare", compare)
    (tmp_path / "SWITCHING.md").write_text("<!-- results -->\n<!-- end of results -->\n")
    records = ["--folder", str(tmp_path)]
    try:
        switching.main(records)
    except KeyboardInterrupt:
        switching.main(records)
    assert len(done) == 1 + len(switching.RULES) * len(switching.SEEDS)
    assert len(set(done)) == len(done) - 1
    lines = (tmp_path / "results" / "switching.jsonl").read_text().splitlines()
    assert {(r["rules"], r["seed"]) for r in map(json.loads, lines)} == set(done)
    page = (tmp_path / "SWITCHING.md").read_text()
    assert "| 8 | 8 | 8.5 (8 9 8 9 8 9 8 9) | 0.0200 | 0.0800 | 0.0400 | 0.50 | 1.25 |" in page
