"""Engineering constants against closed forms; directional stiffness against a turned tensor."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from micro.voxel.solver.element import isotropic
from surrogates.cells.stiffness import compliance, directional_stiffness, engineering_constants, write_picture


def test_an_isotropic_material_gives_its_constants_back():
    found = engineering_constants(isotropic(2.0, 0.3))
    assert all(found[f"E_{i}"] == pytest.approx(2.0) for i in "123")
    assert all(found[f"nu_{ij}"] == pytest.approx(0.3) for ij in ("12", "13", "23", "21", "31", "32"))
    assert found["G_12"] == pytest.approx(2 / 2.6)
    assert found["K_voigt"] == pytest.approx(2 / 1.2) == found["K_reuss"]
    assert found["zener"] == pytest.approx(1.0)
    assert found["universal"] == pytest.approx(0.0, abs=1e-12)


def test_an_orthotropic_material_keeps_its_directions_apart():
    E, nu, G = (3.0, 2.0, 1.0), {"12": 0.3, "13": 0.2, "23": 0.1}, {"23": 0.5, "13": 0.4, "12": 0.7}
    S = np.diag([1 / e for e in E] + [1 / G[k] for k in ("23", "13", "12")])
    for ij, value in nu.items():
        i, j = int(ij[0]) - 1, int(ij[1]) - 1
        S[i, j] = S[j, i] = -value / E[i]
    found = engineering_constants(np.linalg.inv(S))
    for i in range(3):
        assert found[f"E_{i + 1}"] == pytest.approx(E[i])
    for ij in nu:
        assert found[f"nu_{ij}"] == pytest.approx(nu[ij])
        assert found[f"G_{ij}"] == pytest.approx(G[ij])
    assert found["universal"] > 0.1


def test_stiffness_along_a_direction_is_that_along_an_axis_of_the_turned_material():
    random = np.random.default_rng(0)
    A = random.normal(size=(6, 6))
    C = A @ A.T + 6 * np.eye(6)
    R = Rotation.random(random_state=1).as_matrix()
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    full = np.zeros((3, 3, 3, 3))
    for a, (i, j) in enumerate(pairs):
        for b, (k, l) in enumerate(pairs):
            for p, q in ((i, j), (j, i)):
                for r, s in ((k, l), (l, k)):
                    full[p, q, r, s] = C[a, b]
    full = np.einsum("ai,bj,ck,dl,ijkl->abcd", R, R, R, R, full)
    turned = np.array([[full[i, j, k, l] for k, l in pairs] for i, j in pairs])
    for axis in range(3):
        assert directional_stiffness(C, R[axis]) == pytest.approx(1 / compliance(turned)[axis, axis])


def test_a_cell_that_resists_one_direction_only_has_no_other_modulus():
    C = np.zeros((6, 6))
    C[0, 0] = 0.1
    found = engineering_constants(C)
    assert found["E_1"] == pytest.approx(0.1)
    assert all(found[f"nu_{ij}"] is None for ij in ("12", "13", "21", "31", "23", "32"))
    assert found["E_2"] is None and found["G_12"] is None and found["K_reuss"] is None and found["universal"] is None


def test_the_picture_is_written(tmp_path):
    write_picture(tmp_path / "E.png", isotropic(), "isotropic")
    assert (tmp_path / "E.png").stat().st_size > 10_000
