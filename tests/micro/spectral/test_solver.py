"""The spectral solver: exact cells, conservation of the mean, equilibrium, work, invariance, voids, failures."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm
from scipy.optimize import root

from micro.spectral.laws import NeoHookean, Void, VonMises
from micro.spectral.solver import SpectralCells
from micro.tensors import from_components, random_rotations

SOFT, STIFF = NeoHookean(26e9, 50e9), NeoHookean(260e9, 400e9)
METAL, HARD = VonMises(26e9, 70e9, 200e6, 500e6), VonMises(80e9, 160e9, 700e6, 2e9)


def ramp(steps: int, last: tuple[float, ...], cells: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A mean stretch that grows evenly from the identity to I + last (11, 22, 33, 12, 23, 13), and the times."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    start = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    return (start + t[:, None] * torch.tensor(last, dtype=torch.float64)).repeat(cells, 1, 1), t.repeat(cells, 1)


def disc(n: int, radius: float = 0.3) -> torch.Tensor:
    """Phase 1 in a disc (1, n, n)."""
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    return (x[:, None] ** 2 + x**2 < radius**2).long()[None]


def neo_hookean(law: NeoHookean, F: np.ndarray) -> np.ndarray:
    back = np.linalg.inv(F).T
    return law.mu * (F - back) + law.lam * np.log(np.linalg.det(F)) * back


def von_mises(law: VonMises, F: np.ndarray, Fp: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Backward Euler of the same model in other variables: F_p itself, matrix functions, and a scalar equation."""
    trial = F @ np.linalg.inv(Fp)
    strain = 0.5 * np.real(logm(trial.T @ trial))  # in the intermediate configuration
    mandel = 2 * law.mu * (strain - np.trace(strain) / 3 * np.eye(3))
    over = np.sqrt(1.5) * np.linalg.norm(mandel) - law.yield_stress - law.hardening * alpha
    if over > 0:
        more = over / (3 * law.mu + law.hardening)
        flow = np.sqrt(1.5) * more * mandel / np.linalg.norm(mandel)
        Fp, alpha = expm(flow) @ Fp, alpha + more
    Fe = F @ np.linalg.inv(Fp)
    strain = 0.5 * np.real(logm(Fe @ Fe.T))
    tau = law.bulk * np.trace(strain) * np.eye(3) + 2 * law.mu * (strain - np.trace(strain) / 3 * np.eye(3))
    return tau @ np.linalg.inv(F).T, Fp, alpha


@pytest.mark.parametrize("scheme", ["rotated", "fourier"])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_elastic_laminate_is_exact(scheme: str, axis: int) -> None:
    phase = torch.zeros(1, 9, 9, dtype=torch.long)
    phase.movedim(1 + axis, 0)[:4] = 1
    last = (0.2, -0.1, 0.05, 0.1, 0.02, -0.03)
    result = SpectralCells(phase, [SOFT, STIFF], scheme=scheme, tolerance=1e-11).solve(*ramp(1, last), store=[1])
    U, f, N = np.eye(3) + from_components(np.array([*last])), 4 / 9, np.eye(3)[axis]

    def jump(a: np.ndarray) -> np.ndarray:
        stiff, soft = U + (1 - f) * np.outer(a, N) / 10, U - f * np.outer(a, N) / 10
        return (neo_hookean(STIFF, stiff) - neo_hookean(SOFT, soft)) @ N / 1e10

    a = root(jump, np.zeros(3), tol=1e-13).x / 10
    assert np.linalg.norm(jump(10 * a)) < 1e-10
    P = f * neo_hookean(STIFF, U + (1 - f) * np.outer(a, N)) + (1 - f) * neo_hookean(SOFT, U - f * np.outer(a, N))
    assert np.linalg.norm(result.P[0, 0].mean((0, 1)).numpy() - P) < 1e-8 * np.linalg.norm(P)


