"""The example of docs/guides/implicit.md runs as printed, and what the page says of it holds."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from fem import ImplicitSolver, load_law

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "implicit.md"


@pytest.mark.mpi
def test_the_example(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict = {}
    exec(code.group(1), names)  # the page is ours
    solver = names["solver"]
    printed = re.search(r"\n    ([\d.e+-]+(?:  [\d.e+-]+){4})\n", PAGE.read_text(encoding="utf-8")).group(1)
    history = [step.convergence.residuals for step in solver.history]
    assert len(names["force"]) == len(history) == 10
    found = min(history, key=lambda r: 9.0 if len(r) != 5 else abs(np.log(r[1] / float(printed.split()[1]))))
    # All but the last, which is rounding.
    np.testing.assert_allclose(found[:-1], [float(number) for number in printed.split()[:-1]], rtol=0.05)
    balance = solver.reaction(names["top"]) + solver.reaction(names["bottom"])
    assert np.abs(balance).max() < 1e-8 * abs(names["force"][-1])
    capsys.readouterr()


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [1, 2])
def test_the_writer_of_an_implicit_run(cells, tmp_path_factory, degree):
    folder = MPI.COMM_WORLD.bcast(tmp_path_factory.mktemp("run"))
    solver = ImplicitSolver(cells("tetrahedron", 2).mesh, load_law("magnesium-j2"), degree=degree)
    solver.prescribe(lambda x: np.isclose(x[2], 0.0))
    solver.prescribe(lambda x: np.isclose(x[2], 1.0), 2, lambda x, t: 0.01 * t)
    with solver.writer(folder, every=0.5) as out:
        for _ in solver.run(until=1.0, step=0.25):
            out.update()
    assert {"displacement", "von_mises"} <= set(out.functions)
    with (folder / "history.csv").open() as sheet:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(sheet)]
    assert [row["time"] for row in rows] == [0.0, 0.5, 1.0]
    assert rows[-1]["stored_energy"] == pytest.approx(solver.stored_energy(), rel=1e-12)
    assert rows[-1]["dissipation"] == pytest.approx(solver.dissipation(), rel=1e-12)
