"""Matt Mahoney's filter, which turns a Wikipedia dump (enwik8, enwik9) into text8.

The filter keeps the text that a browser would show: links keep their label and pictures their
caption; tags, tables, references and templates are removed; digits are spelled out; each run of
characters other than a-z becomes one space. The rules, their order and their quirks are those of
the published Perl filter, because they define text8.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_BEGIN = re.compile(rb"<text ")
_REDIRECT = re.compile(rb"#redirect", re.IGNORECASE)
_END = re.compile(rb"</text>")
_TAG = re.compile(rb"<.*>")  # the tag that ends the record, if it is on one line
_ENTITIES = ((b"&amp;", b"&"), (b"&lt;", b"<"), (b"&gt;", b">"))
_MARKUP = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rb"<ref[^<]*</ref>", b""),
        (rb"<[^>]*>", b""),
        (rb"\[http:[^] ]*", b"["),
        (rb"(?i)\|thumb", b""),
        (rb"(?i)\|left", b""),
        (rb"(?i)\|right", b""),
        (rb"(?i)\|\d+px", b""),
        (rb"(?i)\[\[image:[^\[\]]*\|", b""),
        (rb"(?i)\[\[category:([^|\]]*)[^]]*\]\]", rb"[[\1]]"),
        (rb"\[\[[a-z\-]*:[^\]]*\]\]", b""),  # links to other languages
        (rb"\[\[[^\|\]]*\|", b"[["),
        (rb"\{\{[^}]*\}\}", b""),
        (rb"\{[^}]*\}", b""),
        (rb"[\[\]]", b""),
        (rb"&[^;]*;", b" "),
    )
)
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = tuple((str(digit).encode(), f" {word} ".encode()) for digit, word in enumerate(_WORDS))
_OTHER = re.compile(rb"[^a-z]+")


def write_plain(
    dump: Path, target: Path, report: Callable[[int, int], None], block_size: int
) -> None:
    """Write the plain text of a Wikipedia dump to a file.

    Args:
        dump: an XML file.
        target: the file to write.
        report: called with the bytes read so far and in all.
        block_size: bytes to read at a time.
    """
    with dump.open("rb") as source, target.open("wb") as out:

        def blocks() -> Iterator[bytes]:
            while block := source.read(block_size):
                report(source.tell(), dump.stat().st_size)
                yield block

        out.writelines(plain(blocks()))


def plain(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Filter a dump, in chunks of any size, into pieces of lower-case a-z and single spaces."""
    inside = False
    for record in _records(chunks):
        if _BEGIN.search(record):
            inside = True
        if _REDIRECT.search(record):
            inside = False
        if inside:
            inside = not _END.search(record)
            yield _visible(record)


def _records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut the dump after every '>', as the Perl filter does; articles contain '&gt;' instead."""
    pieces: list[bytes] = []
    for chunk in chunks:
        *ends, rest = chunk.split(b">")
        for end in ends:
            yield b"".join([*pieces, end, b">"])
            pieces = []
        pieces.append(rest)
    if last := b"".join(pieces):
        yield last


def _visible(record: bytes) -> bytes:
    """Return the text of a record in lower-case a-z and single spaces."""
    record = _TAG.sub(b"", record)
    for entity, character in _ENTITIES:
        record = record.replace(entity, character)
    for pattern, replacement in _MARKUP:
        record = pattern.sub(replacement, record)
    record = b" " + record.lower() + b" "
    for digit, word in _DIGITS:
        record = record.replace(digit, word)
    return _OTHER.sub(b" ", record)[:-1]
