"""Loaded boxes and lattices: closed forms, work, release, restart, and what a comparison says."""

import numpy as np
import pytest
from comparison import errors, imbalance, newton_summary, of_box, of_lattice, ratio
from load_cases import load_case, torsion
from loaded import LoadedBox, LoadedLattice, follow, resume
from mpi4py import MPI

from fem import laws
from fem.mesh import read_mesh
from meshes.box import box
from meshes.session import session
from micro.lattice.bars import KinematicBar
from micro.lattice.geometry import make_cell
from micro.lattice.parameters import lattice_parameters
from micro.lattice.tiling import tile
from surrogates.tann.exact import write_lattice_law

BAR = KinematicBar()
CELL = make_cell("cube-1")


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    path = tmp_path_factory.mktemp("law") / "law.pt"
    write_lattice_law(path, lattice_parameters(CELL, BAR, perturbation=0.0, seed=0))
    return laws.load_law(path)


def make_box(law, case, size=5.0, kind="hexahedra", **options):
    comm = MPI.COMM_WORLD
    if comm.rank:
        return LoadedBox(read_mesh(None, comm), law, case, **options)
    with session():
        domain = read_mesh(box(case.box, size, kind=kind), comm)
    return LoadedBox(domain, law, case, **options)


def make_lattice(case, n=2):
    lattice = tile(CELL, [round(n * length / 10.0) for length in case.box], 10.0 / n)
    comm = MPI.COMM_WORLD
    return LoadedLattice(comm, lattice if comm.rank == 0 else None, BAR, case), lattice


@pytest.mark.mpi
@pytest.mark.parametrize(("kind", "degree"), [("tetrahedra", 1), ("hexahedra", 1), ("tetrahedra", 2)])
def test_uniform_compression_is_the_lattice_itself(law, kind, degree):
    """lcU2: the strain is uniform, so the box and the lattice agree in everything, plastic flow included."""
    case = load_case("lcU2")
    body, (truss, lattice) = make_box(law, case, kind=kind, degree=degree), make_lattice(case)
    for one in (body, truss):
        rows = follow(one, case.times(2))
        assert rows[-1]["psi"] == pytest.approx(217.8734498361, abs=1e-8)
        assert rows[-1]["dissipation"] == pytest.approx(1000.0 / 3.0 * (0.5 - 1.0 / 3.0) / 1.1, abs=1e-8)
        assert imbalance(rows) < 1e-9
    found = of_box(body, CELL, lattice, 5.0, truss.node), of_lattice(truss)
    if MPI.COMM_WORLD.rank == 0:
        assert max(errors(*found, case, lattice, truss.node).values()) < 1e-8
    else:
        assert found == (None, None)


@pytest.mark.parametrize("name", ["lcC2", "lcT2"])
def test_stored_and_dissipated_lies_between_the_bounds_of_work(law, name):
    case = load_case(name)
    for body in (make_box(law, case), make_lattice(case)[0]):
        rows = follow(body, case.times(4))
        low, high = rows[-1]["work"]
        total = rows[-1]["psi"] + rows[-1]["dissipation"]
        assert rows[-1]["dissipation"] > 0.0
        assert 0.6 * total < low < total < high < 1.4 * total
        assert imbalance(rows) == 0.0
        assert imbalance([{**rows[-1], "work": [low, 0.9 * total]}]) == pytest.approx(0.1)


def test_errors_vanish_with_mesh_and_cells_together(law):
    """lcC1, elastic: elements of two cells across against finer and finer lattices."""
    case = load_case("lcC1")
    found = []
    for n in (2, 4, 8):
        body, (truss, lattice) = make_box(law, case, size=20.0 / n), make_lattice(case, n)
        follow(body, case.times(1))
        follow(truss, case.times(1))
        outcome = of_box(body, CELL, lattice, 10.0 / n, truss.node), of_lattice(truss)
        if MPI.COMM_WORLD.rank == 0:
            found.append(errors(*outcome, case, lattice, truss.node))
    for name in ("energy_error", "displacement_error_all") if found else ():
        values = [e[name] for e in found]
        assert values[2] < values[0] and values[2] < 0.03, (name, values)


def test_released_top_carries_nothing_and_elastic_bodies_come_back(law):
    case = torsion("turned", (0.0, 10.0, 20.0), released=True)
    for body in (make_box(law, case), make_lattice(case)[0]):
        rows = follow(body, case.times(1))
        assert [row["time"] for row in rows] == [1.0, 2.0, 3.0]
        assert rows[1]["psi"] > 1.0
        assert rows[-1]["psi"] < 1e-12
        assert np.abs(rows[-1]["displacement"]).max() < 1e-8
        assert rows[-1]["dissipation"] == 0.0
        assert imbalance(rows, scale=rows[1]["psi"]) < 1e-9


def test_plastic_flow_stays_after_the_release_and_agrees(law):
    case = torsion("turned", (0.0, 40.0, 80.0), released=True)
    for body in (make_box(law, case), make_lattice(case)[0]):
        rows = follow(body, case.times(1))
        assert rows[-2]["dissipation"] > 1.0
        assert rows[-1]["dissipation"] >= rows[-2]["dissipation"]
        assert 0.0 < rows[-1]["psi"] < 0.5 * rows[-2]["psi"]
        assert abs(rows[-1]["displacement"][2]) > 0.01
        assert imbalance(rows) == 0.0


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["box", "lattice"])
@pytest.mark.parametrize("done", [1, 2, 3], ids=["begun", "loaded", "released"])
def test_restart_ends_where_the_whole_run_ends(law, tmp_path_factory, kind, done):
    comm, case = MPI.COMM_WORLD, torsion("turned", (0.0, 40.0, 80.0), released=True)
    make = (lambda: make_box(law, case)) if kind == "box" else (lambda: make_lattice(case)[0])
    path = comm.bcast(tmp_path_factory.mktemp("restart")) / "body.h5"
    times = case.times(1)
    whole = follow(make(), times)
    follow(make(), times[:done], checkpoint=path)
    body = make()
    assert resume(body, path)
    rows = follow(body, times)
    assert [row["time"] for row in rows] == times
    for a, b in zip(rows, whole, strict=True):
        assert a["psi"] == pytest.approx(b["psi"], rel=1e-8)
        assert a["dissipation"] == pytest.approx(b["dissipation"], rel=1e-8)
        assert a["work"] == pytest.approx(b["work"], rel=1e-8)
        assert a["displacement"] == pytest.approx(b["displacement"], abs=1e-7)
    assert not resume(make(), path.with_name("other.h5"))


def test_newton_summary_tells_the_last_plastic_step():
    rows = [
        {"dissipation": 0.0, "iterations": 1, "residuals": [1.0], "steps": 1},
        {"dissipation": 2.0, "iterations": 4, "residuals": [2.0], "steps": 2},
        {"dissipation": 2.0, "iterations": 1, "residuals": [3.0], "steps": 1},
    ]
    assert newton_summary(rows) == {"newton_iterations_max": 4, "newton_residuals": [2.0], "load_steps_cut": 1}
    assert newton_summary(rows[:1])["newton_residuals"] == [1.0]
    assert ratio(0.0, 0.0) == 0.0
