"""The Taylor polycrystal: a mean over grains that share the deformation, exact in pressure, isotropic in the limit."""

from dataclasses import dataclass

import pytest
import torch

from micro.crystal import constants
from micro.crystal.compiled import available
from micro.crystal.law import Crystal
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.crystal.taylor import TaylorPolycrystal
from micro.tensors import (
    determinant,
    deviator,
    from_components,
    matmul,
    random_rotations,
    rotation_about,
    to_components,
)

EYE = torch.eye(3, dtype=torch.float64)
BACKENDS = [
    "torch",
    pytest.param("compiled", marks=pytest.mark.skipif(not available(), reason="there is no C compiler")),
]


@dataclass(frozen=True)
class Grains:
    """Orientations and weights, as a texture has them."""

    orientations: torch.Tensor
    weights: torch.Tensor


def walks(n: int, steps: int = 3, strain: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch (n, T, 6) and times (n, T), s, of random walks of 10 us."""
    paths = random_walk(range(n), 3, strain=strain, steps=steps, knots=3, duration=(1e-5, 1e-5))
    return torch.from_numpy(paths.U), torch.from_numpy(paths.time * paths.duration[:, None])


def test_one_grain_is_the_crystal_turned() -> None:
    U, time = walks(1)
    polycrystal = TaylorPolycrystal(1, seed=5, backend="torch")
    q, crystal = polycrystal.orientations[0], Crystal()
    state, expected = crystal.initial_state(1), [torch.zeros(3, 3, dtype=torch.float64)]
    C = EYE[None]
    for k in range(1, U.shape[1]):
        F = (q.T @ from_components(U[0, k]) @ q)[None]
        C, C_n = F.mT @ F, C
        state = crystal.update(C_n, C, state, time[:, k] - time[:, k - 1]).state
        expected.append(q @ crystal.cauchy(F, state)[0] @ q.T)
    result = polycrystal.solve(U, time)
    assert result.ok.tolist() == [True]
    scale = float(result.stress.abs().max())
    torch.testing.assert_close(from_components(result.stress[0]), torch.stack(expected), rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mean_has_the_weights_of_the_texture(backend: str) -> None:
    U, time = walks(1)
    q, weights = random_rotations(3, 2), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    alone = [TaylorPolycrystal(Grains(q[i : i + 1], one), backend=backend).solve(U, time) for i in range(3)]
    result = TaylorPolycrystal(Grains(q, weights), backend=backend).solve(U, time)
    mean = sum(w * a.stress for w, a in zip(weights, alone, strict=True))
    torch.testing.assert_close(result.stress, mean, rtol=0, atol=1e-8 * float(mean.abs().max()))
    for name, field in result.fields.items():
        mean = sum(w * a.fields[name] for w, a in zip(weights, alone, strict=True))
        torch.testing.assert_close(field, mean, rtol=0, atol=1e-9)
    assert float(result.solves) == pytest.approx(sum(float(a.solves) for a in alone) / 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pressure_is_exact_whatever_the_history(backend: str) -> None:
    U, time = walks(3, strain=0.4)
    stress = TaylorPolycrystal(4, backend=backend).solve(U, time).stress
    J = determinant(from_components(U))
    assert float(J.max() - J.min()) > 0.2
    exact = 2 * 24e9 * (J - 1)
    mean = stress[..., :3].mean(-1)
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-12 * float(exact.abs().max()))
    assert float(deviator(from_components(stress)).abs().max()) > 1e8


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_does_not_depend_on_the_batch(backend: str) -> None:
    U, time = walks(2)
    polycrystal = TaylorPolycrystal(3, backend=backend)
    together = polycrystal.solve(U, time).stress
    part = polycrystal.solve(U[[1]], time[[1]]).stress
    torch.testing.assert_close(part, together[[1]], rtol=0, atol=1e-9 * float(together.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_of_a_run_are_those_of_a_path_and_turn_with_the_body(backend: str) -> None:
    """`update` with superposed rotations, which differ from step to step, gives the stress of `solve`, turned."""
    U, time = walks(2)
    polycrystal = TaylorPolycrystal(3, backend=backend)
    expected, state = polycrystal.solve(U, time), polycrystal.initial_state(2)
    for k in range(1, U.shape[1]):
        R = rotation_about(torch.tensor([1.0, -2.0, 0.5]), 0.4 * k)
        F = R @ from_components(U[:, k])
        P, state, ok = polycrystal.update(F, state, time[:, k] - time[:, k - 1])
        assert bool(ok.all())
        sigma = P @ F.mT / determinant(F)[:, None, None]
        scale = float(sigma.abs().max())
        torch.testing.assert_close(to_components(R.T @ sigma @ R), expected.stress[:, k], rtol=0, atol=1e-8 * scale)
    for name, field in polycrystal.fields(state).items():
        torch.testing.assert_close(field, expected.fields[name][:, -1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_polycrystal_at_rest_is_free_of_stress(backend: str) -> None:
    rest = to_components(EYE).expand(2, 6, 6)
    time = torch.linspace(0, 1e-3, 6, dtype=torch.float64).expand(2, 6)
    result = TaylorPolycrystal(4, backend=backend).solve(rest, time)
    assert result.ok.all()
    assert float(result.stress.abs().max()) < 1e-3  # Pa: round-off of the turns


@pytest.mark.parametrize("backend", BACKENDS)
def test_inelastic_deformation_stays_isochoric_and_twins_grow_only(backend: str) -> None:
    U, time = walks(2, strain=0.4)
    polycrystal = TaylorPolycrystal(4, backend=backend)
    state, before = polycrystal.initial_state(2), torch.zeros(2, 4, 6, dtype=torch.float64)
    for k in range(1, U.shape[1]):
        _, state, ok = polycrystal.update(from_components(U[:, k]), state, time[:, k] - time[:, k - 1])
        F_in, e, lam = polycrystal.unpack(state)
        assert bool(ok.all()) and e.shape == (2, 4, 12)
        torch.testing.assert_close(determinant(F_in), torch.ones(2, 4, dtype=torch.float64), rtol=0, atol=1e-11)
        assert float((lam - before).min()) >= 0.0
        before = lam
    assert 0.1 < float(before.sum(-1).max()) <= 1 + 1e-12
    fields = polycrystal.fields(state)
    assert set(fields) == {"twin_fraction", "slip_basal", "slip_prismatic", "slip_pyramidal"}
    torch.testing.assert_close(fields["twin_fraction"], before.sum(-1).mean(-1))


@pytest.mark.skipif(not available(), reason="there is no C compiler")
@pytest.mark.parametrize("strain", [0.05, 0.4])
def test_compiled_and_torch_agree(strain: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-10 where Newton's iteration ends at round-off; its last change is else below its tolerance in both."""
    monkeypatch.setattr(constants, "NEWTON_TOLERANCE", 1e-9 / constants.TOLERANCE)
    monkeypatch.setattr(constants, "NEWTON_ITERATIONS", 40)
    U, time = walks(2, strain=strain)
    compiled, plain = (TaylorPolycrystal(2, seed=1, backend=backend) for backend in ("compiled", "torch"))
    a, b = compiled.solve(U, time), plain.solve(U, time)
    assert a.ok.all() and b.ok.all()
    assert float(b.fields["twin_fraction"].max()) > 0.01
    torch.testing.assert_close(a.solves, b.solves)
    torch.testing.assert_close(a.stress, b.stress, rtol=0, atol=1e-10 * float(b.stress.abs().max()))
    for name, field in a.fields.items():
        torch.testing.assert_close(field, b.fields[name], rtol=0, atol=1e-10)


@pytest.mark.skipif(not available(), reason="there is no C compiler")
@pytest.mark.parametrize(("material", "duration"), [("steel-316l", 1e-5), ("ferrite", 1e-5)])
def test_compiled_and_torch_agree_without_twins(
    material: str, duration: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cubic crystals with 12 and 24 slip systems, rates with a power of 11 and 20, and a resistance from the start."""
    monkeypatch.setattr(constants, "NEWTON_TOLERANCE", 1e-9 / constants.TOLERANCE)
    monkeypatch.setattr(constants, "NEWTON_ITERATIONS", 40)
    paths = random_walk(range(2), 3, strain=0.05, steps=3, knots=3, duration=(duration, duration))
    U, time = torch.from_numpy(paths.U), torch.from_numpy(paths.time * paths.duration[:, None])
    compiled, plain = (
        TaylorPolycrystal(2, seed=1, parameters=load_material(material), backend=backend)
        for backend in ("compiled", "torch")
    )
    a, b = compiled.solve(U, time), plain.solve(U, time)
    assert a.ok.all() and b.ok.all()
    assert max(float(field.max()) for field in b.fields.values()) > 0.01
    torch.testing.assert_close(a.solves, b.solves)
    torch.testing.assert_close(a.stress, b.stress, rtol=0, atol=1e-9 * float(b.stress.abs().max()))
    for name, field in a.fields.items():
        torch.testing.assert_close(field, b.fields[name], rtol=0, atol=1e-9)


def test_backend_is_the_compiled_one_where_it_can_be_used() -> None:
    assert TaylorPolycrystal(1).backend == ("compiled" if available() else "torch")
    assert TaylorPolycrystal(1, slip="common").backend == "torch"
    assert TaylorPolycrystal(1, backend="torch").backend == "torch"
    sentence = 'backend "compiled" needs the device cpu and slip "domains", got cpu, \'parent\''
    with pytest.raises(ValueError, match=sentence):
        TaylorPolycrystal(1, slip="parent", backend="compiled")
    with pytest.raises(ValueError, match="backend must be one of auto, compiled, torch, got 'fast'"):
        TaylorPolycrystal(1, backend="fast")


def test_anisotropy_falls_with_the_root_of_the_number_of_grains() -> None:
    """Turning the stretch turns the stress, for many grains; 16 times as many leave about a quarter of the rest."""
    paths, time = walks(2, steps=8)
    U = from_components(paths)
    errors = {}
    for grains in (6, 96):
        polycrystal = TaylorPolycrystal(grains)
        plain = deviator(from_components(polycrystal.solve(paths, time).stress))
        found = []
        for q in random_rotations(3, 9):
            turned = polycrystal.solve(to_components(matmul(matmul(q, U), q.mT)), time).stress
            back = matmul(matmul(q.mT, deviator(from_components(turned))), q)
            found.append((back - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1))
        errors[grains] = float(torch.stack(found).mean())
    assert errors[96] < 0.2
    assert errors[96] < 0.5 * errors[6]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_path_that_cannot_be_solved_is_named_and_spoils_no_other(backend: str) -> None:
    U, time = walks(2, strain=0.05)
    U[1, 2:, 0] = -0.5  # turned inside out
    polycrystal = TaylorPolycrystal(3, backend=backend)
    result = polycrystal.solve(U, time)
    assert result.ok.tolist() == [True, False]
    reason = "the deformation or the state was not finite with det F > 0 at point 2 of the path"
    assert result.reason == ["", reason]
    assert bool(result.stress[1, 2:].isnan().all()) and bool(result.stress[1, :2].isfinite().all())
    alone = polycrystal.solve(U[:1], time[:1]).stress
    torch.testing.assert_close(result.stress[:1], alone, rtol=0, atol=1e-9 * float(alone.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failed_step_keeps_the_state(backend: str) -> None:
    polycrystal = TaylorPolycrystal(2, backend=backend)
    start, dt = polycrystal.initial_state(2), torch.full((2,), 1e-7, dtype=torch.float64)
    F = torch.stack([torch.diag(torch.tensor([-1.0, 1.0, 1.0])).double(), 1.01 * EYE])
    P, state, ok = polycrystal.update(F, start, dt)
    assert ok.tolist() == [False, True]
    assert bool(P[0].isnan().all())
    torch.testing.assert_close(state[0], start[0], rtol=0, atol=0)
    torch.testing.assert_close(P[1] @ F[1].T / 1.01**3, 48e9 * (1.01**3 - 1) * EYE, rtol=1e-9, atol=1.0)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="grains must be at least 1, got 0"):
        TaylorPolycrystal(0)
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1, got -1"):
        TaylorPolycrystal(1, tolerance=-1)
    with pytest.raises(ValueError, match="slip must be one of domains, common, parent, got 'both'"):
        TaylorPolycrystal(1, slip="both")
    with pytest.raises(ValueError, match=r"F must have shape \(n, 3, 3\), got \(3, 3\)"):
        TaylorPolycrystal(1).update(EYE, TaylorPolycrystal(1).initial_state(1), torch.ones(1))


def test_paths_that_make_no_sense_are_refused() -> None:
    polycrystal = TaylorPolycrystal(1)
    U, time = walks(2, steps=5)
    with pytest.raises(ValueError, match=r"U must have shape \(s, T, 6\) and time \(s, T\), got \(2, 6, 6\), \(2, 5\)"):
        polycrystal.solve(U, time[:, 1:])
    with pytest.raises(ValueError, match=r"U must have shape \(s, T, 6\)"):
        polycrystal.solve(from_components(U), time)
    with pytest.raises(ValueError, match="time must increase along every path"):
        polycrystal.solve(U, time.flip(1))
    with pytest.raises(ValueError, match="U must be the identity at the first time"):
        polycrystal.solve(U[:, 1:], time[:, 1:])