def test_an_elastoplastic_laminate_is_exact() -> None:
    phase = torch.zeros(1, 8, 3, dtype=torch.long)
    phase[:, :5] = 1
    U, time = ramp(4, (0.03, -0.01, 0.0, 0.02, 0.0, 0.0))
    result = SpectralCells(phase, [METAL, HARD], tolerance=1e-10).solve(U, time, store=[4])
    f, N = 5 / 8, np.array([1.0, 0, 0])
    old = [(np.eye(3), 0.0), (np.eye(3), 0.0)]
    guess = np.zeros(3)
    for k in range(1, 5):
        mean = from_components(U[0, k]).numpy()

        def points(a: np.ndarray, mean: np.ndarray = mean, old: list = old) -> list:
            F = (mean - f * np.outer(a, N) / 100, mean + (1 - f) * np.outer(a, N) / 100)
            return [von_mises(law, F[i], *old[i]) for i, law in enumerate((METAL, HARD))]

        def jump(a: np.ndarray) -> np.ndarray:
            soft, hard = points(a)
            return (hard[0] - soft[0]) @ N / 1e8

        found = root(jump, guess, tol=1e-12)
        guess, new = found.x, points(found.x)
        assert np.linalg.norm(jump(guess)) < 1e-6
        old = [(Fp, alpha) for _, Fp, alpha in new]
    assert min(alpha for _, alpha in old) > 0.005  # both phases flow
    P = (1 - f) * new[0][0] + f * new[1][0]
    assert np.linalg.norm(result.P[0, 0].mean((0, 1)).numpy() - P) < 1e-6 * np.linalg.norm(P)
    assert result.internal[0, 0, :5, :, 6].numpy() == pytest.approx(old[1][1], rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 6, 5), (1, 4, 3, 5)])
def test_a_homogeneous_cell_is_uniform_and_needs_no_iteration(shape: tuple[int, ...]) -> None:
    U, time = ramp(3, (0.1, -0.05, 0.02, 0.06, 0.0, 0.03))
    result = SpectralCells(torch.zeros(shape, dtype=torch.long), [METAL]).solve(U, time, store=[3])
    state, t = METAL.initial_state(1), torch.ones(1)
    for k in range(1, 4):
        P, state = METAL.update(from_components(U[:, k]), state, t)
    assert result.P.flatten(1, -3) == pytest.approx(P.expand_as(result.P.flatten(1, -3)), rel=1e-9, abs=1e-3)
    assert result.iterations[0].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("scheme", ["rotated", "fourier"])
