"""The folder of each rank of a run: the run directory, or one that is deleted at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from thalnet_mtl.training.ranks import Ranks


@contextmanager
def folder_of(ranks: Ranks, folder: Path) -> Iterator[Path]:
    """Give rank 0 the run directory, and every other rank a copy of what a run resumes from.

    The copy is sent, so that the machine of another rank need not see the run directory.
    """
    if not ranks.several:
        yield folder
        return
    with TemporaryDirectory(prefix="thalnet-rank-") as temporary:
        own = folder if ranks.writes else Path(temporary) / folder.absolute().name
        for name in ranks.first(lambda: saved_files(folder)):
            content = ranks.first((folder / name).read_bytes)
            if not ranks.writes:
                (own / name).parent.mkdir(parents=True, exist_ok=True)
                (own / name).write_bytes(content)
        yield own


def saved_files(folder: Path) -> list[str]:
    """Return the files of a run directory that a run resumes from, relative to it."""
    files = [*folder.glob("*"), *(folder / "checkpoint").glob("*")]
    names = [file.relative_to(folder).as_posix() for file in files if file.is_file()]
    return sorted(name for name in names if not Path(name).name.startswith("."))
