"""Paths read from the history of a run: what is read, how it is resampled, what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from micro.crystal.paths import PathOptions, draw_paths
from micro.crystal.paths.recorded import read_recorded
from micro.tensors import from_components

T = 9


@pytest.fixture
def history() -> dict[str, np.ndarray]:
    """Stretches with a rotation that grows, of three points, and uneven times."""
    rng = np.random.default_rng(1)
    A = rng.standard_normal((3, 1, 3, 3))
    U = np.eye(3) + 0.1 * (A + np.swapaxes(A, 2, 3)) / 2 * np.linspace(0, 1, T)[None, :, None, None]
    R = Rotation.from_rotvec(np.linspace(0, 1, T)[:, None] * [0.3, -1.0, 0.5]).as_matrix()
    return {"F": R @ U, "U": U, "time": 1e-6 * np.linspace(0, 1, T) ** 2 + 1e-3}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write a file of the kind that its suffix says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


@pytest.mark.parametrize("name", ["run.h5", "run.npz"])
@pytest.mark.parametrize("kind", ["F", "U"])
def test_the_stretch_of_a_history_is_a_path(tmp_path: Path, history: dict, name: str, kind: str) -> None:
    """A superposed rotation leaves no trace; the same number of points gives the recorded ones."""
    path = write(tmp_path / name, {kind: history[kind], "time": history["time"]})
    options = PathOptions(("recorded",), recorded=str(path), steps=T - 1)
    paths = draw_paths([0, 1, 2, 4], 0, options)
    np.testing.assert_allclose(from_components(paths.U), history["U"][[0, 1, 2, 1]], rtol=0, atol=1e-14)
    np.testing.assert_allclose(paths.time * paths.duration[:, None], [history["time"] - 1e-3] * 4, rtol=1e-9)
    np.testing.assert_array_equal(paths.U[:, 0], [[1.0, 1, 1, 0, 0, 0]] * 4)


def test_between_two_points_the_cauchy_green_tensor_is_linear(tmp_path: Path, history: dict) -> None:
    path = write(tmp_path / "run.npz", {"F": history["F"], "time": history["time"]})
    fine = draw_paths([2], 0, PathOptions(("recorded",), recorded=str(path), steps=2 * (T - 1)))
    C = from_components(fine.U[0]) @ from_components(fine.U[0])
    np.testing.assert_allclose(C[1::2], (C[:-2:2] + C[2::2]) / 2, rtol=0, atol=1e-14)
    np.testing.assert_allclose(from_components(fine.U[0, ::2]), history["U"][2], rtol=0, atol=1e-14)


def spoilt(history: dict, **changes: object) -> dict:
    """The history with other arrays; None leaves one out."""
    arrays = {"F": history["F"], "time": history["time"]} | changes
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (lambda h: {"time": None}, "must hold time and one of F and U, it holds F"),
        (lambda h: {"U": h["U"]}, "must hold time and one of F and U"),
        (lambda h: {"F": h["F"][0]}, r"F in run.npz must have shape \(n, T, 3, 3\) with T at least 2, got \(9, 3, 3\)"),
        (lambda h: {"time": h["time"][:-1]}, r"time in run.npz must have shape \(9,\) or \(3, 9\), got \(8,\)"),
        (lambda h: {"F": np.where(h["F"] > 0.99, np.nan, h["F"])}, "F in run.npz must be finite"),
        (lambda h: {"time": h["time"][::-1]}, "time in run.npz must increase"),
        (lambda h: {"F": 1.1 * h["F"]}, "F in run.npz must be the identity at the first time, it differs by 0.1"),
        (lambda h: {"F": h["F"] * np.linspace(1, -1, T)[:, None, None]}, "must have a positive determinant, got -"),
        (lambda h: {"F": None, "U": h["F"]}, "U in run.npz must be symmetric and positive definite"),
        (lambda h: {"F": np.array(["x"] * 9)}, r"recorded .* cannot be read \(ValueError\)"),
    ],
)
def test_a_bad_history_is_refused(tmp_path: Path, history: dict, changes: object, sentence: str) -> None:
    path = write(tmp_path / "run.npz", spoilt(history, **changes(history)))
    with pytest.raises(ValueError, match=sentence):
        read_recorded(path)


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    for name, sentence in (("a.h5", "cannot be read"), ("a.npz", "cannot be read"), ("a.txt", "must be an HDF5")):
        (tmp_path / name).write_text("no history")
        with pytest.raises(ValueError, match=sentence):
            read_recorded(tmp_path / name)
