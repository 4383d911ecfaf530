"""Checkpoints during an explicit run: at intervals, when a signal asks for one, and before the run is stopped.

    with Checkpoints(solver, "results/checkpoint.h5", every=1e-6) as checkpoints:
        for step in solver.run(until=1e-4):
            checkpoints.look()

SIGUSR1 asks for a checkpoint; the run goes on. SIGTERM asks for one and stops the run by `Interrupted`. A signal may
reach one rank or all. No rank acts alone: what a rank wishes travels with the one reduction of the next step, and all
do what they agreed on there, without a message of its own.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

from fem.errors import Interrupted

WRITE, STOP = 1, 2  # what a rank may wish; the largest wish of all ranks counts


class Checkpoints:
    """Writes checkpoints of an explicit solver; the constructor and `look` are collective.

    Signals are received in a `with` block, on the main thread of the program, and have their former meaning after it.

    Args:
        solver: The solver.
        path: The file. It is replaced when the next one is whole.
        every: Simulated time between two checkpoints, s; None writes none at an interval of it.
        seconds: Seconds of the clock on the wall between two; None writes none at an interval of it.
        former: Keep the last file but one as well, under the name of `path` with "-former" before its suffix.
        before: Called on all ranks before a checkpoint is written, for what must not be older than it.

    Attributes:
        written: Checkpoints so far.

    Raises:
        ValueError: If an interval is not positive.
    """

    def __init__(
        self,
        solver: Any,
        path: str | PathLike[str],
        *,
        every: float | None = None,
        seconds: float | None = None,
        former: bool = True,
        before: Callable[[], object] | None = None,
    ) -> None:
        for name, value in (("every", every), ("seconds", seconds)):
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be a positive time, got {value}.")
        self._solver, self.path, self.written = solver, Path(path), 0
        self._former = self.path.with_name(f"{self.path.stem}-former{self.path.suffix}") if former else None
        self._every, self._seconds, self._before = every, seconds, before
        self._next, self._last = self._following(), monotonic()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Checkpoints:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        self._solver.wish = 0

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._solver.wish = max(self._solver.wish, STOP if number == signal.SIGTERM else WRITE)

    def _following(self) -> float:
        """The next multiple of the interval of simulated time, s."""
        if self._every is None:
            return math.inf
        return (math.floor(self._solver.time / self._every * (1.0 + 1e-12)) + 1) * self._every

    def look(self) -> bool:
        """After each step: write a checkpoint if it is time, or if all have agreed on it.

        Returns:
            Whether one was written.

        Raises:
            Interrupted: On all ranks, after the checkpoint was written, if a rank was told to terminate.
            OSError: On all ranks, if it cannot be written.
        """
        solver, agreed = self._solver, self._solver.agreed
        if agreed:  # a signal that came since the reduction is not lost: it is a wish of the next step
            solver.agreed, solver.wish = 0, solver.wish if solver.wish > agreed else 0
        elif self._seconds is not None and monotonic() - self._last >= self._seconds:
            solver.wish = max(solver.wish, WRITE)
        if not agreed and solver.time < self._next * (1.0 - 1e-12):
            return False
        self.write()
        if agreed == STOP:
            raise Interrupted(f"The run was told to terminate at time {solver.time:.6g} s; go on from {self.path}.")
        return True

    def write(self) -> None:
        """Write a checkpoint now.

        Raises:
            OSError: On all ranks, if it cannot be written.
        """
        if self._before is not None:
            self._before()
        self._solver.save(self.path, self._former)
        self.written += 1
        self._next, self._last = self._following(), monotonic()
