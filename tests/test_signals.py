"""The first signal is a request to stop, and the second one aborts."""

import signal
import threading

import pytest

from thalnet_mtl.signals import stop_signals


def test_the_first_signal_is_a_request_and_the_second_goes_to_the_handler_of_before():
    counts = []
    with stop_signals(counts.append) as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGINT)
        assert stop.requested() and counts == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_abort_all_signals_are_counted():
    counts = []
    with stop_signals(counts.append, abort=False) as stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.count == 3 and counts == [1, 2, 3]


def test_handlers_are_restored_even_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError), stop_signals(print):
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise RuntimeError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_nothing_is_caught():
    requests = []

    def work():
        with stop_signals(print) as stop:
            requests.append(stop.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requests == [False]
