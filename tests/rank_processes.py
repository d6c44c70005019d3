"""Processes such as ``torchrun`` starts, forked, so that each of them need not import torch."""

import faulthandler
import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from thalnet_mtl.training.ranks import Ranks, process_group

LIMIT = 100.0  # seconds after which a process that hangs says where, and ends


class Failure(NamedTuple):
    """An exception that has left a function."""

    kind: type[BaseException]
    text: str


def in_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a function returns in each of some processes, or how it fails there.

    A process that ends without either counts as the number with which it ended.
    """
    listener = socket.create_server(("localhost", 0))
    port = listener.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_work, args=(rank, size, port, ends[rank][1], function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    # The store of torchrun has a thread of its own: it is made after the last fork.
    fd = listener.detach()
    store = dist.TCPStore(
        "localhost", port, is_master=True, wait_for_workers=False, master_listen_fd=fd
    )
    results = []
    for process, (here, there) in zip(processes, ends, strict=True):
        there.close()
        try:
            results.append(pickle.loads(here.recv_bytes()))
        except EOFError:
            process.join()
            results.append(process.exitcode)
    for process in processes:
        process.join()
    del store
    return results


def _work(
    rank: int,
    size: int,
    port: int,
    end: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()})
    os.environ |= {"MASTER_ADDR": "localhost", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=2)  # standard error
    try:
        result = function(*arguments)
    except BaseException as error:
        result = Failure(type(error), str(error))
    end.send_bytes(pickle.dumps(result))


def on_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Return what a function of the ranks returns on each, in double precision.

    A single rank is this process.
    """

    def joined() -> Any:
        torch.set_default_dtype(torch.float64)
        try:
            with process_group() as ranks:
                return work(ranks)
        finally:
            torch.set_default_dtype(torch.float32)

    results = in_ranks(size, joined) if size > 1 else [joined()]
    assert not any(isinstance(result, Failure | int) for result in results), results
    return results


def assert_alike(first: Any, second: Any, tolerance: float) -> None:
    """Compare nested tensors to a tolerance, and everything else exactly."""
    first, second = (
        {keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}
        for tree in (first, second)
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, Tensor):
            other, say = second[name], f"{name}: {{}}".format
            torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance, msg=say)
        else:
            assert value == second[name], name
