"""The words of a command line: flags of any section, and mistakes with the closest match."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from thalnet_mtl.config.load import closest_field
from thalnet_mtl.errors import UserError, unknown


def split_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take ``--section.field value`` and ``--section.field=value`` out of the arguments."""
    rest: list[str] = []
    flags: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        match = re.fullmatch(r"--([a-z_]+(?:\.\w+)+)(?:=(.*))?", word, re.DOTALL)
        if match is None:
            rest.append(word)
            continue
        value = match[2] if match[2] is not None else next(words, None)
        if value is None:
            raise UserError(f"{word} needs a value.")
        flags[match[1]] = value
    return rest, flags


class Parser(argparse.ArgumentParser):
    """Errors as one line with the closest match, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        match = re.match(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if match:
            what = "command" if match[1] == "VERB" else match[1]
            raise unknown(what, match[2], match[3].replace("'", "").split(", "))
        match = re.match(r"unrecognized arguments: (\S+)", message)
        if match:
            close = closest_field(match[1].removeprefix("--"), ("out", "seeds", "grid", "jobs"))
            hint = f" Did you mean '--{close}'?" if close else ""
            raise UserError(f"unknown argument '{match[1]}'.{hint} See thalnet VERB --help.")
        raise UserError(f"{message}. See {self.prog} --help.")
