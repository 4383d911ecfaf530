"""The lines of docs/guides/explicit.md run as they stand there, on any number of ranks."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.mpi
def test_the_lines_of_the_page_run_as_they_stand(tmp_path_factory, monkeypatch, capfd):
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path_factory.mktemp("lines") if comm.rank == 0 else None)
    monkeypatch.chdir(folder)
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "explicit.md").read_text(), re.DOTALL)
    assert block is not None
    names: dict = {}
    exec(compile(block.group(1), "docs/guides/explicit.md", "exec"), names)
    assert "EnergyBalance(" in capfd.readouterr().out
    solver = names["solver"]
    assert solver.time == 5e-7
    balance = solver.energy_balance()
    assert balance.energy_error < 1e-2
    assert balance.momentum_error < 1e-9
    assert balance.contact_impulse[2] > 0.0
    assert balance.reaction_impulse[0] != 0.0
    weight = solver.comm.allreduce(solver.mass.sum()) * 9.81
    assert balance.external_impulse[2] == pytest.approx(-weight * 5e-7, rel=1e-9)
    x = solver.points.V.tabulate_dof_coordinates()
    assert np.all(solver.u.x.array.reshape(-1, 3)[np.isclose(x[:, 0], 0.0), 0] == 0.0)
    comm.barrier()
    assert {entry.name for entry in (folder / "results" / "impact").iterdir()} >= {"history.csv"}
    with (folder / "results" / "impact" / "history.csv").open() as sheet:
        times = [float(row["time"]) for row in csv.DictReader(sheet)]
    assert times[0] == 0.0 and times[-1] == 5e-7
    assert np.floor(np.array(times) / 1e-7 + 1e-9).tolist() == [0, 1, 2, 3, 4, 5]
