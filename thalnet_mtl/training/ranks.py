"""Processes that train one run together, as ``torchrun`` starts them: the ranks of a run.

Every rank builds the whole run and takes all of its steps. In a step each draws the same batch,
computes the gradients of its share of the rows, and adds them up with those of the other ranks.
From there on all compute alike: the strategy, clipping, the optimizer, changes of the network,
validation. Rank 0 alone writes; the others write to a folder that is deleted at the end.

The sums are plain collectives of ``torch.distributed``, not ``DistributedDataParallel``. That
averages means over unequal shares, wants the same parameters to get a gradient in every step, must
not see a parameter added or removed, and sums only what ``backward`` accumulates, while aggregators
need the gradient of every task for itself.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map

from thalnet_mtl.errors import RunError, UserError, describe_os_error
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.ops.batch_rows import BatchRows
from thalnet_mtl.training.launched import (
    attempt,
    place_on_machine,
    rank_and_size,
    several_processes,
)

TIMEOUT = timedelta(minutes=30)  # that a rank waits for others: one may download the data
PATIENCE = 3.0  # seconds that a rank with an error waits for those of others
SAME = "All need the same command, data and version of thalnet_mtl."
_groups = 0  # that this process has made; each has its own keys in the store


class RankLost(RunError):
    """Another rank has ended, or has not answered in time."""


class Ranks:
    """The processes of a run, seen from one of them; without arguments the only one.

    Every method but ``share`` and ``rows`` must be called by all ranks, in the same order.

    Args:
        rank: number of this process, from 0.
        size: their number.
        store: where ranks leave their errors for others; None if there is none.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: "dist.Store | None" = None):
        self.rank, self.size, self.store = rank, size, store

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return self.size > 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes the run."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """Return the rows of a batch that are counted here; none if there are too few for all."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def rows(self, total: int) -> BatchRows:
        """Return the rows of a batch that are computed here: at least one, perhaps not counted."""
        share = self.share(total)
        start = min(share.start, total - 1)
        return BatchRows(start, max(share.stop, start + 1), total)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one kind by their sums over all ranks: the same bits on each of them.

        Several tensors are sent as one, because ranks wait longer than they send.
        """
        if self.several and tensors:
            joined = torch.cat([tensor.flatten() for tensor in tensors])
            with _waiting():
                dist.all_reduce(joined)
            parts = joined.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def whole_rows(self, own: Tensor, total: int) -> Tensor:
        """Return a tensor with all rows of a batch, of that with the rows computed here."""
        if not self.several:
            return own
        share = self.share(total)
        whole = own.new_zeros(total, *own.shape[1:])
        whole[share] = own[: share.stop - share.start]
        self.sum([whole])  # nothing is added to a row but zeros
        return whole

    def any(self, here: bool) -> bool:
        """Return whether something holds on at least one rank."""
        return any(self.gather(here))

    def gather(self, value: Any) -> list[Any]:
        """Return a value of every rank, in their order. Values are pickled."""
        values = [value] * self.size
        if self.several:
            with _waiting():
                dist.all_gather_object(values, value)
        return values

    def first(self, value: Callable[[], Any]) -> Any:
        """Return what a function returns on rank 0, the only one to call it; or raise its error."""
        if not self.several:
            return value()
        values = [None]
        with self.agreed():
            values = [value()] if self.writes else values
        with _waiting():
            dist.broadcast_object_list(values)
        return values[0]

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Raise on every rank what one of them raises in a block that waits for no other rank.

        Rank 0 reports it, with the rank where it comes from another one.
        """
        error: Exception | None = None
        try:
            yield
        except (UserError, RunError, OSError) as raised:
            if not self.several:
                raise
            error = raised
        kinds = isinstance(error, UserError), _text(error)
        errors = self.gather(kinds if error else None)
        failed = [rank for rank, found in enumerate(errors) if found]
        if not failed:
            return
        is_mistake, text = errors[failed[0]]
        if error is None or failed[0] != self.rank:
            kind = UserError if is_mistake else RunError
            error = kind(f"rank {failed[0]}: {text}" if failed[0] else text)
        raise _marked(error, silent=not self.writes)

    def check_same(self, facts: Mapping[str, Any], hint: str = SAME) -> None:
        """Raise unless facts are the same on all ranks; they are compared by their texts.

        Args:
            facts: by name.
            hint: a sentence on what all ranks need.

        Raises:
            UserError: one differs; says which, and where.
        """
        if not self.several:
            return
        first, *others = self.gather({name: str(value) for name, value in facts.items()})
        for rank, found in enumerate(others, 1):
            for name in [*first, *found]:
                if found.get(name) != first.get(name):
                    there, here = _short(found.get(name)), _short(first.get(name))
                    error = UserError(
                        f"the processes of this run differ: rank {rank} has {name} {there}, rank 0 "
                        f"{here}. {hint}"
                    )
                    raise _marked(error, silent=not self.writes)

    def gather_rows(self, state: Any, total: int) -> Any:
        """Return a recurrent state of all rows of a batch, of that of the rows computed here."""
        counted = self.share(total)
        here = map_state(lambda part: part[: counted.stop - counted.start].cpu(), state)
        return tree_map(lambda *parts: torch.cat(parts), *self.gather(here))

    def explained(self, error: BaseException) -> BaseException:
        """Return the error with which this rank ends, once others have left theirs.

        It is silent if rank 0 reports an error of its own; where another rank is lost, it says why.
        """
        if self.store is None or getattr(error, "silent", None) is not None:
            return error
        if isinstance(error, RankLost):
            errors = self._errors(wait=0)
            return next((RankLost(f"rank {r} has ended: {t}") for r, t in errors.items()), error)
        with suppress(RuntimeError):  # the process that holds the store has ended
            self.store.set(f"error {self.rank}", _text(error))
        errors = self._errors(wait=PATIENCE)
        return _marked(error, silent=not self.writes and 0 in errors)

    def _errors(self, wait: float) -> dict[int, str]:
        """Return the errors that ranks have left, by rank; wait some seconds for those of all."""
        found, end = dict[int, str](), time.monotonic() + wait
        with suppress(RuntimeError):  # the process that holds the store has ended
            while self.store:
                for rank in range(self.size):
                    if rank not in found and self.store.check([f"error {rank}"]):
                        found[rank] = self.store.get(f"error {rank}").decode()
                if len(found) == self.size or time.monotonic() >= end:
                    break
                time.sleep(0.02)
        return found


