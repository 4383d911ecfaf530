"""An exported law of small strain in two dimensions in the implicit solver: time, stored energy, dissipation."""

import numpy as np
import pytest
import torch

from fem import laws
from fem.implicit import Dirichlet, ImplicitSolver
from surrogates.artifact import save_law

MU, C, TAU = 1.0, 2.0, 0.5


class Relaxing(torch.nn.Module):
    """A spring beside a spring and a damper in series, for each component of the strain; implicit Euler.

    sigma = 2 MU E + C (E - alpha), alpha' = (E - alpha) / TAU; state: alpha (4), psi, dissipation.
    """

    @torch.jit.export
    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros(n, 6, dtype=torch.float64)

    def forward(self, F: torch.Tensor, state: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
        H = F - torch.eye(2, dtype=F.dtype)
        E = 0.5 * (H + H.transpose(1, 2))
        alpha_n = state[:, :4].reshape(-1, 2, 2)
        alpha = (alpha_n + dt / 0.5 * E) / (1.0 + dt / 0.5)
        sigma = 2.0 * E + 2.0 * (E - alpha)
        psi = (E**2).sum(dim=(1, 2)) + ((E - alpha) ** 2).sum(dim=(1, 2))
        # What the damper takes: C (E - alpha) : d alpha.
        spent = state[:, 5] + 2.0 * ((E - alpha) * (alpha - alpha_n)).sum(dim=(1, 2))
        return sigma, torch.cat([alpha.reshape(-1, 4), psi[:, None], spent[:, None]], dim=1)

    @torch.jit.export
    def tangent(
        self, F: torch.Tensor, state: torch.Tensor, dt: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sigma, new = self.forward(F, state, dt)
        eye = torch.eye(2, dtype=F.dtype)
        identity = torch.einsum("ik,jl->ijkl", eye, eye) + torch.einsum("il,jk->ijkl", eye, eye)
        D = (1.0 + 1.0 / (1.0 + dt / 0.5)) * identity
        return sigma, new, D.expand(F.shape[0], 2, 2, 2, 2)

    @torch.jit.export
    def observe(self, state: torch.Tensor) -> torch.Tensor:
        return state[:, 4:]


@pytest.fixture
def law(tmp_path):
    names = ("strain_max", "rate_min", "rate_max", "time_window", "jacobian_min", "jacobian_max")
    content = {
        "schema": 1,
        "kind": "closed-form",
        "name": "relaxing",
        "strain": "small",
        "dimension": 2,
        "units": {"stress": "Pa", "time": "s", "length": "m"},
        "density": 1.0,
        "moduli": {"bulk": 4.0 / 3.0, "shear": 2.0},
        "state": {
            "size": 6,
            "fields": [
                {"name": "alpha", "offset": 0, "shape": [2, 2]},
                {"name": "psi", "offset": 4, "shape": [1]},
                {"name": "dissipation", "offset": 5, "shape": [1]},
            ],
        },
        "observe": ["psi", "dissipation"],
        "range": dict.fromkeys(names),
        "dtype": "float64",
        "data": {"hash": "", "code_version": "", "samples": 0, "seed": 0, "command": ""},
        "errors": {},
        "certificate": {
            "tangent_difference": 1e-8,
            "asymmetry": 0.0,
            "symmetric": True,
            "eigenvalue_min": 1.0,
            "virgin_stress": 0.0,
            "zero_increment": 0.0,
            "newton_order_element": 2.0,
            "newton_order_patch": 2.0,
        },
        "training": {"command": "", "seed": 0, "epochs": 0},
        "hash": "",
    }
    save_law(tmp_path / "relaxing.pt", Relaxing(), content)
    return laws.load_law(tmp_path / "relaxing.pt", chunk=7)


def test_a_body_that_is_held_relaxes(cells, law):
    """No force is out of balance when time goes on, yet the stress must fall; and only time, not t, may matter."""
    stretch, dt = 0.1, 0.25
    ends = [*(Dirichlet("foot", i) for i in range(2)), Dirichlet("top", 0)]
    hold = Dirichlet("top", 1, lambda x, t: stretch * min(4.0 * t, 1.0))
    sides = Dirichlet(None, 0)
    solver = ImplicitSolver(cells("triangle", 3), law, prescribed=[sides, *ends, hold], dt=dt * 4.0)
    forces = [solver.reaction("top")[1] for _ in solver.run(2.0, step=0.25)]
    # The first step stretches it; alpha stays back by 1 / (1 + dt / TAU) a step.
    expected = stretch * (2.0 * MU + C * (1.0 + dt / TAU) ** -np.arange(1.0, 9.0))
    np.testing.assert_allclose(forces, expected, rtol=1e-9)
    left = stretch * (1.0 + dt / TAU) ** -8.0
    assert solver.stored_energy() == pytest.approx(MU * stretch**2 + 0.5 * C * left**2, rel=1e-9)


def test_work_is_stored_or_dissipated(cells, law):
    """Trapezoidal work against the energies of the law, which implicit Euler closes to the order of the step."""
    full = np.array([0.02, 0.05])
    conditions = [Dirichlet("foot"), Dirichlet("top", None, lambda x, t: t * full)]
    solver = ImplicitSolver(cells("quadrilateral", 3), law, prescribed=conditions)
    work, force = 0.0, np.zeros(2)
    for _ in solver.run(1.0, step=0.01):
        force_n, force = force, solver.reaction("top")
        work += 0.5 * (force + force_n) @ full * 0.01
    total = solver.stored_energy() + solver.dissipation()
    assert solver.dissipation() > 0.1 * total and work == pytest.approx(total, rel=0.01)
    assert [step.convergence.iterations for step in solver.history] == [1] * 100


def test_chunks_do_not_matter(law):
    F = np.eye(2) + np.random.default_rng(0).uniform(-0.1, 0.1, (20, 2, 2))
    state = law.update(F, law.initial_state(20), 0.1)[1]
    for parts in zip(law.tangent(F, state, 0.1), law.module.tangent(torch.tensor(F), torch.tensor(state), 0.1)):
        np.testing.assert_array_equal(parts[0], parts[1].numpy())
    P, new = law.update(F, state, 0.1)
    np.testing.assert_array_equal(P, law.tangent(F, state, 0.1)[0])
    np.testing.assert_array_equal(law.stored_energy(F, new), new[:, 4])
    np.testing.assert_array_equal(law.dissipation(new), new[:, 5])
    assert [len(part) for part in law.tangent(F[:0], state[:0], 0.1)] == [0, 0, 0]
