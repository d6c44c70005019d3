"""Which modules of any design and reading can run as one, see ``stacked_cells``.

Not every design allows it. Whether some modules do is tried once, on random inputs of their sizes:
results and gradients must equal those of each module alone.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import one_line
from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.ops.demands import demands
from thalnet_mtl.ops.layout import has_hooks
from thalnet_mtl.ops.lengths import Packing
from thalnet_mtl.ops.reference import advance, matrix
from thalnet_mtl.ops.stacked_cells import StackedCells

LEAST = 5  # modules for which a call of all is faster than a call of each
ROWS = 3  # of the batch on which modules are tried
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest number of a result
COARSE = 2e-2  # the same for other types
# Attributes of every nn.Module that say nothing about what it computes. Whether a module is in
# training mode matters only to some, which the trial finds.
COMMON = frozenset(vars(nn.Module())) | {"_frozen", "_requested_mode"}
PLAIN_VALUES = (int, float, str, bool, type(None), torch.dtype, type, type(len), type(one_line))


def stacked_groups(
    cells: Sequence[PlacedCell], placement: Placement, like: Tensor
) -> list[list[PlacedCell]]:
    """Return the groups of those modules that run as one; ``like`` has type and device."""
    if len(cells) < LEAST or any(demands(like)):
        return []
    return [group for group in _alike(cells) if _refusal(group, placement, like) is None]


def describe(
    cells: Sequence[PlacedCell], placement: Placement, like: Tensor
) -> Iterator[tuple[str, str]]:
    """Yield the names of modules, and whether they run as one, or why they run one by one."""
    for group in _alike(cells):
        names = ", ".join(cell.name for cell in group)
        reason = _refusal(group, placement, like)
        if reason is None:
            yield names, f"batched: {len(group)} modules in one call"
        else:
            yield names, f"one by one: {reason}"


def _refusal(group: Sequence[PlacedCell], placement: Placement, like: Tensor) -> str | None:
    """Return why equal modules cannot run as one, None if they can. They are tried once."""
    if len(group) < LEAST:
        count = "no module is equal" if len(group) == 1 else f"only {len(group)} are equal"
        return f"{count}, and one call pays off from {LEAST} on"
    reason = next((why for cell in group if (why := _peculiarity(cell))), None)
    if reason is not None:
        return reason
    modes = tuple((cell.design.training, cell.reading.training) for cell in group)
    kind = like.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    names = tuple(cell.name for cell in group)
    key = "stacked", names, modes, like.dtype, like.device, autocast
    if key not in placement.cache:
        placement.cache[key] = _try(group, placement, like)
    reason = placement.cache[key]
    assert reason is None or isinstance(reason, str)
    return reason


def _peculiarity(cell: PlacedCell) -> str | None:
    """Return what a module has that a call with the parameters of another could miss."""
    for part in _called(cell):
        for module in part.modules():
            kind = type(module).__name__
            if has_hooks(module):
                return f"{kind} has hooks"
            for name, value in _attributes(module).items():
                if not _is_plain(value):
                    return f"the attribute '{name}' of {kind} may differ from module to module"
    return None


def _is_plain(value: Any) -> bool:
    """Return whether two values of a type can be compared."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return isinstance(value, PLAIN_VALUES)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module holds beside parameters, buffers and submodules."""
    return {name: value for name, value in vars(module).items() if name not in COMMON}


def _alike(cells: Sequence[PlacedCell]) -> list[list[PlacedCell]]:
    """Group modules that differ in nothing but numbers, names and places."""
    groups: list[tuple[Any, list[PlacedCell]]] = []
    for cell in cells:
        sizes = cell.slot.stop - cell.slot.start, cell.memory.stop - cell.memory.start, cell.inputs
        key = sizes, cell.context, cell.reading.dynamic, list(map(_structure, _called(cell)))
        for other, group in groups:
            if other == key:
                group.append(cell)
                break
        else:
            groups.append((key, [cell]))
    return [group for _, group in groups]


def _called(cell: PlacedCell) -> list[nn.Module]:
    """Return the parts of a module that are called at every step."""
    return [cell.design, cell.reading] if cell.reading.dynamic else [cell.design]


