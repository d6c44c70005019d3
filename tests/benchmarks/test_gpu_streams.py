"""Several runs in one process on a GPU."""

import io
import json

from benchmarks import gpu_streams
from benchmarks.records import is_finished
from thalnet_mtl.errors import RunError


def test_concurrent_runs_are_recorded_whether_they_succeed_or_not(tmp_path, monkeypatch, capsys):
    def train_stacked(configs, screen):
        """The first of a group fails."""
        for number, (folder, config) in enumerate(configs.items()):
            assert config.train.seed == int(folder.name[-1])
            folder.mkdir(parents=True)
            if number:
                (folder / "result.json").write_text(json.dumps({"seed": config.train.seed}))
                (folder / "environment.json").write_text("{}")
                (folder / "metrics.jsonl").write_text("")
        raise RunError("1 of them failed.")

    jobs = {f"run{k}": ["digits", "--train.seed", str(k)] for k in range(3)}
    monkeypatch.setattr(gpu_streams, "WIDTH", 2)
    monkeypatch.setattr(gpu_streams, "train_stacked", train_stacked)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(jobs)))
    monkeypatch.setattr(
        "sys.argv", ["gpu_streams", str(tmp_path / "runs"), str(tmp_path / "results")]
    )
    gpu_streams.main()
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert {name: "failed" in record for name, record in records.items()} == {
        "run0": True, "run1": False, "run2": True,
    }  # fmt: skip
    assert records["run0"]["failed"] == records["run2"]["failed"] == "1 of them failed."
    assert records["run1"]["result"] == {"seed": 1}
    assert records["run1"]["command"] == "thalnet train digits --train.seed 1"
    assert not is_finished(tmp_path / "results" / "run0.json")
    assert is_finished(tmp_path / "results" / "run1.json")
