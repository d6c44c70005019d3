"""The first signal is a request to stop, and the second one aborts."""

import os
import signal
import threading
import time

import pytest

from thalnet_mtl.signals import (
    StopRequested,
    interruptible,
    signals_interrupt,
    stop_signals,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of a program in a terminal, and those of before after the test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send_soon(number: int, seconds: float = 0.1) -> None:
    """Send a signal to this process while it does something else."""
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


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
        for number in (*SIGNALS, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.count == 4 and counts == [1, 2, 3, 4]


def test_handlers_are_restored_even_after_an_error():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError), stop_signals(print):
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise RuntimeError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_nothing_is_caught():
    requests = []

    def work():
        with stop_signals(print) as stop, interruptible(), signals_interrupt():
            requests.append(stop.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requests == [False]


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with stop_signals(print) as stop, signals_interrupt():
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_ends_an_interruptible_block_at_once_and_only_that(number):
    start, reached = time.monotonic(), []
    with stop_signals(lambda count: None) as stop:
        send_soon(number)
        while not stop.requested():
            time.sleep(0.01)  # is not interrupted
        reached.append("end of a block that must not be cut")
        with pytest.raises(StopRequested), interruptible():
            reached.append("a new block after the request")
    with stop_signals(lambda count: None), pytest.raises(StopRequested):
        send_soon(number)
        with interruptible(), interruptible():
            time.sleep(60)
    assert reached == ["end of a block that must not be cut"] and time.monotonic() - start < 20


def test_after_an_inner_block_the_outer_one_can_still_be_interrupted():
    with stop_signals(lambda count: None), pytest.raises(StopRequested), interruptible():
        with interruptible():
            pass
        signal.raise_signal(signal.SIGTERM)


def test_outside_of_a_session_a_block_is_left_alone():
    with interruptible(), pytest.raises(KeyboardInterrupt) as error:
        signal.raise_signal(signal.SIGINT)
    assert error.type is KeyboardInterrupt


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_can_do_what_ctrl_c_does(number):
    with signals_interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_signal_in_the_middle_of_a_printed_line_is_still_a_request():
    def announce(count):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    with stop_signals(announce) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