def _structure(root: nn.Module) -> list[Any]:
    """Return classes, shapes and attributes of a module and all of its parts."""
    structure: list[Any] = []
    for name, module in root.named_modules():
        tensors = [
            (key, value if value is None else (value.shape, value.dtype, value.device))
            for key, value in (*module._parameters.items(), *module._buffers.items())
        ]
        plain = {k: v for k, v in _attributes(module).items() if _is_plain(v)}
        structure.append((name, type(module), tensors, plain))
    return structure


def _try(group: Sequence[PlacedCell], placement: Placement, like: Tensor) -> str | None:
    """Return why equal modules cannot run as one, from a step of copies on random numbers."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        return values.to(like).requires_grad_()

    first, devices = group[0], [like.device] if like.device.type == "cuda" else []
    width = placement.center_width
    x, center = random(len(group), ROWS, first.inputs), random(ROWS, width)
    memory = random(len(group), ROWS, first.memory.stop - first.memory.start)
    with torch.random.fork_rng(devices), warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("error", message=".*performance drop")
        try:
            cells = [copy.deepcopy(cell) for cell in group]
            for cell in cells:
                cell.reading.requires_grad_(), cell.design.requires_grad_()
            before = [_snapshot(cell) for cell in cells]
            alone = _one_by_one(cells, x, center, memory)
            if any(map(_differs, before, map(_snapshot, cells))):
                return f"{type(first.design).__name__} changes its own buffers or attributes"
            xs = {cell.name: rows[:, None] for cell, rows in zip(cells, x, strict=True)}
            together = StackedCells(cells, xs, width, Packing(xs[first.name], None), {})
            results = together.step(0, center, memory)
            leaves = [x, center, memory, *(p for c in cells for p in _trained(c))]
            got, expected = (_with_gradients(each, leaves) for each in (results, alone))
        except Exception as error:  # whatever a design of somebody else may raise here
            return one_line(str(error)).partition(". ")[0] or type(error).__name__
    for value, right in zip(got, expected, strict=True):
        limit = TOLERANCE.get(like.dtype, COARSE) if not torch.is_autocast_enabled() else COARSE
        if not (value - right).abs().sum() <= limit * (right.abs().sum() + limit):
            return f"{type(first.design).__name__} computes something else in one call"
    return None


def _one_by_one(
    cells: Sequence[PlacedCell], x: Tensor, center: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """Return features and memories after a step of each module."""
    outcomes = [
        advance(
            cell,
            None if cell.reading.dynamic else matrix(cell),
            rows if cell.inputs else None,
            center,
            state,
        )
        for cell, rows, state in zip(cells, x, memory, strict=True)
    ]
    features, states = zip(*outcomes, strict=True)
    return torch.stack(features), torch.stack(states)


def _trained(cell: PlacedCell) -> Iterator[Tensor]:
    """Yield the parameters of a module that autograd can differentiate."""
    for part in (cell.reading, cell.design):
        yield from part.parameters()


def _with_gradients(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return results, and the gradients of a weighted sum of them w.r.t. the leaves."""
    terms = [(r * torch.linspace(0.5, 1.5, r.numel()).to(r).view_as(r)).sum() for r in results]
    gradients = torch.autograd.grad(torch.stack(terms).sum(), leaves, allow_unused=True)
    return [
        *(result.detach() for result in results),
        *(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)),
    ]


def _snapshot(cell: PlacedCell) -> list[tuple[Any, dict[str, Tensor]]]:
    """Return a copy of what a module holds beside its parameters."""
    return [
        (
            [copy.deepcopy(_attributes(module)) for module in part.modules()],
            {name: buffer.clone() for name, buffer in part.named_buffers()},
        )
        for part in (cell.reading, cell.design)
    ]


def _differs(before: Any, after: Any) -> bool:
    for (attributes, buffers), (now, now_buffers) in zip(before, after, strict=True):
        if attributes != now or buffers.keys() != now_buffers.keys():
            return True
        if not all(torch.equal(buffer, now_buffers[name]) for name, buffer in buffers.items()):
            return True
    return False
