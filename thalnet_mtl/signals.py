"""Stop requests: Ctrl+C, SIGTERM and SIGHUP ask a run or a sweep to stop; the second one aborts it.

A signal that is ignored stays ignored, as SIGHUP is under ``nohup``.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END_WITH_PARENT = "THALNET_END_WITH_PARENT"  # in the environment of a process; see below


class StopRequested(KeyboardInterrupt):
    """A stop request that ended an interruptible block."""


class StopRequest:
    """The number of stop signals that have arrived."""

    def __init__(self) -> None:
        self.count = 0
        self.interruptible = False  # whether the next signal ends the block that is running

    def requested(self) -> bool:
        """Return whether at least one signal has arrived."""
        return self.count > 0


_current: StopRequest | None = None  # of the main thread


@contextmanager
def stop_signals(
    announce: Callable[[int], None], abort: bool = True, interrupts: bool = True
) -> Iterator[StopRequest]:
    """Count stop signals instead of dying of them, as long as the context lasts.

    The owner of the context looks at the request between two steps or runs, saves and stops.

    Args:
        announce: Called with the number of signals so far, to tell the user what happens next.
        abort: Let the second signal of a kind go to the handler that was installed before. If
            False, later signals are only counted, for an owner that passes them on to processes.
        interrupts: Let a signal end an ``interruptible`` block.
    """
    global _current
    request = StopRequest()

    def count(number: int, frame: Any) -> None:
        request.count += 1
        if abort:
            signal.signal(number, previous[number])
        with suppress(RuntimeError):  # the signal came while a line was printed
            announce(request.count)
        if request.interruptible:
            raise StopRequested

    previous = _install(count)
    outer = _current
    try:
        if previous and interrupts:
            _current = request
        yield request
    finally:
        _current = outer
        _restore(previous)


@contextmanager
def interruptible() -> Iterator[None]:
    """Context manager for a long block that changes nothing: a stop request ends it at once.

    Only within ``stop_signals``; elsewhere the block is left alone.

    Raises:
        StopRequested: a signal has arrived, before the block or in it.
    """
    request = _current
    if request is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    if request.requested():
        raise StopRequested
    before, request.interruptible = request.interruptible, True
    try:
        yield
    finally:
        request.interruptible = before


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Context manager in which SIGTERM and SIGHUP do what Ctrl+C does: ``KeyboardInterrupt``."""

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    previous = _install(interrupt)
    try:
        yield
    finally:
        _restore(previous)


def end_with_parent() -> None:
    """Send SIGTERM to this process when the one that started it ends, however it ends.

    Only in a process with ``END_WITH_PARENT`` in its environment. Its standard input is a pipe that
    the parent never writes to, and that the system closes when the parent has ended.
    """

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.pop(END_WITH_PARENT, ""):
        threading.Thread(target=wait, daemon=True).start()


def _install(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Install a handler for all signals that are not ignored; return the handlers of before."""
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    previous = {k: before for k, before in previous.items() if before is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        return {}
    for number in previous:
        signal.signal(number, handler)
    return previous


def _restore(previous: dict[int, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)
