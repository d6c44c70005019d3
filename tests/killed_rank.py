"""The command line as a worker of ``torchrun`` that kills itself.

    torchrun … tests/killed_rank.py '[[1, "step", 5], [0, "write", 12]]' train digits …

The first argument says for each attempt which rank kills itself: before it takes a step, or in the
middle of the first file that it writes after that step.
"""

import json
import os
import signal
import sys

import kill
import toy_tasks  # noqa: F401

from thalnet_mtl import cli
from thalnet_mtl.training.step import TrainStep


def main() -> int:
    plan, command = json.loads(sys.argv[1]), sys.argv[2:]
    attempt, rank = (int(os.environ[name]) for name in ("TORCHELASTIC_RESTART_COUNT", "RANK"))
    if attempt < len(plan) and plan[attempt][0] == rank:
        kill_at(*plan[attempt][1:])
    return cli.main(command)


def kill_at(moment: str, step: int) -> None:
    """Let this process kill itself at a step."""
    take, first_write = TrainStep.__call__, kill.counted_calls(1)

    def killing(self, inputs):
        if self.run.step == step:
            if moment == "step":
                os.kill(os.getpid(), signal.SIGKILL)
            first_write.__enter__()
        return take(self, inputs)

    TrainStep.__call__ = killing


if __name__ == "__main__":
    sys.exit(main())
