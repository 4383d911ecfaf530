"""The writer of fields and history: frames at their times, files whole or not at all, with and without ADIOS2."""

import csv

import dolfinx.fem
import numpy as np
import pytest
from matplotlib.figure import Figure
from mpi4py import MPI

from fem.errors import SolverError
from fem.io import fields as module
from fem.io.fields import Writer, surface


class Clockwork:
    """A displacement u = t (x, 2 y, 3 z) of a box, as a solver would keep it."""

    def __init__(self, domain):
        V = dolfinx.fem.functionspace(domain.mesh, ("Lagrange", 1, (3,)))
        self.u = dolfinx.fem.Function(V, name="displacement")
        self.size = dolfinx.fem.Function(dolfinx.fem.functionspace(domain.mesh, ("Lagrange", 1)), name="size")
        self.time, self.refreshed = 0.0, []
        self.go(0.0)

    def go(self, time):
        self.time = time
        self.u.interpolate(lambda x: time * np.stack([x[0], 2.0 * x[1], 3.0 * x[2]]))

    def refresh(self):
        self.refreshed.append(self.time)
        self.size.interpolate(lambda x: self.time * x[0])

    def writer(self, folder, every=None):
        row = lambda: {"time": self.time, "double": 2.0 * self.time}
        return Writer(
            folder, [self.u, self.size], time=lambda: self.time, refresh=self.refresh, row=row, every=every
        )


@pytest.fixture
def work(box):
    return Clockwork(box((1.0, 1.0, 1.0), (2, 2, 2)))


def shared(tmp_path_factory):
    comm = MPI.COMM_WORLD
    return comm.bcast(tmp_path_factory.mktemp("fields") if comm.rank == 0 else None)


def rows(folder):
    with (folder / "history.csv").open() as sheet:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(sheet)]


@pytest.mark.mpi
@pytest.mark.parametrize("adios2", [True, False])
def test_frames_come_at_multiples_and_at_both_ends(work, tmp_path_factory, monkeypatch, adios2):
    folder = shared(tmp_path_factory)
    monkeypatch.setattr(module.dolfinx, "has_adios2", adios2 and module.dolfinx.has_adios2)
    with work.writer(folder / "new" / "run", every=0.25) as out:
        for time in (0.1, 0.2, 0.26, 0.3, 0.5, 0.74, 0.76, 0.9):
            work.go(time)
            out.update()
            out.update()
    assert work.refreshed == [0.0, 0.26, 0.5, 0.76, 0.9]
    found = rows(folder / "new" / "run")
    assert [row["time"] for row in found] == work.refreshed
    assert [row["double"] for row in found] == [2.0 * t for t in work.refreshed]
    names = {entry.name for entry in (folder / "new" / "run").iterdir()}
    series = {"fields.bp"} if module.dolfinx.has_adios2 else {"fields.xdmf", "fields.h5"}
    assert names == {"history.csv"} | series
    if not module.dolfinx.has_adios2:
        light = (folder / "new" / "run" / "fields.xdmf").read_text()
        assert "fields.h5" in light and "part" not in light
        assert light.count("<Time ") == 2 * len(work.refreshed)


@pytest.mark.mpi
@pytest.mark.parametrize("adios2", [True, False])
def test_a_failed_run_leaves_nothing_and_clears_what_was_there(work, tmp_path_factory, monkeypatch, adios2):
    folder = shared(tmp_path_factory)
    monkeypatch.setattr(module.dolfinx, "has_adios2", adios2 and module.dolfinx.has_adios2)
    with work.writer(folder) as out:
        work.go(1.0)
        out.update()
    with pytest.raises(SolverError), work.writer(folder):
        raise SolverError("Stopped.")
    MPI.COMM_WORLD.barrier()
    assert list(folder.iterdir()) == []


def test_without_a_distance_every_update_is_a_frame(work, tmp_path):
    with work.writer(tmp_path) as out:
        for time in (0.1, 0.2):
            work.go(time)
            out.update()
    assert work.refreshed == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("every", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_distance_is_refused(work, tmp_path, every):
    with pytest.raises(ValueError, match="every must be a positive time"):
        work.writer(tmp_path, every)


@pytest.mark.mpi
def test_a_folder_that_cannot_be_made_is_an_error_on_all_ranks(work, tmp_path_factory):
    folder = shared(tmp_path_factory)
    if MPI.COMM_WORLD.rank == 0:
        (folder / "file").write_text("")
    MPI.COMM_WORLD.barrier()
    with pytest.raises(OSError):
        work.writer(folder / "file")


def test_rows_keep_their_columns(work, tmp_path):
    out = work.writer(tmp_path)
    out.write(length=1.0)
    with pytest.raises(ValueError, match="must have the columns time, double, length"):
        out.write_row(width=1.0)
    out.close()
    assert rows(tmp_path) == [{"time": 0.0, "double": 0.0, "length": 1.0}]


@pytest.mark.mpi
def test_skin_covers_the_body_and_moves_with_it(work):
    work.go(0.1)
    work.refresh()
    skin = surface({"u": work.u, "size": work.size})
    assert (skin is None) == (MPI.COMM_WORLD.rank != 0)
    if skin is not None:
        x = skin["x"]
        area = 0.5 * np.linalg.norm(np.cross(x[:, 1] - x[:, 0], x[:, 2] - x[:, 0]), axis=1)
        assert area.sum() == pytest.approx(6.0)
        assert np.allclose(skin["u"], x * [0.1, 0.2, 0.3])
        assert np.allclose(skin["size"], 0.1 * x[..., 0])


@pytest.mark.mpi
def test_the_writer_draws_the_deformed_body(work, tmp_path_factory):
    work.go(0.1)
    axes = Figure().subplots()
    with work.writer(shared(tmp_path_factory)) as out:
        work.go(0.2)
        skin = out.surface()
        image = out.draw(axes, "size", "yz", length=1e-2, unit=1e-3, vmax=200.0)
        assert (skin is None) == (MPI.COMM_WORLD.rank != 0)
        if skin is not None:
            assert np.allclose(skin["size"], 0.2 * skin["x"][..., 0])
        with pytest.raises(ValueError, match='no function "stress" to draw; there are displacement, size'):
            out.draw(axes, "stress")
        with pytest.raises(ValueError, match='plane must be two of the letters x, y, z, got "xx"'):
            out.draw(axes, "size", "xx")
    mesh = image._triangulation
    x, y = mesh.x, mesh.y
    assert np.allclose([x.min(), x.max(), y.min(), y.max()], [0.0, 140.0, 0.0, 160.0])
    assert image.get_array().max() == pytest.approx(200.0) and image.get_clim()[1] == 200.0
    last = image.get_array().reshape(-1, 3)[-8:]  # the face x = 0 is in front: 2 x 2 squares
    assert np.allclose(last, 0.0)
