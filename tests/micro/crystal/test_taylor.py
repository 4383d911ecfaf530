"""The Taylor polycrystal: a mean over grains that share the deformation, exact in pressure, isotropic in the limit."""

import pytest
import torch

from micro.crystal.law import Crystal
from micro.crystal.paths import random_walk
from micro.crystal.taylor import TaylorPolycrystal
from micro.tensors import determinant, deviator, from_components, matmul, random_rotations, to_components

EYE = torch.eye(3, dtype=torch.float64)


def walks(n: int, steps: int = 30, strain: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch (n, T, 6) and times (n, T), s, of random walks of 10 us."""
    paths = random_walk(range(n), 3, strain=strain, steps=steps, knots=3, duration=(1e-5, 1e-5))
    return torch.from_numpy(paths.U), torch.from_numpy(paths.time * paths.duration[:, None])


def test_one_grain_is_the_crystal_turned() -> None:
    U, time = walks(1)
    polycrystal = TaylorPolycrystal(1, seed=5)
    q, crystal = polycrystal.orientations[0], Crystal()
    state, expected = crystal.initial_state(1), [torch.zeros(3, 3, dtype=torch.float64)]
    for k in range(1, U.shape[1]):
        F = q.T @ from_components(U[0, k]) @ q
        state, _ = crystal.update(F[None], state, time[:, k] - time[:, k - 1])
        expected.append(q @ crystal.cauchy(F[None], state)[0] @ q.T)
    result = polycrystal.solve(U, time)
    assert result.ok.tolist() == [True]
    scale = float(result.stress.abs().max())
    torch.testing.assert_close(from_components(result.stress[0]), torch.stack(expected), rtol=0, atol=1e-9 * scale)


def test_mean_is_over_the_grains_of_the_seed() -> None:
    U, time = walks(1, steps=10)
    three = TaylorPolycrystal(3, seed=2)
    alone = []
    for q in three.orientations:
        one = TaylorPolycrystal(1)
        one.orientations = q[None]
        alone.append(one.solve(U, time).stress)
    mean, scale = torch.stack(alone).mean(0), float(alone[0].abs().max())
    torch.testing.assert_close(three.solve(U, time).stress, mean, rtol=0, atol=1e-8 * scale)


def test_pressure_is_exact_whatever_the_history() -> None:
    U, time = walks(3, strain=0.5)
    stress = TaylorPolycrystal(6).solve(U, time).stress
    J = determinant(from_components(U))
    assert float(J.max() - J.min()) > 0.3
    exact = 2 * 24e9 * (J - 1)
    mean = stress[..., :3].mean(-1)
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-12 * float(exact.abs().max()))
    assert float(deviator(from_components(stress)).abs().max()) > 1e8


def test_result_does_not_depend_on_the_batch() -> None:
    U, time = walks(4, steps=20)
    polycrystal = TaylorPolycrystal(5)
    together = polycrystal.solve(U, time).stress
    part = polycrystal.solve(U[[2, 0]], time[[2, 0]]).stress
    torch.testing.assert_close(part, together[[2, 0]], rtol=0, atol=1e-9 * float(together.abs().max()))


def test_a_polycrystal_at_rest_is_free_of_stress() -> None:
    rest = to_components(EYE).expand(2, 6, 6)
    time = torch.linspace(0, 1e-3, 6, dtype=torch.float64).expand(2, 6)
    result = TaylorPolycrystal(4).solve(rest, time)
    assert result.ok.all()
    assert float(result.stress.abs().max()) < 1e-3  # Pa: round-off of the turns


def test_substeps_are_steps_along_the_chord() -> None:
    U, time = walks(2, steps=8, strain=0.1)
    middle = [torch.stack([a[:, :-1] + (a[:, 1:] - a[:, :-1]) * f for f in (0.0, 0.5)], dim=2) for a in (U, time)]
    fine = [torch.cat([m.flatten(1, 2), a[:, -1:]], dim=1) for m, a in zip(middle, (U, time), strict=True)]
    coarse = TaylorPolycrystal(4, substeps=2).solve(U, time).stress
    each = TaylorPolycrystal(4).solve(fine[0], fine[1]).stress[:, ::2]
    torch.testing.assert_close(coarse, each, rtol=0, atol=1e-8 * float(each.abs().max()))
    once = TaylorPolycrystal(4).solve(U, time).stress
    assert float((once - each).abs().max()) > 1e-4 * float(each.abs().max())


def test_many_grains_are_nearly_isotropic() -> None:
    """Turning the stretch turns the stress: to 9 to 15 % of the deviator for the paper's 128 grains (measured)."""
    paths, time = walks(2, steps=40)
    U = from_components(paths)
    turns = random_rotations(3, 9)
    errors = {}
    for grains in (8, 128):
        polycrystal = TaylorPolycrystal(grains)
        plain = deviator(from_components(polycrystal.solve(paths, time).stress))
        found = []
        for q in turns:
            turned = polycrystal.solve(to_components(matmul(matmul(q, U), q.mT)), time).stress
            back = matmul(matmul(q.mT, deviator(from_components(turned))), q)
            found.append((back - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1))
        errors[grains] = torch.stack(found)
    assert float(errors[128].max()) < 0.2
    # A mean of independent grains: the anisotropy falls with the root of their number, here by four.
    assert float(errors[128].mean()) < 0.5 * float(errors[8].mean())


def test_a_path_that_cannot_be_solved_is_named_and_spoils_no_other() -> None:
    U, time = walks(2, steps=6, strain=0.05)
    U[1, 4:, 0] = -0.5  # turned inside out
    polycrystal = TaylorPolycrystal(3)
    result = polycrystal.solve(U, time)
    assert result.ok.tolist() == [True, False]
    assert result.reason == ["", "Newton of the crystal law did not converge at stored step 4"]
    alone = polycrystal.solve(U[:1], time[:1]).stress
    torch.testing.assert_close(result.stress[:1], alone, rtol=0, atol=1e-9 * float(alone.abs().max()))


@pytest.mark.parametrize("options", [{"grains": 0}, {"substeps": 0}, {"grains": -3}])
def test_empty_polycrystals_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least 1, got"):
        TaylorPolycrystal(**options)


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
