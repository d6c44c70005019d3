"""Processes such as ``torchrun`` starts, forked, so that each of them need not import torch."""

import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch.distributed as dist


class Failure(NamedTuple):
    """An exception that has left a function."""

    kind: type[BaseException]
    text: str


def in_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a function returns in each of some processes, or how it fails there.

    A process that ends without either counts as the number with which it ended.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # of torchrun
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(
            target=_work, args=(rank, size, store.port, ends[rank][1], function, arguments)
        )
        for rank in range(size)
    ]
    for process in processes:
        process.start()
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
    try:
        result = function(*arguments)
    except BaseException as error:
        result = Failure(type(error), str(error))
    end.send_bytes(pickle.dumps(result))
