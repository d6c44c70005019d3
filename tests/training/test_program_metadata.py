"""The metadata of an exported program is all that its caller needs."""

import json
import subprocess
import sys
from pathlib import Path

import onnx_client
import pytest
import torch
from toy_tasks import toy

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.programs import Step
from thalnet_mtl.models.recurrent import RecurrentBody
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.program_metadata import metadata
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train

ORDER = torch.randperm(12, generator=torch.Generator().manual_seed(4))


@register("task", "toy_shuffled")
def toy_shuffled(every_step: bool = False) -> SequenceTask:
    """Which column is brightest: 4 rows of 3 bytes, in another order, with names and a scaling."""

    def load():
        xs = torch.randint(256, (300, 4, 3), generator=torch.Generator().manual_seed(0))
        ys = xs.float().mean(1).argmax(-1)
        if every_step:
            ys = ys[:, None].expand(-1, 4)
        return {
            "train": (xs[:200].to(torch.uint8), ys[:200]),
            "validation": (xs[200:250].to(torch.uint8), ys[200:250]),
            "test": (xs[250:].to(torch.uint8), ys[250:]),
        }

    return SequenceTask(
        "toy_shuffled", load, TaskSpec(3, 3, steps=4, every_step=every_step), scale=255,
        order=ORDER, standardize=True, class_names=["lé", "mid", "<right>"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model, steps = {"body": "gru", "features": 9, "layers": 1}, {"steps": 150}
    train(toy(task={"name": "toy_shuffled"}, model=model, train=steps), folder)
    return load_run(folder)


@pytest.mark.parametrize("whole", [True, False])
def test_raw_sequences_are_classified_with_nothing_but_onnxruntime(run, whole, tmp_path):
    task = run.task().load("cpu")
    raw = task.read_splits()["test"][0].tolist()
    path = run.export("onnx", tmp_path / "program.onnx", lengths=whole, license="mit")
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    client = Path(onnx_client.__file__)
    command = [sys.executable, "-W", "ignore", str(client), str(path), str(tmp_path / "raw.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    batch = next(task.iterate("test", 50, 0))
    answers = run.network("toy_shuffled", batch.xs)[0].argmax(1)
    assert json.loads(done.stdout) == [task.class_names[k] for k in answers]
    unordered = batch.xs.flatten(1)[:, ORDER.argsort()].view_as(batch.xs)
    others = run.network("toy_shuffled", unordered)[0].argmax(1)
    assert (answers == batch.ys).float().mean() > 0.5 > (answers == others).float().mean()


def test_the_license_and_the_versions_are_in_the_metadata(run):
    program = Step(run.network, "toy_shuffled")
    facts = metadata(run.task(), program, "cc-by-4.0")
    assert facts["license"] == "cc-by-4.0" and facts["head"] == "toy_shuffled"
    assert json.loads(facts["versions"])["torch"] == torch.__version__
    assert metadata(run.task(), program)["license"] == "unknown"
    scaling = json.loads(facts["scaling"])
    assert scaling["inputs"]["mean"] == pytest.approx(list(run.task().scalings[0].mean))
    assert scaling["outputs"] is None


class Started(torch.nn.GRU):
    """A GRU of 2 numbers."""


class StartedBody(RecurrentBody):
    def initial(self, xs):
        state = super().initial(xs)
        return state + torch.arange(state.shape[-1]).to(state)


def test_a_state_that_does_not_start_at_zero_is_written_out(run):
    network = Network(StartedBody(Started(3, 2, batch_first=True)))
    network.add_task("toy_shuffled", TaskSpec(3, 3, steps=4))
    facts = metadata(run.task(), Step(network, "toy_shuffled"))
    [state] = json.loads(facts["states"])
    assert state["start"] == [[0.0, 1.0]] and state["shape"] == ["batch", 1, 2]
    [zero] = json.loads(metadata(run.task(), Step(run.network, "toy_shuffled"))["states"])
    assert zero["start"] == 0.0 and zero["next"] == "state0_next"
