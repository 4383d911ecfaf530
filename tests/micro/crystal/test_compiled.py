"""The compiled crystal: closed forms, order of convergence, independence of the batch, and how its library is kept."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from micro import build
from micro.crystal import compiled, constants
from micro.crystal.compiled import CompiledPolycrystal
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.crystal.systems import crystal_systems
from micro.tensors import from_components, random_rotations, to_components

pytestmark = pytest.mark.skipif(not compiled.available(), reason="there is no C compiler")

IDENTITY = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def magnesium(grains: int = 8, twin_tau_0: float = 1.0, **options: Any) -> CompiledPolycrystal:
    """Some grains of magnesium; a large factor of the twins' resistance prevents twinning."""
    systems = crystal_systems(load_material().with_tau_0(twin=twin_tau_0))
    return CompiledPolycrystal(systems, random_rotations(grains, 0).numpy(), np.full(grains, 1 / grains), **options)


def walks(n: int, strain: float = 0.3, steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """C (n, T, 6) and times (n, T), s, of random walks of 1 us."""
    paths = random_walk(range(n), 3, strain=strain, steps=steps, knots=4)
    U = from_components(paths.U)
    return to_components(U @ U), paths.time * paths.duration[:, None]


def one_system(G: float = 25e9, **constants: float) -> SimpleNamespace:
    """A crystal with one slip system, e_x in the plane normal to e_y, and no twins."""
    tensor = np.zeros((1, 1, 9))
    tensor[0, 0, 1] = 1.0
    basis = np.asarray(crystal_systems(load_material()).basis)
    values = {"tau_0": 50e6, "rate_0": 1e5, "h": 0.0, "sigma_inf": 1.0, "r_0": 0.0, "v": 0.0, **constants}
    exponent = values.pop("exponent", 2.0)
    return SimpleNamespace(
        parameters=SimpleNamespace(G=G, lambda_e=24e9),
        **{"n_slip": 1, "n_twin": 0, "slip": tensor, "twin": np.zeros((0, 9)), "basis": basis},
        **{name: np.array([value]) for name, value in values.items()},
        **{"slip_exponent": exponent, "twin_exponent": 2.0},
        **{"twin_tau_0": 1.0, "twin_rate_0": 0.0, "twin_h": 0.0, "twin_k": 0.0},
    )


def single(systems: Any, **options: Any) -> CompiledPolycrystal:
    """One crystal in the frame of the sample."""
    return CompiledPolycrystal(systems, np.eye(3)[None], np.ones(1), **options)


def deviator(S: np.ndarray, C: np.ndarray) -> np.ndarray:
    """The part of S that does no work on a change of volume, as components (..., 6)."""
    inverse = np.linalg.inv(from_components(C))
    trace = (from_components(S) * from_components(C)).sum((-1, -2))[..., None, None]
    return to_components(from_components(S) - trace / 3 * inverse)


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_single_slip_follows_its_scalar_equation(exponent: float) -> None:
    # B = 1 - g S holds exactly for slip g of one system S, so f = G det(C)^(-1/3) (C_12 - g C_11) drives it.
    systems = one_system(h=2e9, sigma_inf=60e6, r_0=20e6, exponent=exponent)
    time = np.linspace(0.0, 1e-6, 21)[None]
    C = np.tile(IDENTITY, (1, 21, 1))
    C[0, :, 3] = 0.12 * np.sin(2 * np.pi * time[0] / 1e-6)  # loading, unloading and reversal
    C[0, :, 0] += 0.1 * time[0] / 1e-6

    def rate(t: float, y: np.ndarray) -> list[float]:
        c11, c12 = (np.interp(t, time[0], C[0, :, k]) for k in (0, 3))
        force = 25e9 * (c11 - c12**2) ** (-1 / 3) * (c12 - y[0] * c11)
        r = 20e6 + 60e6 * (1 - np.exp(-2e9 * y[1] / 60e6))
        slip = 1e5 * max((abs(force) - r) / 50e6, 0.0) ** exponent
        return [slip * np.sign(force), slip]

    y = np.zeros(2)
    for k in range(20):
        y = solve_ivp(rate, time[0, k : k + 2], y, method="Radau", rtol=1e-9, atol=1e-12).y[:, -1]
    result = single(systems, tolerance=1e-6).solve(C, time)
    state = single(systems).unpack(result.state)
    B = np.eye(3)
    B[0, 1] = -y[0]
    assert result.ok.all() and y[1] > 0.1
    np.testing.assert_allclose(state["e"][0, 0, 0], y[1], rtol=1e-4)
    np.testing.assert_allclose(state["B"][0, 0], B, atol=1e-4 * abs(y[0]))
    expected = compiled.stress(C[:, -1], to_components(B @ B.T)[None], 25e9, 24e9)
    np.testing.assert_allclose(result.S[:, -1], expected, atol=1e-3 * np.abs(deviator(expected, C[:, -1])).max())


@pytest.mark.parametrize("dt", [0.0, 1e-8])
def test_elastic_answer_is_that_of_the_energy(dt: float) -> None:
    # With a resistance out of reach nothing flows; without a duration nothing has the time to.
    crystal = single(one_system(r_0=1e12 if dt else 0.0))
    F = np.eye(3) + 0.02 * np.random.default_rng(0).normal(size=(4, 3, 3))
    result = crystal.update(F, crystal.initial_state(4), dt)
    C, J = np.swapaxes(F, 1, 2) @ F, np.linalg.det(F)[:, None, None]
    inverse, trace = np.linalg.inv(C), np.trace(C, axis1=1, axis2=2)[:, None, None]
    expected = 25e9 * J ** (-2 / 3) * (np.eye(3) - trace / 3 * inverse) + 48e9 * (J - 1) * J * inverse
    np.testing.assert_allclose(from_components(result.S), expected, rtol=1e-10, atol=1e-2)
    np.testing.assert_allclose(crystal.unpack(result.state)["B"][:, 0], np.tile(np.eye(3), (4, 1, 1)), atol=1e-15)
    mandel = crystal.unpack(result.state)["m"][:, 0]
    basis = crystal.systems.basis
    np.testing.assert_allclose(mandel, 25e9 * (J ** (-2 / 3) * C).reshape(4, 9) @ basis, rtol=1e-9, atol=1e-2)


@pytest.mark.parametrize(("twin_tau_0", "coarse"), [(1.0, 400), (1e6, 50)])
def test_second_order_in_the_step(twin_tau_0: float, coarse: int) -> None:
    C, time = walks(1, strain=0.1, steps=6)
    exact = magnesium(4, twin_tau_0, substeps=32 * coarse, tolerance=None).solve(C, time).S
    errors = []
    for substeps in (coarse, 2 * coarse, 4 * coarse):
        result = magnesium(4, twin_tau_0, substeps=substeps, tolerance=None).solve(C, time)
        assert result.ok.all() and result.solves[0] == 2 * 4 * 6 * substeps
        errors.append(np.abs(result.S - exact)[:, 1:].max())
    assert np.log2(errors[0] / errors[1]) > 1.5 and np.log2(errors[1] / errors[2]) > 1.5


def test_error_follows_the_tolerance() -> None:
    C, time = walks(2)
    exact = magnesium(tolerance=1e-6).solve(C, time).S
    scale = np.abs(deviator(exact, C)).max()
    errors = [np.abs(magnesium(tolerance=tol).solve(C, time).S - exact).max() / scale for tol in (1e-2, 1e-3, 1e-4)]
    assert errors[0] < 2e-2 and errors[1] < errors[0] / 2 and errors[2] < errors[1] / 2


def test_result_does_not_depend_on_the_batch() -> None:
    C, time = walks(5)
    all_of_them = magnesium(7).solve(C, time, history=True)
    order = [3, 0, 4, 2, 1]
    shuffled = magnesium(7).solve(C[order], time[order], history=True)
    np.testing.assert_allclose(shuffled.S, all_of_them.S[order], rtol=1e-13)
    np.testing.assert_allclose(shuffled.history, all_of_them.history[order], rtol=1e-13)
    alone = magnesium(7).solve(C[2:3], time[2:3])
    np.testing.assert_allclose(alone.S, all_of_them.S[2:3], rtol=1e-13)
    np.testing.assert_array_equal(alone.solves, all_of_them.solves[2:3])


def test_grains_do_not_depend_on_the_other_lanes() -> None:
    # Grains with and without twins in one vector, and lanes whose twins have come and gone with the grain before.
    C, time = walks(3, strain=0.1, steps=60)
    together = magnesium(11)
    result = together.solve(C, time, history=True)
    assert result.history is not None
    twins = (together.unpack_grains(result.history)["lam"] > 1e-3).sum(-1)
    assert twins.min() == 0 and twins.max() > 0
    for grain in range(11):
        one = CompiledPolycrystal(together.systems, together.orientations[grain : grain + 1], np.ones(1))
        for point in range(3):
            alone = one.solve(C[point : point + 1], time[point : point + 1], history=True)
            np.testing.assert_allclose(alone.history[0, :, 0], result.history[point, :, grain], rtol=1e-13, atol=0)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    C, time = walks(3)
    whole = magnesium(3).solve(C, time)
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 1)
    parts = magnesium(3).solve(C, time)
    np.testing.assert_array_equal(parts.S, whole.S)
    assert parts.counts[:3] == whole.counts[:3]


