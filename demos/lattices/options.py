"""Options of the studies: one parser and its checks, which estimate what a run needs before it begins."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_cases import CASES
from mpi4py import MPI

from fem.command import Parser
from meshes.box import KINDS
from micro.data.cli import available_memory, check_count, check_folder, check_memory, size_in_words
from micro.threads import check_threads

MESH = ("size", "kind", "grading", "rim", "degree")
MOST_STEPS = 100_000  # load steps; more would take days
# Memory, bytes: of a quadrature point with its share of the Jacobian, of a bar with its share of the stiffness.
POINT, BAR = 4e3, 2e3
POINTS = {"hexahedra": {1: 8, 2: 27}, "tetrahedra": {1: 6, 2: 24}}  # in a cube of the edge `size`, by degree


def read(
    arguments: Sequence[str] | None,
    title: str,
    cases: Sequence[str],
    defaults: Mapping[str, Any],
    *,
    study: str,
    extend: Callable[[Parser], None] | None = None,
) -> argparse.Namespace:
    """Read and check the command line of a study (local; the same on every rank).

    Args:
        arguments: Of the command line.
        title: What the study is, for the help.
        cases: Load cases to choose from.
        defaults: Option -> default, of case, n, size, kind, grading, rim, degree, steps and output.
        study: What `--study` does, for the help.
        extend: Adds further options.

    Raises:
        ValueError: If an option does not fit.
    """
    p = Parser(description=f"{title}.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = p.add_argument
    add("--case", choices=cases, help="load case")
    add("--n", type=int, help="cells per side of the finite lattice; epsilon = 1/n")
    add("--size", type=float, help="size of the finite elements; the edge is 10, the paper's size 0.5")
    add("--kind", choices=KINDS, help="finite elements")
    add("--grading", type=float, help="height of the top layer of elements over the bottom one")
    add("--rim", type=float, help="width of the elements at the sides over those inside")
    add("--degree", type=int, choices=(1, 2), help="degree of the displacement")
    add("--law", default="tann-cube-1", help="shipped law or artifact (.pt) of a lattice cell")
    add("--steps", type=int, help="load steps for each part of the path")
    add("--linear", choices=("auto", "direct", "iterative"), default="auto", help="linear solver of both models")
    add("--threads", type=int, help="threads per rank; none: the cores it owns")
    add("--study", action="store_true", help=study)
    add("--output", help="folder for the results")
    add("--checkpoint", action="store_true", help="write a checkpoint after every load step")
    add("--restart", help="folder of a former run with --checkpoint to go on from, with the same options")
    if extend is not None:
        extend(p)
    p.set_defaults(**defaults)
    o = p.parse_args(arguments)
    check(o)
    return o


def check(o: argparse.Namespace) -> None:
    """Check what all studies share; ValueError says in one sentence what does not fit."""
    for name in ("n", "steps"):
        check_count(f"--{name}", getattr(o, name))
    if o.steps > MOST_STEPS:
        raise ValueError(f"--steps must be at most {MOST_STEPS}, got {o.steps}.")
    if o.threads is not None:
        check_threads(o.threads, "--threads")
    for name in ("size", "grading", "rim"):
        if not 0.0 < getattr(o, name) < math.inf:
            raise ValueError(f"--{name} must be a positive finite number, got {getattr(o, name)}.")
    check_folder("--output", o.output)
    if o.restart is not None and not (Path(o.restart) / "checkpoint").is_dir():
        raise ValueError(f"--restart names {o.restart!r}, but there is no checkpoint in it.")


def check_sizes(comm: MPI.Comm, o: argparse.Namespace, bars: int, n: int) -> None:
    """Check that mesh and lattice fit the memory of a machine (collective; the same on all ranks).

    Args:
        comm: Communicator.
        o: Options.
        bars: Bars of a cell.
        n: Cells per side of the largest lattice.

    Raises:
        ValueError: If they do not; the sentence holds the estimate.
    """
    shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
    here = comm.allreduce(shared.size / comm.size, op=MPI.MAX)  # of the work, on the machine that has most of it
    shared.Free()
    lengths = CASES[o.case].box
    cubes = math.prod(max(length / o.size, 1.0) for length in lengths)
    points = cubes * POINTS[o.kind][o.degree]
    needed, there = here * POINT * points, available_memory()
    if needed > there:
        raise ValueError(
            f"--size must be larger: {cubes:.1e} finite elements need about {size_in_words(needed)} of memory, "
            f"but only {size_in_words(there)} are available."
        )
    cells = float(n) ** 3 * math.prod(lengths) / lengths[0] ** 3
    check_memory(f"{cells * bars:.1e} bars", here * BAR * bars * cells, name="--n")
