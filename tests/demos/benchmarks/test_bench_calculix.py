"""The comparison with CalculiX: its deck holds our bar, what it prints is read back; without it, a sentence."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.mesh import closing_gmsh

DEMO = "benchmarks/bench_calculix.py"


@pytest.fixture(scope="module")
def bar(demo):
    from meshes.taylor_bar import taylor_bar

    with closing_gmsh(MPI.COMM_SELF):
        taylor_bar(demo.LENGTH, 2.0 * demo.RADIUS, 4, quarter=True)
        return demo.mesh_arrays()


def block(deck, head):
    """Numbers of the lines after a head, up to the next."""
    lines = deck.split(head, 1)[1].split("\n", 1)[1].split("*", 1)[0].replace(",\n", "\n").strip().splitlines()
    return [np.array([float(word) for word in line.split(",")]) for line in lines]


def test_the_deck_holds_the_bar(demo, bar):
    x, cells = bar
    deck = demo.deck(x, cells, demo.parse(["--step", "1e-8"]))
    nodes, elements = np.array(block(deck, "*NODE,")), np.array(block(deck, "*ELEMENT"))
    np.testing.assert_allclose(nodes[:, 1:], 1e3 * x, atol=1e-9)
    corners = nodes[elements[:, 1:].astype(int) - 1, 1:]
    # The order of the corners is that of C3D8: round the lower face, then the upper one.
    low, high = corners[:, :4], corners[:, 4:]
    np.testing.assert_allclose(high[..., :2], low[..., :2], atol=1e-9)
    after = np.roll(low, -1, axis=1)
    areas = 0.5 * (low[..., 0] * after[..., 1] - low[..., 1] * after[..., 0]).sum(axis=1)
    volume = float((areas * (high - low)[..., 2].mean(axis=1)).sum())
    assert areas.min() > 0.0
    assert volume == pytest.approx(0.25 * 8 / 2 * np.sin(2 * np.pi / 8) * 3.2**2 * 32.4, rel=1e-9)
    foot = np.concatenate(block(deck, "*NSET, NSET=FOOT")).astype(int) - 1
    assert set(foot) == set(np.flatnonzero(x[:, 2] < 1e-9))
    rest = np.concatenate(block(deck, "*NSET, NSET=REST")).astype(int) - 1
    assert len(foot) + len(rest) == len(x)
    (first, last) = block(deck, "*PLASTIC")
    assert (last[0] - first[0]) / (last[1] - first[1]) == pytest.approx(1e-6 * demo.HARDENING)


def test_printed_displacements_are_read(demo, bar, tmp_path):
    x, _ = bar
    rim = int(np.flatnonzero((x[:, 2] < 1e-9) & (np.abs(x[:, 1]) < 1e-9) & (x[:, 0] > 3.1e-3))[0])
    top = int(np.flatnonzero((x[:, 2] > 32.3e-3) & (np.hypot(x[:, 0], x[:, 1]) < 1e-9))[0])
    text = ""
    for t, out, down in ((1e-6, "1.000000E-01", "-2.000000E-01"), (2e-6, "-7.191104+215", "0.000000E+00")):
        text += f"\n displacements (vx,vy,vz) for set RIM and time  {t:.7E}\n\n  {rim + 1}  {out}  0.0  0.0\n"
        text += f"\n displacements (vx,vy,vz) for set TOP and time  {t:.7E}\n\n  {top + 1}  0.0  0.0  {down}\n"
    (tmp_path / "bar.dat").write_text(text)
    rows = demo.read_printed(tmp_path / "bar.dat", x)
    np.testing.assert_allclose(rows[0], [1e-6, 32.2e-3, 3.3e-3], rtol=1e-9)
    assert np.isnan(rows[1, 2])


def test_without_the_program_there_is_one_sentence(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.main(["--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("There is no ccx on the PATH")
