"""Several processes take the same steps as one."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from rank_processes import in_ranks
from torch import Tensor, nn
from toy_tasks import JOINT, toy

from thalnet_mtl.config.schema import Config
from thalnet_mtl.registry import registered
from thalnet_mtl.training.ranks import process_group
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.weighting import LossWeighting

# In double precision: sums in another order differ by 1e-16 a step, and a mask, a weight of a rank
# or a state of a wrong row by far more than 1e-6. A solver of an aggregator stops at about 1e-13.
TOLERANCE = 1e-12
STEPS = 20
TWO = {"toy_rows": {}, "toy_turned": {}}


class NormWeighting(LossWeighting):
    """Weights that follow from the norm of the gradient of each task, as in GradNorm."""

    def backward(self, losses: Mapping[str, Tensor], task_parameters: Any) -> None:
        for task, loss in losses.items():
            used = [p for p in task_parameters(task).values() if p.requires_grad]
            gradients = torch.autograd.grad(loss, used, retain_graph=True, materialize_grads=True)
            norm = nn.utils.get_total_norm(gradients)
            (loss / (1 + norm)).backward(retain_graph=True)


def config_of(**sections: Any) -> Config:
    """A toy configuration whose steps a larger gradient makes larger."""
    train = {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.01}
    return toy(**sections | {"train": train | sections.get("train", {})})


CASES: dict[str, dict[str, Any]] = {
    "one task, clipped": {"train": {"clip": 0.1}},
    "fewer rows than ranks": {"train": {"batch": 2}},
    "dropout, adamw": {"train": {"dropout": 0.3, "optimizer": "adamw"}},
    "a text whose states are reset": {"tasks": {"toy_text": {"reset": 0.2}, "toy_rows": {}}},
    "unequal lengths, targets missing": {
        "task": {"name": "toy_kinds", "answer": "each", "lengths": True, "missing": 0.6},
        "train": {"batch": 5},
    },
    "batches without a target": {
        "task": {"name": "toy_kinds", "missing": 0.9},
        "train": {"batch": 3},
    },
    "weights of classes": {"task": {"name": "toy_weighted"}, "train": {"batch": 4}},
    "unequal batches, accumulated": {
        "tasks": {"toy_rows": {"weight": 0.3}, "toy_text": {"batch": 7}},
        "train": {"accumulate": 3},
    },
    "inputs shared": {"tasks": {"toy_rows": {}, "toy_turned": {"inputs_of": "toy_rows"}}},
    "uncertainty": {"tasks": TWO, "train": {"combine": "uncertainty"}},
    "cagrad, accumulated": {"tasks": TWO, "train": {"combine": "cagrad", "accumulate": 3}},
    "upgrad, some parameters shared": JOINT | {"train": {"combine": "upgrad"}},
    "norms of gradients": {"tasks": TWO, "train": {"combine": "norms"}},
}


def trained(config: Config) -> dict[str, Tensor]:
    """Weights, moments, states of all rows and losses after some steps, in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        with process_group() as ranks, registered("weighting", {"norms": NormWeighting}):
            run = set_up(config, lambda name: None, ranks=ranks)
            step, values = TrainStep(run), dict[str, Tensor]()
            for k in range(STEPS):
                losses = step(StepInputs(next_batches(run), 0.05))
                values[f"loss {k}"] = losses.nan_to_num(neginf=-1.0)
                run.state.step += 1
            values |= {name: p.detach() for name, p in run.state.named_parameters().items()}
            for task, state in run.state.carried_states.items():
                whole = ranks.gather_rows(list(state), run.batch_size(task))
                values |= {f"state {task} {k}": part for k, part in enumerate(whole)}
            return {name: value.clone() for name, value in values.items()}
    finally:
        torch.set_default_dtype(torch.float32)


def all_trained() -> dict[str, dict[str, Tensor]]:
    """What each case is trained to, by its name."""
    with process_group():
        return {name: trained(config_of(**case)) for name, case in CASES.items()}


@cache
def in_several(size: int) -> list[dict[str, dict[str, Tensor]]]:
    """``all_trained`` on every one of some ranks, which are forked once for all cases."""
    results = in_ranks(size, all_trained)
    assert all(isinstance(result, dict) for result in results), results
    return results


@cache
def in_one() -> dict[str, dict[str, Tensor]]:
    """``all_trained`` in one process."""
    return all_trained()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_ranks_take_the_steps_of_one_process(case: str, size: int) -> None:
    expected = in_one()[case]
    for found in in_several(size):
        assert found[case].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[case][name], value, rtol=0, atol=TOLERANCE)
    assert len({str(expected[f"loss {k}"]) for k in range(STEPS)}) > 1


@pytest.mark.parametrize("case", CASES)
def test_ranks_agree_to_the_bit(case: str) -> None:
    first, *others = [result[case] for result in in_several(3)]
    for other in others:
        for name, value in first.items():
            assert torch.equal(other[name], value), name


@pytest.mark.parametrize("case", ["fewer rows than ranks", "unequal lengths, targets missing"])
def test_ranks_share_an_evaluation(case: str) -> None:
    def scores() -> tuple[dict[str, float], int]:
        config = config_of(
            **CASES[case], evaluate={"batch": 29}
        )  # of the 30 of toy_kinds, 1 in the last batch
        with process_group() as ranks:
            run = set_up(config, lambda name: None, ranks=ranks)
            rows = list[int]()
            run.network.register_forward_hook(lambda *call: rows.append(len(call[1][1])))
            return run.scores(run.tasks, "test"), sum(rows)

    expected, total = scores()
    for found, count in in_ranks(3, scores):
        for task, values in expected.items():
            assert found[task] == pytest.approx(values, abs=1e-6)
        assert count < 0.4 * total
