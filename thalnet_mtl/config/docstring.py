"""The parts of a docstring of a registered entry: a line, its source, and its arguments."""

import inspect
import re
from collections.abc import Iterator

# Authors, a title in quotation marks, a venue and a year: 'Li, Hoiem, "Title", ECCV 2016'.
_SOURCE = re.compile(r'(?:[A-Z][\w-]+(?: et al\.)?, )+"[^"]+", (?:[A-Z][\w-]* )*\d{4}')
_ARGUMENT = re.compile(r" {4}(\w+(?:, \w+)*): (.*)")


def plain_docstring(doc: str) -> str:
    """Return a docstring without its indentation and its markup."""
    return inspect.cleandoc(doc).replace("``", "")


def summary(doc: str) -> str:
    """Return the first line of a docstring."""
    return plain_docstring(doc).partition("\n")[0]


def source(doc: str) -> str:
    """Return the first publication that a docstring names, '' if it names none."""
    match = _SOURCE.search(" ".join(plain_docstring(doc).split()))
    return match[0] if match else ""


def prose(doc: str) -> list[str]:
    """Return the paragraphs of a docstring before its sections 'Args:', 'Raises:' and others."""
    text = re.split(r"\n(?:Args|Returns|Raises):\n", plain_docstring(doc))[0]
    return [paragraph for paragraph in text.strip().split("\n\n") if paragraph]


def arguments(doc: str) -> dict[str, str]:
    """Return what a docstring says of each argument, by name.

    >>> def f(a, b):
    ...     '''Do it.
    ...
    ...     Args:
    ...         a: a number
    ...             of rows.
    ...         b: another.
    ...     '''
    >>> arguments(f.__doc__)
    {'a': 'a number of rows', 'b': 'another'}
    """
    return {
        name: " ".join(text.split()).rstrip(".")
        for names, text in _argument_blocks(plain_docstring(doc))
        for name in names.split(", ")
    }


def _argument_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and the text of each entry of the section 'Args:'."""
    _, _, section = text.partition("\nArgs:\n")
    names, block = "", ""
    for line in section.split("\n"):
        if line and not line.startswith("    "):
            break
        if match := _ARGUMENT.fullmatch(line):
            if names:
                yield names, block
            names, block = match[1], match[2]
        else:
            block += f" {line}"
    if names:
        yield names, block
