"""Series of fields: files whole or not at all, the skin of the body, with and without ADIOS2."""

import numpy as np
import pytest

from fem.errors import SolverError
from fem.implicit import ImplicitSolver, Prescribed
from fem.io import fields as module
from fem.io.fields import Series, surface
from fem.laws.linear_elastic import LinearElastic


@pytest.fixture
def solver(cells):
    solver = ImplicitSolver(
        cells("hexahedron", 2), LinearElastic(1.0, 2.0),
        prescribed=[Prescribed(None, i, lambda x, t, i=i: t * 0.1 * (i + 1) * x[i]) for i in range(3)],
    )  # fmt: skip
    solver.run()
    return solver


@pytest.mark.parametrize("adios2", [True, False])
def test_series_is_whole_or_not_there(solver, tmp_path, monkeypatch, adios2):
    monkeypatch.setattr(module.dolfinx, "has_adios2", adios2 and module.dolfinx.has_adios2)
    with pytest.raises(SolverError), Series(solver, tmp_path) as series:
        raise SolverError("Stopped.")
    assert not series.path.exists()
    with Series(solver, tmp_path) as series:
        series.write(solver)
    assert series.path.exists()
    assert series.path.suffix == (".bp" if adios2 and module.dolfinx.has_adios2 else ".xdmf")
    if series.path.suffix == ".xdmf":
        assert "fields.h5" in series.path.read_text()
        assert "part" not in series.path.read_text()


def test_skin_covers_the_body_and_moves_with_it(solver, tmp_path):
    with Series(solver, tmp_path) as series:
        series.write(solver)
    skin = surface(series)
    x = skin["x"]
    area = 0.5 * np.linalg.norm(np.cross(x[:, 1] - x[:, 0], x[:, 2] - x[:, 0]), axis=1)
    assert area.sum() == pytest.approx(6.0)
    assert np.allclose(skin["u"], x * [0.1, 0.2, 0.3])
