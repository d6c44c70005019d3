"""A process that imports PyTorch once and forks for every run; sweeps start one.

    python -m thalnet_mtl.cli.fork_server

Each line of its standard input is a request in JSON, to run a module as ``python -m`` does or to
end a run; each line of its standard output says that a run has ended. A run is a process of its
own, with its own session, log, memory and GPU: whatever happens to it happens to no other one.
Nothing is computed before the fork, so that no thread and no use of a GPU is inherited.
"""

import gc
import json
import os
import runpy
import select
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from thalnet_mtl.registry import import_built_in
from thalnet_mtl.signals import END_WITH_PARENT

MODULES = (
    "torch._dynamo",  # by PyTorch's optimizers
    "thalnet_mtl.cli.main",
    "thalnet_mtl.training.flags",
    "thalnet_mtl.training.stacked",
    "thalnet_mtl.report.html",
    "thalnet_mtl.report.terminal",
    "jinja2",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.summary.writer.record_writer",
)
POLL_SECONDS = 0.05  # between two checks of which runs have ended


def main() -> None:
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what an import prints is no reply
    preload()
    run(serve(requests, replies))


def preload() -> None:
    """Import what training and its report need, and no plug-in: that may use a GPU at once."""
    for module in MODULES:
        import_module(module)
    import_built_in()
    assert not sys.modules["torch"].cuda.is_initialized()  # its GPUs would be those of all runs
    gc.freeze()  # collections in a run touch, and so copy, none of the shared memory


def serve(requests: int, replies: int) -> dict[str, Any]:
    """Fork for every request, and return it in the new process; here, never return.

    When the other end of the requests is closed, this process ends. Then standard input of its
    runs is closed as well, which asks them to save and end.
    """
    alive, lifeline = os.pipe()  # nothing is written to it
    names: dict[int, str] = {}  # of the running processes
    received = b""
    while True:
        if select.select([requests], [], [], POLL_SECONDS if names else None)[0]:
            chunk = os.read(requests, 1 << 16)
            if not chunk:
                sys.exit()
            *lines, received = (received + chunk).split(b"\n")
            for request in map(json.loads, lines):
                if "module" not in request:
                    for pid in [pid for pid, name in names.items() if name == request["name"]]:
                        os.kill(pid, signal.SIGTERM)
                    continue
                if (pid := os.fork()) == 0:
                    os.dup2(alive, 0)
                    for descriptor in (alive, lifeline, requests, replies):
                        os.close(descriptor)
                    return dict(request)
                names[pid] = request["name"]
        for pid in list(names):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                end = {"name": names.pop(pid), "status": os.waitstatus_to_exitcode(status)}
                os.write(replies, json.dumps(end).encode() + b"\n")


def run(request: dict[str, Any]) -> None:
    """Run the module of a request in this process, which ends with it.

    Args:
        request: ``module``, ``arguments``, ``variables`` of the environment, the working directory
            ``folder``, and the path ``log`` of the file to which the output is appended.
    """
    import numpy.random
    import torch

    os.setsid()  # Ctrl+C in the terminal does not reach it
    os.chdir(request["folder"])
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    os.environ |= request["variables"] | {END_WITH_PARENT: "1"}
    torch.default_generator.seed()  # what nobody has seeded differs from run to run
    numpy.random.seed()
    sys.argv = [str(Path(__file__)), *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
