"""Parts of the checkpoints of a stream that do not change any more: each is stored once.

A part is a tensor, or the records of experiences that are over, as text. Once it was the same in
several checkpoints in a row, it goes into a file of its own beside them, to which they refer. Such
a file never changes. It is on the disk before the first checkpoint that refers to it, and it is
deleted after the last one is: whenever a run is killed, its checkpoints find their parts.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.files import write_atomically

PREFIX = "part-"  # begins the names of files of parts
FILES = "part files"  # key of a checkpoint: names of the files that it refers to
REFERENCE, TEXT, ROWS = "stored in", "text", "rows"  # keys of what stands for a value
RECORDS = ("accuracy_matrix", "costs", "topology_log")  # lists that only get longer
PLAIN = ("config", "topology", "untrained")  # values that rarely change
BLOCK = 16  # records in a text
EDGE = 64  # bytes at both ends by which most changed tensors are told from unchanged ones

Place = tuple[Any, ...]  # keys and indices that lead to a value


class PartFiles:
    """The files of parts in a checkpoint folder, to which one run writes.

    Args:
        folder: of the checkpoints.
        kept: names of the files to which each checkpoint in it refers.
    """

    def __init__(self, folder: Path, kept: Mapping[str, Sequence[str]]):
        self.folder = folder
        self._used = {checkpoint: set(files) for checkpoint, files in kept.items()}
        self._last: dict[Place, tuple[Any, bytes, bytes]] = {}  # kind, ends and hash of a tensor
        self._texts: dict[Place, tuple[Any, Tensor]] = {}  # the first record of a block, its text
        self._places: dict[bytes, tuple[str, int]] = {}  # file and index by hash
        self._sizes: dict[str, int] = {}  # bytes in a file

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write a checkpoint, whose settled parts are stored once.

        Args:
            name: of the checkpoint in the folder.
            content: nested dictionaries, lists and tuples of tensors and plain values.
        """
        settled: list[tuple[bytes, Tensor, dict[str, Any]]] = []  # the dictionaries stand for them

        def refer(place: Place, tensor: Tensor) -> Any:
            tensor = tensor.cpu()
            digest = self._hash(place, tensor)
            if not digest:
                return own_storage(place, tensor)
            reference: dict[str, Any] = {}
            settled.append((digest, tensor, reference))
            return reference

        content = map_tensors(refer, self._with_texts(content, (name,)), (name,))
        self._write({digest: tensor for digest, tensor, _ in settled})
        files = sorted({self._places[digest][0] for digest, _, _ in settled})
        numbers = {file: number for number, file in enumerate(files)}
        for digest, _, reference in settled:
            file, index = self._places[digest]
            reference[REFERENCE] = [numbers[file], index]
        content[FILES] = files
        write_atomically(self.folder / name, lambda file: torch.save(content, file))
        self._used[name] = set(files)
        self._delete_unused()

    def _hash(self, place: Place, tensor: Tensor) -> bytes:
        """Return the hash of a part that has not changed, b"" for any other tensor.

        A tensor whose ends differ from those in the last checkpoint is not hashed.
        """
        data, kind = as_bytes(tensor), (tensor.dtype, tensor.shape)
        ends = data[:EDGE].tobytes() + data[-EDGE:].tobytes()
        last = self._last.get(place)
        digest = b""
        if last and last[:2] == (kind, ends):
            digest = hashlib.blake2b(data, digest_size=16, key=_key(*kind)).digest()
        self._last[place] = kind, ends, digest
        known = digest in self._places or (last and digest == last[2])
        return digest if known else b""

    def _write(self, settled: Mapping[bytes, Tensor]) -> None:
        """Write the parts that no file has yet.

        A file of which little is used any more, or that is small beside the new one, is taken into
        it: few files are left, and each part is written a few times at most.
        """
        used: dict[str, int] = {}
        for digest in settled.keys() & self._places.keys():
            file = self._places[digest][0]
            used[file] = used.get(file, 0) + settled[digest].nbytes
        fresh = settled.keys() - self._places.keys()
        size = sum(settled[digest].nbytes for digest in fresh)
        for file in sorted(used, key=used.__getitem__):
            if used[file] < self._sizes[file] / 2 or (fresh and used[file] <= 2 * size):
                size += used[file]
                fresh |= {d for d in settled if self._places.get(d, ("", 0))[0] == file}
        if fresh:
            digests = sorted(fresh)
            name = f"{PREFIX}{hashlib.blake2b(b''.join(digests), digest_size=8).hexdigest()}.pt"
            parts = [own_storage((), settled[digest]) for digest in digests]
            write_atomically(self.folder / name, lambda file: torch.save(parts, file))
            self._sizes[name] = size
            self._places |= {digest: (name, index) for index, digest in enumerate(digests)}

    def _delete_unused(self) -> None:
        """Delete the files to which no checkpoint refers."""
        used = set().union(*self._used.values())
        for path in self.folder.glob(f"{PREFIX}*.pt"):
            if path.name not in used:
                path.unlink()
        self._places = {d: place for d, place in self._places.items() if place[0] in used}

    def _with_texts(self, content: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return a checkpoint with records and plain values that rarely change as texts."""
        encoded: dict[str, Any] = {}
        for key, value in content.items():
            here = *place, key
            if key == "scores":
                encoded[key] = self._with_texts(value, here)
            elif key in PLAIN:
                encoded[key] = {TEXT: as_text(value)}
            elif key in RECORDS:
                blocks = [value[start : start + BLOCK] for start in range(0, len(value), BLOCK)]
                tail = blocks.pop() if blocks and len(blocks[-1]) < BLOCK else []
                texts = [self._block((*here, number), b) for number, b in enumerate(blocks)]
                encoded[key] = {ROWS: texts, TEXT: as_text(tail)}
            else:
                encoded[key] = value
        return encoded

    def _block(self, place: Place, records: Sequence[Any]) -> Tensor:
        """Return records as text; they never change once they are a whole block."""
        if place not in self._texts or self._texts[place][0] is not records[0]:
            self._texts[place] = records[0], as_text(records)
        return self._texts[place][1]


def restore(content: dict[str, Any], load: Callable[[str], list[Tensor]]) -> dict[str, Any]:
    """Return a checkpoint as it was given to ``PartFiles.save``.

    Args:
        content: as it stands in the file; one without parts is returned as it is.
        load: returns the parts in a file by its name.
    """
    if FILES not in content:
        return content
    parts = [load(file) for file in content[FILES]]

    def restored(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(restored(item) for item in value)
        if not isinstance(value, dict):
            return value
        if value.keys() == {REFERENCE}:
            number, index = value[REFERENCE]
            return parts[number][index]
        value = {key: restored(item) for key, item in value.items()}
        if value.keys() == {TEXT}:
            return from_text(value[TEXT])
        if value.keys() == {ROWS, TEXT}:
            return [row for text in (*value[ROWS], value[TEXT]) for row in from_text(text)]
        return value

    return {key: restored(value) for key, value in content.items() if key != FILES}


def map_tensors(function: Callable[[Place, Tensor], Any], value: Any, place: Place = ()) -> Any:
    """Apply a function to the place and the value of each tensor in nested containers."""
    if isinstance(value, Tensor):
        return function(place, value)
    if isinstance(value, dict):
        return {k: map_tensors(function, item, (*place, k)) for k, item in value.items()}
    if isinstance(value, list | tuple):
        items = [map_tensors(function, item, (*place, k)) for k, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return value


def own_storage(place: Place, tensor: Tensor) -> Tensor:
    """Return a tensor, or a copy if it is only a part of what would be saved with it."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.detach().clone()


@cache
def _key(dtype: torch.dtype, shape: torch.Size) -> bytes:
    """Return what tells tensors of the same bytes apart."""
    return str((dtype, shape)).encode()[:64]


def as_bytes(tensor: Tensor) -> Any:
    """Return the bytes of a tensor on the CPU, as an array."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def as_text(value: Any) -> Tensor:
    """Return plain values as the bytes of a text, from which they can be read exactly."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def from_text(text: Tensor) -> Any:
    """Return the plain values of a text; tuples have become lists."""
    return json.loads(as_bytes(text).tobytes())
