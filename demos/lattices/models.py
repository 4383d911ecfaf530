"""Models of a study: the laws, the box of finite elements with a law, and the finite lattice of the law's cell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from load_cases import LoadCase
from loaded import LoadedBox, LoadedLattice, follow, resume
from mpi4py import MPI

import fem.laws
from fem.command import Stop, together
from fem.mesh import read_mesh
from meshes.box import box
from meshes.session import session
from micro.lattice.data import lattice_of
from micro.lattice.tiling import tile
from surrogates.artifact.shipped import FOLDER
from surrogates.tann.exact import exact_law


class Laws:
    """The law asked for, the exact law of its cell (the same if the law is exact), cell and bars (collective).

    The manifest of a learned law names its cell and its bars: from them come the finite lattice and the exact law,
    which is a shipped artifact or made in a moment.
    """

    def __init__(self, comm: MPI.Comm, name: str) -> None:
        self.law = together(comm, lambda: fem.laws.load_law(name))
        structure = getattr(self.law, "microstructure", None)
        if structure is None or self.law.dimension != 3:
            raise Stop(f"--law must be an artifact of a lattice cell in three dimensions, got {name}.")
        self._parameters = structure.parameters()
        self.cell, self.bar = together(comm, lambda: lattice_of(self._parameters))
        self.exact = self.law if self.law.manifest.kind == "lattice" else None

    def find_exact(self, comm: MPI.Comm, folder: Path) -> None:
        """Load the exact law if the law is not, and write it to the folder if none is shipped."""
        if self.exact is None:
            made = together(comm, lambda: exact_law(self._parameters, FOLDER, folder / "exact_law.pt"), root=True)
            path = comm.bcast(made)
            self.exact = together(comm, lambda: fem.laws.load_law(path))


def make_domain(comm: MPI.Comm, case: LoadCase, o: argparse.Namespace, size: float) -> Any:
    """Mesh the box on rank 0 and distribute it (collective)."""
    with session():
        mesh = lambda: box(case.box, size, kind=o.kind, grading=o.grading, rim=o.rim)
        return read_mesh(together(comm, mesh, root=True), comm)


def make_lattice(comm: MPI.Comm, laws: Laws, case: LoadCase, n: int) -> Any:
    """The finite lattice of n cells per side, on rank 0; None elsewhere."""
    counts = [round(n * length / case.box[0]) for length in case.box]
    return tile(laws.cell, counts, case.box[0] / n) if comm.rank == 0 else None


def warm_up(comm: MPI.Comm, o: argparse.Namespace, laws: Laws, case: LoadCase) -> None:
    """Run everything once, small, so that no time is counted that is spent on compiling and loading (collective)."""
    domain = make_domain(comm, case, o, 0.5 * case.box[0])
    solvers = dict.fromkeys((o.linear, "iterative"))  # an order that all ranks share
    for law in (laws.exact, laws.law):
        for linear in solvers:
            follow(LoadedBox(domain, law, case, degree=o.degree, linear=linear), case.times(1))
    lattice = make_lattice(comm, laws, case, 3)
    for linear in solvers:
        follow(LoadedLattice(comm, lattice, laws.bar, case, linear=linear), case.times(1))


def go_on(o: argparse.Namespace, body: Any, name: str) -> None:
    """Go to the checkpoint of a former run if there is one (collective)."""
    if o.restart is not None:
        resume(body, Path(o.restart) / "checkpoint" / f"{name}.h5")


def lead(o: argparse.Namespace, body: Any, name: str, label: str, **options: Any) -> None:
    """Follow the load case from where the body is (collective)."""
    path = Path(o.output) / "checkpoint" / f"{name}.h5" if o.checkpoint else None
    follow(body, body.case.times(o.steps), label=label, checkpoint=path, progress=True, **options)
