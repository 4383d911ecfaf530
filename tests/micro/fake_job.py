"""A cheap source of strain paths, and the data job with it; run by tests in processes of their own.

The environment asks for trouble: FAKE_PIDS, a directory for the processes' numbers; FAKE_DIE, the shard at which the
process kills itself between writing the file and giving it its name; FAKE_LIMIT, bytes beyond which no file grows, as
on a full disk.
"""

import argparse
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from micro import generate
from micro.data import files
from micro.data.source import Block, Field, Source


class FakeSource(Source):
    """Random numbers in place of a solver; sample 7 fails, and sample 8 is not finite."""

    name = "fake"

    def __init__(self, seed: int, steps: int, stiffness: float, delay: float, crash: int) -> None:
        self.seed, self.steps, self.stiffness, self.delay, self.crash = seed, steps, stiffness, delay, crash
        self.parameters = {"steps": steps, "stiffness": stiffness}
        self.tolerances = {}
        self.fields = {
            "U": Field("1", (steps + 1, 6), "time, component"),
            "stress": Field("Pa", (steps + 1, 6), "time, component"),
            "time": Field("1", (steps + 1,), "time"),
            "duration": Field("s", (), "duration"),
        }

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--steps", type=int, default=4)
        parser.add_argument("--stiffness", type=float, default=2.0)
        parser.add_argument("--delay", type=float, default=0.0)
        parser.add_argument("--crash", type=int, default=-1)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "FakeSource":
        if arguments.steps < 1:
            raise ValueError(f"steps must be at least 1, got {arguments.steps}.")
        if "FAKE_LIMIT" in os.environ:  # not before: MPI has files of its own
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FAKE_LIMIT"]),) * 2)
        return cls(arguments.seed, arguments.steps, arguments.stiffness, arguments.delay, arguments.crash)

    def solve(self, ids: np.ndarray) -> Block:
        time.sleep(self.delay)
        if self.crash in ids:
            raise ZeroDivisionError("a bug in the solver")
        U = np.empty((len(ids), self.steps + 1, 6))
        duration = np.empty(len(ids))
        for row, sample in enumerate(ids.tolist()):
            rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, sample]))
            U[row] = 1.0 + rng.normal(size=U.shape[1:])
            duration[row] = rng.uniform()
        stress = self.stiffness * U
        stress[ids == 8] = -np.inf
        reason = ["did not converge" if sample == 7 else "" for sample in ids]
        relative = np.broadcast_to(np.linspace(0.0, 1.0, self.steps + 1), U.shape[:2])
        return Block({"U": U, "stress": stress, "time": relative, "duration": duration}, reason)


def die_at(name: str) -> None:
    """Let the process kill itself when it has written a shard and not yet named it."""
    publish = files.publish

    def deadly(part: Path, path: Path) -> None:
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        publish(part, path)

    files.publish = deadly


if __name__ == "__main__":
    if "FAKE_PIDS" in os.environ:
        Path(os.environ["FAKE_PIDS"], str(os.getpid())).touch()
    if "FAKE_DIE" in os.environ:
        die_at(os.environ["FAKE_DIE"])
    sys.exit(generate.main(sources=[FakeSource]))
