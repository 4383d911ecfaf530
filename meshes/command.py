"""Command lines of the meshes: bad input is one sentence and the exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Argument parser that raises a sentence in place of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError."""
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")


def run(parser: Parser, arguments: Sequence[str] | None, work: Callable[[argparse.Namespace], object]) -> int:
    """Parse a command line and do the work; returns the exit status."""
    try:
        work(parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