ALONE = Ranks()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` has started, and leave them at the end.

    Within another such context, or where ``torch.distributed`` is initialized, that group is used.

    Raises:
        UserError: variables that ``torchrun`` sets are missing or wrong.
    """
    global _groups
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if not several_processes():
        yield ALONE
        return
    rank, size = rank_and_size()
    local, processes = place_on_machine()
    gpus = processes <= torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(local)
    with _waiting():
        base, _, _ = next(dist.rendezvous("env://", rank, size, timeout=TIMEOUT))
        store = dist.PrefixStore(f"thalnet {attempt()} {_groups}", base)
        _groups += 1
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
    ranks = Ranks(rank, size, store)
    try:
        yield ranks
    except BaseException as error:
        explained = ranks.explained(error)
        if explained is error:
            raise
        raise explained from error
    finally:
        dist.destroy_process_group()


@contextmanager
def _waiting() -> Iterator[None]:
    """Context manager for a collective: its failure is that of another rank."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            f"another process of this run has ended, or has not answered for "
            f"{TIMEOUT.total_seconds() / 60:.0f} minutes; everything saved so far is kept"
        ) from error


def _marked(error: Any, silent: bool) -> Any:
    """Return an error with a mark on whether its command is to print nothing of it."""
    error.silent = silent
    return error


def _text(error: BaseException | None) -> str:
    if isinstance(error, OSError):
        return describe_os_error(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) or type(error).__name__


def _short(text: str | None) -> str:
    return str(text) if len(str(text)) <= 40 else f"{str(text)[:40]}…"
