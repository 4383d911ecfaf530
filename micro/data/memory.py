"""Memory: what a job needs is estimated before its work begins, and refused where it cannot fit."""

import os
from pathlib import Path

#: Files in which Linux limits the memory of a group of processes, a container for instance.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_memory() -> int:
    """Return the memory of this machine, or of the container that this process runs in, in bytes."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in map(Path, LIMITS):
        try:
            limit = file.read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():
            memory = min(memory, int(limit))
    return memory


def as_size(size: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB" if size < 1e4 else f"{size:.1e} PB"


def check_memory(name: str, needed: float, what: str) -> None:
    """Check that an estimate fits the memory.

    Args:
        name: Of the option or array that decides the size.
        needed: The estimate in bytes.
        what: What needs the memory, a plural.

    Raises:
        ValueError: It does not fit; the sentence holds the estimate.
    """
    available = available_memory()
    if needed > available:
        raise ValueError(
            f"{name} must be smaller: {what} need about {as_size(needed)} of memory, "
            f"and this machine has {as_size(available)}."
        )
