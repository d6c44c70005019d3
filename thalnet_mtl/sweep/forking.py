"""Runs that are forked from a process that has imported PyTorch already, instead of started anew.

The other end is ``thalnet_mtl.cli.fork_server``.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MODULE = "thalnet_mtl.cli.fork_server"


class ForkServer:
    """A process that forks for every run. It ends with this one, and asks its runs to save.

    Args:
        environment: of the process and its runs.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by ``close``)
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env=environment,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._received = b""
        self._ended: dict[str, int] = {}  # exit statuses by name, until they are asked for
        self.lost = ""  # why the server has ended early

    def start(
        self, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str]
    ) -> "ForkedProcess":
        """Run a module in a new process.

        Args:
            name: of the run; no other one that is running has it.
            command: ``python -m module argument …``.
            log: file to which the output is appended.
            variables: of its environment, beside those of the server.
        """
        _, _, module, *arguments = command
        request = {"name": name, "module": module, "arguments": arguments, "log": str(log)}
        self._send(request | {"folder": os.getcwd(), "variables": dict(variables)})
        return ForkedProcess(self, name)

    def terminate(self, name: str) -> None:
        """Send SIGTERM to a run, unless it has ended."""
        self._send({"name": name})

    def poll(self, name: str) -> int | None:
        """Return the exit status of a run, or −signal; None if there is none so far."""
        assert self._process.stdout is not None
        while not self.lost:
            try:
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                self.lost = f"the process that starts runs has ended: {self._reason()}"
                break
            *lines, self._received = (self._received + chunk).split(b"\n")
            self._ended |= {end["name"]: end["status"] for end in map(json.loads, lines)}
        return self._ended.pop(name, None)

    def close(self) -> None:
        """End the server, and so the runs that are left."""
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()

    def _send(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # ``poll`` notices that it has ended
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _reason(self) -> str:
        """Return the last line of the output of the server, or its exit status."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {status}"


@dataclass
class ForkedProcess:
    """A run of a server, with the methods of ``subprocess.Popen`` that its workers call."""

    server: ForkServer
    name: str
    lost: str = ""  # why its exit status is not known

    def poll(self) -> int | None:
        """Return the exit status, or −signal; None while it is running.

        A server that has ended leaves its runs with a SIGTERM, and without their exit status.
        """
        status = self.server.poll(self.name)
        if status is None and self.server.lost:
            self.lost = self.server.lost
            return -signal.SIGTERM
        return status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.server.terminate(self.name)
