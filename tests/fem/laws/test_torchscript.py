"""An exported law behind the same interface: a scripted neo-Hookean must equal the compiled one."""

import numpy as np
import pytest
import torch
from mpi4py import MPI

from fem import laws
from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law
from surrogates.artifact import save_law

NEO_HOOKEAN = load_law("magnesium-neo-hookean")


class ScriptedNeoHookean(torch.nn.Module):
    """Neo-Hookean with a state that counts steps and time, in the parameters' precision (and GPa) inside."""

    def __init__(self, G: float, lmbda: float) -> None:
        super().__init__()
        self.moduli = torch.nn.Parameter(torch.tensor([G, lmbda]), requires_grad=False)

    @torch.jit.export
    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros(n, 2, dtype=torch.float64)

    def forward(self, F: torch.Tensor, state: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
        F_in = F.to(self.moduli.dtype)
        G, lmbda = self.moduli[0], self.moduli[1]
        J = torch.linalg.det(F_in)[:, None, None]
        F_it = torch.linalg.inv(F_in).transpose(1, 2)
        C = (F_in * F_in).sum(dim=(1, 2))[:, None, None]
        P = G * J ** (-2.0 / 3.0) * (F_in - C / 3.0 * F_it) + 2.0 * lmbda * (J - 1.0) * J * F_it
        new = state.clone()
        new[:, 0] += 1.0
        new[:, 1] += dt
        return P.to(torch.float64) * 1.0e3 * 1.0e6, new

    @torch.jit.export
    def tangent(
        self, F: torch.Tensor, state: torch.Tensor, dt: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        graded = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        F = F.detach().requires_grad_(True)
        P, new = self.forward(F, state, dt)
        rows: list[torch.Tensor] = []
        for i in range(3):
            for j in range(3):
                row = torch.autograd.grad([P[:, i, j].sum()], [F], retain_graph=True)[0]
                assert row is not None
                rows.append(row)
        torch.set_grad_enabled(graded)
        return P.detach(), new.detach(), torch.stack(rows, dim=1).reshape(-1, 3, 3, 3, 3)

    @torch.jit.export
    def observe(self, state: torch.Tensor) -> torch.Tensor:
        return state[:, :1]


def manifest(**changes):
    content = {
        "schema": 1,
        "kind": "closed-form",
        "name": "scripted neo-hookean",
        "strain": "finite",
        "dimension": 3,
        "units": {"stress": "Pa", "time": "s", "length": "m"},
        "density": 1e4,
        "moduli": {"bulk": 48e9, "shear": 25e9},
        "state": {
            "size": 2,
            "fields": [{"name": "steps", "offset": 0, "shape": [1]}, {"name": "time", "offset": 1, "shape": [1]}],
        },
        "observe": ["steps"],
        "range": dict.fromkeys(
            ("strain_max", "rate_min", "rate_max", "time_window", "jacobian_min", "jacobian_max"), None
        ),
        "dtype": "float32",
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
    return {**content, **changes}


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "law.pt"
    save_law(path, torch.jit.script(ScriptedNeoHookean(25.0, 24.0)), manifest())
    return path


def gradients(n, seed=0):
    return np.eye(3) + np.random.default_rng(seed).uniform(-0.2, 0.2, (n, 3, 3))


def test_double_precision_equals_the_compiled_law(artifact):
    law, compiled = laws.load_law(artifact, dtype="float64"), NEO_HOOKEAN
    F = gradients(40)
    P, state = law.update(F, law.initial_state(40), 1e-8)
    P_compiled, _, tangent_compiled = compiled.tangent(F, compiled.initial_state(40), 1e-8)
    np.testing.assert_allclose(P, P_compiled, rtol=1e-10, atol=1e-12 * 25e9)
    np.testing.assert_allclose(state, [[1.0, 1e-8]] * 40)
    np.testing.assert_allclose(
        law.tangent(F, state, 1e-8)[2], tangent_compiled, rtol=1e-10, atol=1e-12 * np.abs(tangent_compiled).max()
    )
    assert law.stored_energy(F, state) is None


def test_single_precision_differs_by_what_it_allows(artifact):
    law, compiled = laws.load_law(artifact), NEO_HOOKEAN
    F = gradients(40)
    P = law.update(F, law.initial_state(40), 1e-8)[0]
    assert P.dtype == np.float64
    difference = np.abs(P - compiled.update(F, np.zeros((40, 0)), 1e-8)[0]).max() / np.abs(P).max()
    assert 1e-9 < difference < 1e-5


def test_constants_come_from_the_manifest(artifact):
    law = laws.load_law(artifact)
    assert (law.name, law.density, law.bulk_modulus, law.shear_modulus) == ("scripted neo-hookean", 1e4, 48e9, 25e9)
    assert (law.state_size, law.observed) == (2, ("steps",))
    assert law.manifest.kind == "closed-form"


def test_chunks_do_not_matter_and_nothing_is_changed(artifact):
    F, state = gradients(10), np.random.default_rng(1).uniform(size=(10, 2))
    F_before, state_before = F.copy(), state.copy()
    whole = laws.load_law(artifact, dtype="float64", chunk=None).update(F, state, 1e-8)
    pieces = laws.load_law(artifact, dtype="float64", chunk=3).update(F, state, 1e-8)
    np.testing.assert_allclose(pieces[0], whole[0], rtol=1e-14, atol=1e-14 * np.abs(whole[0]).max())
    np.testing.assert_array_equal(pieces[1], whole[1])
    np.testing.assert_array_equal(F, F_before)
    np.testing.assert_array_equal(state, state_before)


def test_no_points_are_fine(artifact):
    law = laws.load_law(artifact)
    state = law.initial_state(0)
    P, new = law.update(np.zeros((0, 3, 3)), state, 1e-8)
    assert (P.shape, new.shape, law.observe(state).shape) == ((0, 3, 3), (0, 2), (0, 1))
    assert law.tangent(np.zeros((0, 3, 3)), state, 1e-8)[2].shape == (0, 3, 3, 3, 3)


def impact(box, law, comm):
    solver = ExplicitSolver(
        box((1e-3, 1e-3, 2e-3), (3, 3, 6), distort=0.1, comm=comm), law, contact=[RigidPlane()],
        initial_velocity=(0, 0, -100.0),
    )
    solver.run(5e-7).finish()
    return solver


def test_an_impact_with_the_artifact_equals_that_with_the_compiled_law(box, artifact):
    compiled = impact(box, NEO_HOOKEAN, MPI.COMM_SELF).u.x.array
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-4)):
        solver = impact(box, laws.load_law(artifact, dtype=dtype), MPI.COMM_SELF)
        assert np.abs(solver.u.x.array - compiled).max() < tolerance * np.abs(compiled).max()
        # One call at the start, which must not age a virgin law, then one a step.
        np.testing.assert_allclose(solver.state, [[solver.steps, solver.time]] * solver.points.n)


@pytest.mark.mpi
def test_ranks_do_not_matter_to_an_artifact(box, nodes, tmp_path_factory):
    """To 1e-10 in double precision; single precision keeps what its rounding leaves (batches differ between ranks)."""
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path_factory.mktemp("law") if comm.rank == 0 else None)
    if comm.rank == 0:
        save_law(folder / "law.pt", torch.jit.script(ScriptedNeoHookean(25.0, 24.0)), manifest())
    comm.barrier()
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-4)):
        law = laws.load_law(folder / "law.pt", dtype=dtype)
        together, alone = impact(box, law, comm), impact(box, law, MPI.COMM_SELF)
        for a, b in zip(nodes(together), nodes(alone)):
            assert np.abs(a - b).max() < tolerance * np.abs(b).max()


def test_what_is_no_artifact_is_refused(tmp_path, artifact):
    with pytest.raises(ValueError, match="no law or artifact file"):
        laws.load_law(tmp_path / "absent.pt")
    text = tmp_path / "text.pt"
    text.write_text("not an archive")
    with pytest.raises(ValueError, match=r"text\.pt"):
        laws.load_law(text)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        laws.load_law(artifact, chunk=0)


def test_a_law_of_small_strain_is_refused_by_the_explicit_solver(box, tmp_path):
    path = tmp_path / "small.pt"
    save_law(path, torch.jit.script(ScriptedNeoHookean(25.0, 24.0)), manifest(strain="small"))
    law = laws.load_law(path)
    assert (law.strain, law.dimension) == ("small", 3)
    with pytest.raises(ValueError, match="the explicit solver needs finite strain in 3 dimensions"):
        ExplicitSolver(box((1.0, 1.0, 1.0), (1, 1, 1), comm=MPI.COMM_SELF), law)
