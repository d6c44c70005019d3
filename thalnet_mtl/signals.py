"""Stop requests: Ctrl+C and SIGTERM ask a run or a sweep to stop; the second signal aborts it."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """The number of stop signals that have arrived."""

    def __init__(self) -> None:
        self.count = 0

    def requested(self) -> bool:
        """Return whether at least one signal has arrived."""
        return self.count > 0


@contextmanager
def stop_signals(
    announce: Callable[[int], None],
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    abort: bool = True,
) -> Iterator[StopRequest]:
    """Count stop signals instead of dying of them, as long as the context lasts.

    The owner of the context looks at the request between two steps or runs, saves and stops.

    Args:
        announce: Called with the number of signals so far, to tell the user what happens next.
        signals: The signals that are caught. Their handlers are restored at the end.
        abort: Let the second signal of a kind go to the handler that was installed before. If
            False, later signals are only counted, for an owner that passes them on to processes.
    """
    request = StopRequest()

    def count(number: int, frame: Any) -> None:
        request.count += 1
        announce(request.count)
        if abort:
            signal.signal(number, previous[number])

    previous: dict[int, Any] = {number: signal.getsignal(number) for number in signals}
    try:
        for number in previous:
            signal.signal(number, count)
    except ValueError:  # outside the main thread, which alone receives signals
        previous.clear()
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
