"""Ranks as forked processes of this one, which has imported PyTorch already."""

import io
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from thalnet_mtl.training.ranks import ALONE, Ranks


def on_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Return what a function returns on each rank. A single rank is this process."""
    if size == 1:
        return [work(ALONE)]
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_run, args=(Ranks(rank, size), folder, work, pipe))
            for rank, (_, pipe) in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        results = []
        for (receiver, sender), process in zip(pipes, processes, strict=True):
            sender.close()
            results.append(_receive(receiver))
            process.join()
    errors = [error for error, _ in results if error]
    assert not errors, "\n".join(errors)
    return [value for _, value in results]


def _receive(pipe: Connection) -> tuple[str, Any]:
    try:
        error, value = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
    except EOFError:
        return "a rank has ended without a result", None
    return error, value


def _run(ranks: Ranks, folder: str, work: Callable[[Ranks], Any], pipe: Connection) -> None:
    """Send what a function returns here, or the text of its error."""
    result: tuple[str, Any] = "", None
    try:
        method = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=method, rank=ranks.rank, world_size=ranks.size)
        result = "", work(ranks)
        dist.destroy_process_group()
    except BaseException:
        result = f"rank {ranks.rank}: {traceback.format_exc()}", None
    file = io.BytesIO()
    torch.save(result, file)
    pipe.send_bytes(file.getvalue())
    os._exit(0)  # without what pytest does at an exit


def assert_alike(first: Any, second: Any, **tolerance: float) -> None:
    """Compare nested tensors to a tolerance, and everything else exactly."""
    first, second = (
        {keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}
        for tree in (first, second)
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(
                value, second[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
            )
        else:
            assert value == second[name], name