@pytest.mark.parametrize("shape", [(16, 16), (9, 12), (6, 5, 8)])
def test_the_mean_is_prescribed_the_field_compatible_and_the_stress_in_equilibrium(
    scheme: str, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    phase = torch.randint(0, 2, (1, *shape), generator=generator)
    cells = SpectralCells(phase, [SOFT, METAL], scheme=scheme, tolerance=1e-6)
    U, time = ramp(2, (0.02, -0.01, 0.0, 0.03, 0.0, 0.01))
    result = cells.solve(U, time, store=[1, 2])
    F, P = result.F[:, 1], result.P[:, 1]
    mean = F.flatten(1, -3).mean(1)
    assert (mean - from_components(U[:, 2])).abs().max() < 1e-14
    assert float(cells.grid.incompatibility(F)) < 1e-14
    assert F.flatten(1, -3).std(1).max() > 1e-3
    # The virtual work of P on any compatible field without a mean, made here by hand, is small.
    other = torch.complex(*torch.randn(2, *cells.grid.zeros(1).shape, generator=generator, dtype=torch.float64))
    virtual = cells.grid.deformation(other, torch.zeros(1, 3, 3, dtype=torch.float64))
    virtual = virtual - virtual.flatten(1, -3).mean(1)[0]
    work = (P * virtual).sum() / (P.norm() * virtual.norm())
    assert abs(float(work)) < 1e-6
    # Hill and Mandel: the mean of the work is the work of the means.
    dF = F - result.F[:, 0]
    local, macro = (P * dF).sum((-1, -2)).mean(), (P.flatten(1, -3).mean(1) * dF.flatten(1, -3).mean(1)).sum()
    scale = (P.square().mean() * dF.square().mean()).sqrt()
    assert abs(float(local - macro)) < 1e-5 * float(scale)


def test_the_residual_sees_what_is_not_in_equilibrium() -> None:
    cells = SpectralCells(disc(8), [SOFT, STIFF])
    F = from_components(ramp(1, (0.1, 0.0, 0.0, 0.0, 0.0, 0.0))[0][:, 1])
    P, _ = cells.respond(
        F[:, None, None].expand(1, 8, 8, 3, 3), cells.initial_state().internal, torch.ones(1), cells.phase
    )
    assert float(cells.grid.imbalance(P).abs().square().sum().sqrt()) > 1e8


def test_refinement_converges() -> None:
    """Stress of a stiff disc against a fine grid: at least first order in the voxel, for both discretisations."""
    U, time = ramp(1, (0.05, -0.02, 0.0, 0.03, 0.0, 0.0))

    def stress(n: int, scheme: str) -> torch.Tensor:
        # A volume fraction per voxel would be smoother; the disc of voxels has an error of the area as well, which
        # a radius that holds the same area on all grids would hide. So the smooth problem is a graded one:
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        bump = 0.5 - 0.25 * (torch.cos(2 * torch.pi * x)[:, None] + torch.cos(2 * torch.pi * x))
        cells = SpectralCells(torch.zeros(1, n, n, dtype=torch.long), [Graded()], internal=bump.reshape(1, -1, 1),
                              scheme=scheme, tolerance=1e-9)  # fmt: skip
        return cells.solve(U, time).stress[0, 1]

    for scheme, order in (("rotated", 1.8), ("fourier", 1.8)):
        coarse, middle, fine = (stress(n, scheme) for n in (8, 16, 32))
        exact = stress(45, "fourier")
        errors = [float((s - exact).norm() / exact.norm()) for s in (coarse, middle, fine)]
        assert errors[2] < 1e-3
        assert errors[2] < 1e-9 or np.log2(errors[1] / errors[2]) > order


class Graded:
    """Neo-Hookean with a stiffness that the state carries."""

    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    def update(self, F: torch.Tensor, state: torch.Tensor, dt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return SOFT.update(F, state, dt)[0] * (1 + 4 * state)[:, :, None], state


def test_moving_the_cell_moves_the_fields() -> None:
    U, time = ramp(3, (0.03, 0.0, 0.0, 0.02, 0.0, 0.0))
    phase = disc(10)
    there = SpectralCells(phase, [METAL, HARD], tolerance=1e-7).solve(U, time, store=[3])
    moved = SpectralCells(phase.roll((3, -2), (1, 2)), [METAL, HARD], tolerance=1e-7).solve(U, time, store=[3])
    assert (there.P.roll((3, -2), (2, 3)) - moved.P).norm() < 1e-5 * moved.P.norm()


def test_a_batch_of_cells_equals_the_cells() -> None:
    U, time = ramp(3, (0.03, -0.01, 0.0, 0.02, 0.0, 0.0), cells=3)
    U[1, :, 3] *= -1
    phase = torch.cat([disc(8, 0.2), disc(8, 0.3), disc(8, 0.4)])
    batch = SpectralCells(phase, [METAL, HARD], tolerance=1e-8).solve(U, time)
    for k in range(3):
        alone = SpectralCells(phase[k : k + 1], [METAL, HARD], tolerance=1e-8).solve(U[k : k + 1], time[:1])
        assert (alone.stress[0] - batch.stress[k]).abs().max() < 1e-7 * alone.stress.abs().max()


@pytest.mark.parametrize("solid", [SOFT, METAL])
def test_voids_converge(solid: NeoHookean | VonMises) -> None:
    U, time = ramp(2, (0.01, 0.0, 0.0, 0.0, 0.0, 0.0))
    cells = SpectralCells(disc(16), [solid, Void()], tolerance=1e-5)
    result = cells.solve(U, time, store=[2])
    full = SpectralCells(torch.zeros(1, 16, 16, dtype=torch.long), [solid]).solve(U, time)
    assert result.ok.all()
    assert 0 < result.stress[0, -1, 0] < 0.7 * full.stress[0, -1, 0]  # below the mean over the solid (Voigt): 72 %
    assert result.P[0, 0][disc(16)[0] == 1].abs().max() == 0


def test_a_failed_cell_is_named_and_the_others_go_on() -> None:
    U, time = ramp(2, (0.1, 0.0, 0.0, 0.0, 0.0, 0.0), cells=2)
    U[1, 2, 0] = -0.5  # an inverted cell
    result = SpectralCells(disc(8).repeat(2, 1, 1), [SOFT, STIFF], halvings=1).solve(U, time)
    alone = SpectralCells(disc(8), [SOFT, STIFF]).solve(U[:1], time[:1])
    assert result.ok.tolist() == [True, False]
    assert result.reason[0] == "" and "step 2" in result.reason[1]
    assert result.stress[1, 2].isnan().all() and result.stress[1, 1].isfinite().all()
    assert (result.stress[0] - alone.stress[0]).abs().max() < 1e-7 * alone.stress.abs().max()


def test_a_step_is_cut_where_a_law_needs_it() -> None:
    """A law that refuses strain increments above a bound sees smaller steps, and the answer of an elastic law stays."""

    class Careful:
        def initial_state(self, n: int) -> torch.Tensor:
            return torch.eye(3, dtype=torch.float64).flatten().repeat(n, 1)

        def update(self, F: torch.Tensor, state: torch.Tensor, dt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            P = SOFT.update(F, state, dt)[0]
            far = (F.flatten(1) - state).norm(dim=1) > 0.06
            return torch.where(far[:, None, None], torch.nan, P), F.flatten(1).clone()

    U, time = ramp(1, (0.2, 0.0, 0.0, 0.0, 0.0, 0.0))
    phase = torch.zeros(1, 4, 4, dtype=torch.long)
    cut = SpectralCells(phase, [Careful()]).solve(U, time)
    whole = SpectralCells(phase, [SOFT]).solve(U, time)
    assert cut.ok.all()
    assert (cut.stress - whole.stress).abs().max() < 1e-9 * whole.stress.abs().max()
    assert not SpectralCells(phase, [Careful()], halvings=1).solve(U, time).ok.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phase": torch.zeros(4, 4, dtype=torch.long)}, "phase must have shape"),
        ({"phase": torch.ones(1, 4, 4)}, "phase must be integers"),
        ({"phase": torch.full((1, 4, 4), 2)}, "phase must number 2 laws"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"scheme": "other"}, "scheme must be"),
        ({"laws": [Void(), Void()]}, "laws must give every cell some stiffness"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    chosen = {"phase": disc(4), "laws": [SOFT, STIFF]} | options
    with pytest.raises(ValueError, match=message):
        SpectralCells(chosen.pop("phase"), chosen.pop("laws"), **chosen)


def test_von_mises_agrees_with_the_same_model_in_other_variables() -> None:
    """A path with turns and rotations; the elastic law of Hencky in a closed form besides."""
    generator = torch.Generator().manual_seed(2)
    state, Fp, alpha = METAL.initial_state(1), np.eye(3), 0.0
    F = torch.eye(3, dtype=torch.float64)[None]
    for Q in random_rotations(8, 3):
        F = F + 0.05 * torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
        P, state = METAL.update(Q @ F, state, torch.ones(1))
        expected, Fp, alpha = von_mises(METAL, (Q @ F)[0].numpy(), Fp, alpha)
        assert P[0].numpy() == pytest.approx(expected, rel=1e-7, abs=1e-6 * np.abs(expected).max())
        assert float(state[0, 6]) == pytest.approx(alpha, rel=1e-9)
    assert alpha > 0.1 and np.linalg.det(Fp) == pytest.approx(1.0)
