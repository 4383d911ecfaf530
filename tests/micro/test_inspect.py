"""Inspection: the numbers of the summary are those of the set, and nothing is written unless told where."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from micro import inspect

BEFORE = Path(__file__).parent / "data" / "before_the_move"


def test_measures_of_a_path_in_closed_form() -> None:
    """Isochoric tension exp(e) to e = 0.2 in 1 ms under 300 MPa, then twice the volume."""
    e = np.linspace(0, 0.2, 101)
    U = np.zeros((1, 101, 6))
    U[0, :, 0], U[0, :, 1], U[0, :, 2] = np.exp(e), np.exp(-e / 2), np.exp(-e / 2)
    stress = np.zeros_like(U)
    stress[0, :, 0] = 300e6
    arrays = {"U": U, "stress": stress, "time": np.linspace(0, 1, 101)[None], "duration": np.array([1e-3])}
    measures = inspect.path_measures(arrays)
    values = {name: found for name, (_, found) in measures.items()}
    assert values["equivalent log strain"] == pytest.approx(0.2, rel=1e-12)
    assert values["largest |U - I|"] == pytest.approx(np.exp(0.2) - 1, rel=1e-12)
    assert np.abs(values["volume change J - 1"]).max() < 1e-12
    np.testing.assert_allclose(values["von Mises stress"], 300e6, rtol=1e-12)
    np.testing.assert_allclose(values["pressure"], -100e6, rtol=1e-12)
    exact = np.sqrt(np.exp(e) ** 2 + np.exp(-e / 2) ** 2 / 2) * 200  # |dU/dt| of the curve
    np.testing.assert_allclose(values["strain rate |dU|/dt"], (exact[1:] + exact[:-1]) / 2, rtol=1e-5)
    arrays["U"] = 2 ** (1 / 3) * U
    volume = inspect.path_measures(arrays)["volume change J - 1"][1]
    np.testing.assert_allclose(volume, 1.0, rtol=1e-12)


def test_a_set_of_the_code_before_is_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copytree(BEFORE, tmp_path / "set")
    before = sorted(file.name for file in path.iterdir())
    assert inspect.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "samples   2 of 2, 0 failed" in text
    assert "crystal.G = 25000000000.0" in text
    assert "von Mises stress" in text
    assert sorted(file.name for file in path.iterdir()) == before
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_failed_samples_are_counted_by_reason(
    tmp_path: Path, make_set: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_set(tmp_path / "set") == 0
    capsys.readouterr()
    assert inspect.main([str(tmp_path / "set")]) == 0
    text = capsys.readouterr().out
    assert "20 of 20, 2 failed" in text
    assert text.count("failed    1 times: ") == 2


def test_a_picture_is_drawn_where_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    assert inspect.main([str(BEFORE), "--output", str(folder), "--samples", "2"]) == 0
    assert [file.name for file in folder.iterdir()] == ["before_the_move.png"]
    assert (folder / "before_the_move.png").read_bytes()[:4] == b"\x89PNG"
    assert "before_the_move.png" in capsys.readouterr().out


def test_lattice_sets_have_a_picture(tmp_path: Path) -> None:
    from micro import generate

    generate.run("lattice", output=tmp_path / "set", samples=2, steps=3)
    assert inspect.main([str(tmp_path / "set"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "set.png").is_file()
