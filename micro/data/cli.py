"""Command lines of data jobs and demos: a parser that raises, checks of options, estimates of memory and disk."""

import argparse
import math
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Argument parser that raises: a bad argument is a ValueError with one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise an error instead of ending the process."""
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")


def write_summary(text: str) -> int:
    """Write what a command has to say, and return its exit code: 1, with one sentence, where it cannot be written."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # otherwise Python writes again when it ends
        sys.stderr.write(f"The summary cannot be written: {error.strerror}.\n")
        return 1
    return 0


def as_range(name: str, values: list) -> tuple:
    """Return the pair (lo, hi) of an option that takes one number or two."""
    if len(values) > 2 or not all(math.isfinite(value) and value > 0 for value in values) or values[0] > values[-1]:
        given = " ".join(f"{value:g}" for value in values)
        raise ValueError(f"{name} must be one positive number or two that increase, got {given}.")
    return values[0], values[-1]


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Check that an option lies in a range beyond which no sensible number lies.

    Raises:
        ValueError: it does not, or it is not a number.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low:g} and {high:g}, got {value:g}.")


def check_count(name: str, value: int, most: int = 10**12, *, least: int = 1) -> None:
    """Check that a whole number is at least `least` and at most `most`; ValueError where it is not."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}.")


def check_folder(name: str, path: str | Path) -> None:
    """Check that an option names a folder, which need not exist yet; ValueError where it names a file."""
    if Path(path).exists() and not Path(path).is_dir():
        raise ValueError(f"{name} must name a folder, but '{path}' is a file.")


def size_in_words(size: float) -> str:
    """Return a number of bytes in the usual notation, "3.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB" if size < 1e4 else f"{size:.1e} PB"


def available_memory(device: str = "cpu") -> float:
    """Return the memory in bytes that a process may still take on a device, "cpu" or "cuda:N"."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        free = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")  # limits of a container or a batch system
    second, first = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for limit, used in (second, [f"memory/{name}" for name in first]):
        try:
            free = min(free, float((group / limit).read_text()) - float((group / used).read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return max(free, 0.0)


def check_memory(what: str, needed: float, device: str = "cpu", *, name: str = "") -> None:
    """Check, before work begins, that it fits into the memory.

    Args:
        what: what needs the memory, the subject of the sentence, plural.
        needed: estimated bytes.
        device: where they are needed, "cpu" or "cuda:N".
        name: option or file that decides the size; the sentence begins with it.

    Raises:
        ValueError: the estimate exceeds what is available.
    """
    available = available_memory(device)
    if needed > available:
        begin = f"{name} must be smaller: " if name else ""
        raise ValueError(
            f"{begin}{what} need about {size_in_words(needed)} of memory, "
            f"but only {size_in_words(available)} are available."
        )


def check_disk(what: str, needed: float, directory: Path) -> None:
    """Check, before data are made, that they fit on a disk.

    Args:
        what: what needs the space, the subject of the sentence, plural.
        needed: estimated bytes.
        directory: where they will be written; it need not exist yet.

    Raises:
        ValueError: the estimate exceeds what is free.
    """
    directory = directory.absolute()
    there = next(path for path in (directory, *directory.parents) if path.is_dir())
    total, _, free = shutil.disk_usage(there)
    if total > 0 and needed > free:  # some file systems report no size
        raise ValueError(
            f"{what} need about {size_in_words(needed)} in {directory}, but only {size_in_words(free)} are free."
        )