def test_path_is_a_sequence_of_updates() -> None:
    C, time = walks(3)
    crystal = magnesium(3)
    result, state = crystal.solve(C, time), crystal.initial_state(3)
    for k in range(1, C.shape[1]):
        step = crystal.update(C[:, k], state, time[:, k] - time[:, k - 1])
        np.testing.assert_allclose(step.S, result.S[:, k], rtol=1e-10)
        state = step.state
    np.testing.assert_allclose(state, result.state, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(crystal.stress(state), result.S[:, -1], rtol=1e-9)


def test_rotation_after_the_deformation_leaves_the_stress() -> None:
    crystal, rotations = magnesium(), random_rotations(6, 4).numpy()
    F = np.eye(3) + 0.03 * np.random.default_rng(1).normal(size=(6, 3, 3))
    first = crystal.update(F, crystal.initial_state(6), 1e-8)
    turned = crystal.update(rotations @ F, crystal.initial_state(6), 1e-8)
    np.testing.assert_allclose(turned.S, first.S, rtol=1e-7, atol=1e-7 * np.abs(first.S).max())


def test_rotated_grains_under_rotated_strain_give_the_rotated_stress() -> None:
    C, time = walks(2)
    crystal, q = magnesium(), random_rotations(1, 9).numpy()[0]
    turned = CompiledPolycrystal(crystal.systems, q @ crystal.orientations, crystal.weights)
    expected = to_components(q @ from_components(crystal.solve(C, time).S) @ q.T)
    result = turned.solve(to_components(q @ from_components(C) @ q.T), time)
    np.testing.assert_allclose(result.S, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_flow_keeps_the_volume_and_twins_fill_the_crystal_at_most() -> None:
    C, time = walks(4, strain=0.5, steps=200)
    crystal = magnesium(12)
    grains = crystal.unpack_grains(crystal.solve(C, time, history=True).history)
    np.testing.assert_allclose(np.linalg.det(grains["B"]), 1.0, atol=1e-12)
    total = grains["lam"].sum(-1)
    assert total.max() <= 1 + 1e-12 and total.max() > 0.99  # some of them twin entirely
    for name in ("e", "lam"):
        assert (np.diff(grains[name], axis=1) >= -1e-15).all(), name


def test_mandel_stress_stays_that_of_the_deformation() -> None:
    C, time = walks(2)
    crystal = magnesium()
    grains, q = crystal.unpack(crystal.solve(C, time).state), crystal.orientations
    in_crystal = np.einsum("gia,nij,gjb->ngab", q, from_components(C[:, -1]), q)
    C_e = np.swapaxes(grains["B"], -1, -2) @ in_crystal @ grains["B"]
    C_e = C_e * np.linalg.det(C_e)[..., None, None] ** (-1 / 3)
    m = 25e9 * C_e.reshape(2, 8, 9) @ np.asarray(crystal.systems.basis)
    assert np.abs(m - grains["m"]).max() < 1e-3 * np.abs(m).max()


def test_without_twins_the_models_of_slip_agree() -> None:
    C, time = walks(1)
    default = magnesium(3, 1e6).solve(C, time)
    np.testing.assert_allclose(magnesium(3, 1e6, slip="parent").solve(C, time).S, default.S, rtol=1e-6)
    twinning, parent = (deviator(magnesium(3, slip=slip).solve(C, time).S, C) for slip in ("domains", "parent"))
    assert np.abs(parent - twinning).max() > 1e-2 * np.abs(twinning).max()


def test_general_exponents_give_what_the_square_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    C, time = walks(1, steps=10)
    square = magnesium(3).solve(C, time)
    monkeypatch.setattr(compiled, "_defines", lambda s, t, *_: (f"N_SLIP={s}", f"N_TWIN={t}"))
    np.testing.assert_allclose(magnesium(3).solve(C, time).S, square.S, rtol=1e-8)


@pytest.mark.parametrize("spoil", ["nan", "inverted", "infinite", "state"])
def test_a_spoilt_point_leaves_the_others_alone(spoil: str) -> None:
    crystal = magnesium(3)
    F = np.eye(3) + 0.01 * np.random.default_rng(2).normal(size=(5, 3, 3))
    state = crystal.initial_state(5)
    right = crystal.update(F, state, 1e-8)
    F, state = F.copy(), state.copy()
    if spoil == "state":
        state[2, 20] = np.nan
    else:
        F[2] = {"nan": np.nan, "infinite": np.inf, "inverted": np.zeros((3, 3))}[spoil]
    result = crystal.update(F, state, 1e-8)
    others = [0, 1, 3, 4]
    assert result.ok.tolist() == [True, True, False, True, True]
    assert constants.REASONS[result.status[2]] and np.isnan(result.S[2]).all()
    np.testing.assert_array_equal(result.state[2], state[2])
    np.testing.assert_array_equal(result.S[others], right.S[others])
    np.testing.assert_array_equal(result.state[others], right.state[others])


def test_a_path_that_fails_keeps_what_it_has_reached() -> None:
    C, time = walks(3)
    right = magnesium(3).solve(C, time)
    C = C.copy()
    C[1, 20] = np.nan
    result = magnesium(3).solve(C, time)
    assert result.ok.tolist() == [True, False, True] and result.failed_at.tolist() == [41, 20, 41]
    np.testing.assert_array_equal(result.S[1, :20], right.S[1, :20])
    assert np.isnan(result.S[1, 20:]).all()
    np.testing.assert_array_equal(result.S[[0, 2]], right.S[[0, 2]])


def test_unreasonable_strain_ends() -> None:
    crystal = magnesium(2)
    C = to_components(np.diag([1e8, 1e-4, 1e-4])[None])
    result = crystal.update(C, crystal.initial_state(1), 1e-15)
    assert result.ok[0] or np.isnan(result.S).all()


def test_arguments_are_checked() -> None:
    crystal = magnesium(2)
    state = crystal.initial_state(1)
    with pytest.raises(ValueError, match="dt must not be negative"):
        crystal.update(IDENTITY[None], state, -1.0)
    with pytest.raises(ValueError, match="C must have shape"):
        crystal.update(np.zeros((1, 2)), state, 1.0)
    with pytest.raises(ValueError, match="C must start"):
        crystal.solve(np.full((1, 3, 6), 2.0), np.arange(3.0)[None])
    with pytest.raises(ValueError, match="tolerance must be positive"):
        magnesium(2, tolerance=None)
    with pytest.raises(ValueError, match="slip must be"):
        magnesium(2, slip="common")


def test_library_is_built_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    defines = ("N_SLIP=1", "N_TWIN=0")
    build.build.__wrapped__(compiled.MAIN, defines)
    (library,) = (tmp_path / "anvilx").iterdir()
    made = library.stat().st_mtime_ns
    build.build.__wrapped__(compiled.MAIN, defines)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "anvilx").iterdir()] == [made]
    sources, copies = compiled.MAIN.parent, tmp_path / "kernel"
    copies.mkdir()
    for path in sources.iterdir():
        (copies / path.name).write_bytes(path.read_bytes())
    digest = build.digest
    assert digest(("-O3",), "", (copies,)) == digest(("-O3",), "", (sources,))
    assert digest(("-O2",), "", (copies,)) != digest(("-O3",), "", (copies,))
    (copies / compiled.MAIN.name).write_text("int other;\n")
    assert digest(("-O3",), "", (copies,)) != digest(("-O3",), "", (sources,))


def test_without_a_compiler_it_is_not_available(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "there-is-no-such-compiler")
    monkeypatch.setattr(compiled, "build", build.build.__wrapped__)
    with caplog.at_level(logging.WARNING):
        assert not compiled.available.__wrapped__()
    assert "there-is-no-such-compiler" in caplog.text
