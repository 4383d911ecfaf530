"""The tangent of a cell: derivative of its imbalance, linear equations, and what cannot be solved without it."""

import math
from collections.abc import Callable

import pytest
import torch

from micro.crystal.cell import polycrystal_cells, random_cell
from micro.crystal.materials import load_material
from micro.spectral import iteration
from micro.spectral.krylov import minimal_residual
from micro.spectral.laws import NeoHookean, VonMises
from micro.spectral.solver import CellResult, SpectralCells
from micro.spectral.tangent import apply, in_plane, measure
from micro.tensors import cofactor, determinant, from_components, matmul, random_rotations

METAL, HARD = VonMises(26e9, 70e9, 200e6, 500e6), VonMises(80e9, 160e9, 700e6, 2e9)


def checks(n: int, dimension: int = 2) -> torch.Tensor:
    """Two phases in stripes of different width (1, n, n) or (1, n, n, n)."""
    x = torch.arange(n) % 3 == 0
    phase = (x[:, None] ^ (torch.arange(n) % 4 < 2)).long()
    return (phase if dimension == 2 else phase[..., None].expand(n, n, n))[None]


def small_cell(kind: str) -> tuple[SpectralCells, torch.Tensor, torch.Tensor]:
    """A cell, a mean stretch (1, 3, 3) and a time step (1,)."""
    U = from_components(torch.tensor([[1.02, 0.99, 1.0, 0.01, 0.0, 0.0]], dtype=torch.float64))
    if kind == "crystal":
        grain, turns = random_cell(3, (6, 6), 0, 0)
        cells = polycrystal_cells(grain[None], turns[None], load_material("two-slip-2d"), backend="torch")
        return cells, U, torch.tensor([0.05], dtype=torch.float64)
    if kind == "plane":
        return SpectralCells(checks(6), [METAL, HARD]), U, torch.ones(1, dtype=torch.float64)
    U[:, 0, 2] = U[:, 2, 0] = 0.015  # out of the plane
    dimension = 3 if kind == "space" else 2
    return SpectralCells(checks(4, dimension), [METAL, HARD]), U, torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize(("kind", "plane"), [("crystal", True), ("plane", True), ("out", False), ("space", False)])
def test_the_tangent_is_the_derivative_of_the_imbalance(kind: str, plane: bool) -> None:
    cells, U, dt = small_cell(kind)
    grid, state, generator = cells.grid, cells.initial_state(), torch.Generator().manual_seed(1)
    start, direction = torch.randn(2, 1, 3, *grid.n.shape[1:], 2, generator=generator, dtype=torch.float64)
    # Unknowns and their change are those of real fields, as an iteration makes them.
    y, dy = (grid.divergence(grid.gradient(torch.view_as_complex(a))) for a in (start, direction))
    if plane:
        y[:, 2], dy[:, 2] = 0.0, 0.0

    def stress(F: torch.Tensor) -> torch.Tensor:
        return cells.respond(F, state.internal, dt, cells.phase)[0]

    y = 0.003 * y / y.abs().max()
    F = grid.deformation(y, U)
    P = stress(F)
    assert in_plane(F, P, grid.dimension) == plane
    A = measure(lambda trials: torch.stack([stress(trial) for trial in trials]), F, P, grid.dimension, plane)
    rows = 2 if plane else 3
    found = apply(grid, A, dy[:, :rows])
    h = 1e-5 / float(dy.abs().max())
    ahead, behind = (grid.imbalance(stress(grid.deformation(y + sign * h * dy, U))) for sign in (1, -1))
    exact = (ahead - behind)[:, :rows] / (2 * h)
    assert (found - exact).norm() < 5e-3 * exact.norm()


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_tangent_is_that_of_points_squeezed_to_a_twentieth(dimension: int) -> None:
    """Against the closed form of neo-Hooke: grains of a cell at 50 % of mean strain reach such stretches."""
    law, Q, R = NeoHookean(26e9, 50e9), random_rotations(8, 1), random_rotations(8, 2)
    F = matmul(Q * torch.tensor([7.0, 1.0, 0.05], dtype=torch.float64), R)
    P = law.update(F, torch.zeros(8, 0), torch.ones(8))[0]
    respond = lambda trials: law.update(trials.flatten(0, -3), torch.zeros(0), torch.ones(0))[0].reshape(trials.shape)
    shape = (1, 8, 1) if dimension == 2 else (1, 2, 4, 1)
    A = measure(respond, F.reshape(*shape, 3, 3), P.reshape(*shape, 3, 3), dimension, False)
    one, back = torch.eye(3, dtype=torch.float64), cofactor(F) / determinant(F)[:, None, None]
    share = law.mu - law.lam * determinant(F).log()
    exact = law.mu * torch.einsum("ik,JL->iJkL", one, one) + law.lam * torch.einsum("niJ,nkL->niJkL", back, back)
    exact = exact + share[:, None, None, None, None] * torch.einsum("niL,nkJ->niJkL", back, back)
    exact = exact[:, :, :dimension, :, :dimension].reshape(8, 3 * dimension, 3 * dimension)
    found = A.flatten(3)[0].permute(2, 0, 1)
    assert ((found - exact).norm(dim=(1, 2)) < 2e-4 * exact.norm(dim=(1, 2))).all()


