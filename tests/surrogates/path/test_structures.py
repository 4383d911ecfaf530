"""Structures of a law in time: what each guarantees for any weights."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from micro.crystal.texture import even_texture
from micro.tensors import random_rotations
from surrogates.path.overlay import Sizes
from surrogates.path.structure_training import Budget, follow, train
from surrogates.path.structures import Elements, Frames, Piece, Potentials, Structure, WithGrains, flow, turns
from surrogates.path.windows import Rows

SIZES = Sizes(3, 2, mixed=4, products=3, basis=5, width=12)
FRAMES = even_texture(4).orientations
MAKE = {
    "elements": lambda: Elements(SIZES, 1),
    "potentials": lambda: Potentials(SIZES, terms=5, seed=1),
    "grains": lambda: WithGrains(SIZES, 1),
    "frames": lambda: Frames(FRAMES, memory=3, width=12, seed=1),
}


def random_law(name: str) -> Structure:
    """A structure with random weights in double precision."""
    law = MAKE[name]().double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return law


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_piece(n: int, seed: int = 3, size: float = 0.2) -> Piece:
    dt = 10.0 ** (-3 + 2 * draw(n, seed=seed).abs())
    return Piece(size * draw(n, 5, seed=seed + 1), 0.3 * draw(n, 5, seed=seed + 2), dt, 0.01 * draw(n), 0 * draw(n, 5))


def states(law: Structure, n: int) -> Tensor:
    """States after three random steps, which the law can reach."""
    state = torch.zeros(n, law.state, dtype=torch.float64)
    with torch.no_grad():
        for k in range(3):
            state = law(state, random_piece(n, seed=10 * k))[1]
    return state


@pytest.mark.parametrize("name", MAKE)
def test_a_virgin_material_is_elastic(name: str) -> None:
    law = random_law(name)
    D = torch.tensor([[1e-3, 0, -2e-3, 0, 5e-4]], dtype=torch.float64)
    zero, one = torch.zeros(1, law.state, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    stress = law(zero, Piece(D, 0 * D, one, 0 * one, D))[0]  # the grains are elastic, too
    # The rotations of the frames are stored in single precision.
    torch.testing.assert_close(stress, D, rtol=1e-12, atol=1e-9 if name == "frames" else 0)


@pytest.mark.parametrize("name", MAKE)
def test_a_step_of_no_strain_and_no_duration_changes_nothing(name: str) -> None:
    law, n = random_law(name), 50
    state, piece = states(law, n), random_piece(n)
    piece = piece._replace(D=0 * piece.D, dt=0 * piece.dt)
    torch.testing.assert_close(law(state, piece)[1], state, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", MAKE)
def test_a_hold_relaxes_in_time(name: str) -> None:
    """The elastic energy of a fast ramp falls in a hold, the more the longer it is, and does not vanish at once."""
    law = random_law(name)
    state, one = torch.zeros(1, law.state, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    D = torch.tensor([[0.2, 0, 0.1, 0, 0]], dtype=torch.float64)
    for k in range(20):
        state = law(state, Piece(D, 0.002 * k * D, 1e-3 * one, 0 * one, 0 * D))[1]
    held = [law(state, Piece(0 * D, 0.04 * D, t * one, 0 * one, 0 * D))[0].norm() for t in (0.0, 1e-3, 1e-1, 10.0)]
    sizes = torch.stack(held).tolist()
    assert sizes[0] > 1.001 * sizes[1] > 1.001**2 * sizes[2] > sizes[3] > 0.0


@pytest.mark.parametrize("name", MAKE)
def test_turned_paths_have_turned_stresses(name: str) -> None:
    """Isotropic, or, for the frames, with the frames turned along."""
    law, n = random_law(name), 40
    Q = random_rotations(1, 5)[0]
    R = turns(Q[None])[0]
    other = random_law(name)
    if isinstance(other, Frames):
        other.turn.copy_(turns(Q @ FRAMES))
    state, turned = (torch.zeros(n, law.state, dtype=torch.float64) for _ in range(2))
    for k in range(4):
        piece = random_piece(n, seed=10 * k)._replace(base=0.2 * draw(n, 5, seed=k))
        along = piece._replace(D=piece.D @ R.T, E=piece.E @ R.T, base=piece.base @ R.T)
        (stress, state), (stress_turned, turned) = law(state, piece), other(turned, along)
        torch.testing.assert_close(stress_turned, stress @ R.T, rtol=0, atol=1e-6 if name == "frames" else 1e-11)


@pytest.mark.parametrize("name", ["potentials", "frames"])
def test_energy_rises_by_no_more_than_the_work(name: str) -> None:
    """The second law, for large and small steps from states that the law reaches; the loss is not small."""
    law, n = random_law(name), 2000
    state = states(law, n)
    for size in (0.5, 0.1, 1e-2, 0.0):
        piece = random_piece(n, seed=40, size=size)
        stress, new = law(state, piece)
        lost = (stress * piece.D).sum(1) - (law.energy(new) - law.energy(state))
        assert float(lost.min()) > -1e-12
        assert float(lost.max()) > 1e-3 * float(law.energy(state).mean())


def test_the_stress_of_a_step_has_a_potential() -> None:
    """The tangent of the potentials is symmetric, and not negative; that of the elements is not symmetric."""
    asymmetry = {}
    for name in ("potentials", "elements"):
        law, n = random_law(name), 60
        state, piece = states(law, n), random_piece(n)
        D = piece.D.clone().requires_grad_(True)
        stress = law(state, piece._replace(D=D))[0]
        rows = [torch.autograd.grad(stress[:, i].sum(), D, retain_graph=True)[0] for i in range(5)]
        tangent = torch.stack(rows, dim=1)
        asymmetry[name] = float((tangent - tangent.mT).abs().max())
        if name == "potentials":
            assert float(torch.linalg.eigvalsh(0.5 * (tangent + tangent.mT)).min()) > -1e-12
    assert asymmetry["potentials"] < 1e-6 < asymmetry["elements"]  # the regularisation of lengths is 1e-8


def test_the_flow_is_the_minimum_of_energy_and_potential() -> None:
    """Against a minimiser of SciPy, from a point where the length of p is smooth."""
    e, X, D = 0.4 * draw(5, seed=1), 0.1 * draw(5, seed=2), 0.2 * draw(5, seed=4)
    for r, a, kappa, t in ((0.1, 50.0, 0.0, 1e-2), (0.2, 200.0, 0.7, 1e-1), (0.05, 5.0, 2.0, 1.0)):
        one = torch.ones(1, 1, dtype=torch.float64)
        p, length = flow(
            e.reshape(1, 1, 5), X.reshape(1, 1, 5), r * one, a * one, kappa * one[0], D[None], t * one[0]
        )

        def potential(p: np.ndarray, r: float = r, q: float = a * t, kappa: float = kappa) -> float:
            size = np.linalg.norm(p)
            elastic = 0.5 * np.sum((e.numpy() + D.numpy() - p) ** 2) + X.numpy() @ p + 0.5 * kappa * size**2
            return float(elastic + r * size + 2 / 3 * size**1.5 / np.sqrt(q))

        found = minimize(potential, 0.01 * (e + D - X).numpy(), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(p[0, 0].numpy(), found.x, atol=1e-5)
        assert float(length) == pytest.approx(float(p.norm()), rel=1e-6) and float(length) > 1e-3


def test_training_lowers_the_error() -> None:
    """Paths of a law with other weights: a second of training must bring the error down."""
    teacher, rng = random_law("elements").float(), np.random.default_rng(0)
    paths = []
    for _ in range(16):
        values = np.zeros((24, 23), dtype=np.float32)
        values[:, :5] = 0.2 * rng.normal(size=5) + 0.05 * rng.normal(size=(24, 5))
        values[:, 15], values[:, 17] = 0.05, 1.0
        stress = follow(teacher, [Rows(values, 1.0)])[0]
        values[:, 10:15] = stress
        paths.append(Rows(values, float((stress**2).sum(1).mean())))
    truth = np.stack([path.values[:, 10:15] for path in paths])

    def error(law: Structure) -> float:
        return float(np.linalg.norm(np.stack(follow(law, paths)) - truth) / np.linalg.norm(truth))

    law = MAKE["potentials"]()
    before = error(law)
    found = train(law, paths, Budget(1.0, batch=8, window=12, rates=(2e-2, 1e-3), warm_up=2))
    assert found["updates"] > 0 and found["passes"] > 0
    assert error(law) < 0.8 * before