@pytest.mark.parametrize("shift", [0.0, -1.5])
def test_linear_equations_are_solved_to_their_share(shift: float) -> None:
    """Against dense matrices, one of them indefinite, and each problem of a batch to a share of its own."""
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(3, 20, 20, generator=generator, dtype=torch.float64) / 20
    A = A + torch.diag_embed(torch.linspace(1.0, 3.0, 20, dtype=torch.float64) + shift)
    b = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    share = torch.tensor([1e-1, 1e-4, 1e-9], dtype=torch.float64)
    product: Callable[[torch.Tensor], torch.Tensor] = lambda x: (A @ x[:, :, None])[..., 0]
    x = minimal_residual(product, lambda x: x / 2, b, share, 25)
    assert ((b - product(x)).norm(dim=1) <= 1.001 * share * b.norm(dim=1)).all()
    assert (x[2] - torch.linalg.solve(A[2], b[2])).norm() < 1e-7 * x[2].norm()
    assert (b - product(x)).norm(dim=1)[0] > 1e-4 * b[0].norm()  # it stops where it is asked to


class Sheared:
    """St. Venant and Kirchhoff's elasticity in axes that slip has sheared by what the state says: S = 2 mu M E M."""

    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    def update(self, F: torch.Tensor, state: torch.Tensor, dt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one = torch.eye(3, dtype=torch.float64)
        B = one.repeat(len(F), 1, 1)
        B[:, 0, 1] = state[:, 0]
        M = matmul(B, B.mT)
        return 26e9 * matmul(F, matmul(matmul(M, matmul(F.mT, F) - one), M)), state


def test_sheared_grains_are_solved_with_the_tangent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slip leaves grains stiff along one direction and soft along another, to which no homogeneous medium is near."""
    shear = torch.where(checks(12) == 1, 3.0, -3.0).to(torch.float64).reshape(1, -1, 1)
    path = torch.tensor([[[1.0, 1, 1, 0, 0, 0], [1.02, 0.99, 1, 0.01, 0, 0]]], dtype=torch.float64)
    time = torch.tensor([[0.0, 1.0]], dtype=torch.float64)

    def solve() -> CellResult:
        return SpectralCells(checks(12) * 0, [Sheared()], internal=shear).solve(path, time)

    found = solve()
    assert found.ok.all() and int(found.iterations.sum()) < 60
    monkeypatch.setattr(iteration, "SLOW", math.inf)  # the tangent is never measured
    without = solve()
    assert not without.ok.any() or int(without.iterations.sum()) > 240


@pytest.mark.parametrize(("shear", "last"), [(5.0, (0.02, -0.01, 0, 0.01, 0, 0)), (3.0, (0.3, -0.2, 0, 0.1, 0, 0))])
def test_a_step_that_goes_astray_returns_and_measures_the_tangent_there(shear: float, last: tuple[float, ...]) -> None:
    """Neither the homogeneous medium nor a tangent from elsewhere leads to equilibrium, and no step is cut."""
    state = torch.where(checks(12) == 1, shear, -shear).to(torch.float64).reshape(1, -1, 1)
    start = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    path = torch.stack([start, start + torch.tensor(last, dtype=torch.float64)])[None]
    time = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    result = SpectralCells(checks(12) * 0, [Sheared()], internal=state, halvings=0).solve(path, time)
    assert result.ok.all() and int(result.iterations.sum()) < 60
