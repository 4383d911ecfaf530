"""The Taylor polycrystal as a material law: grains at every point of a structure, the concurrent multiscale method.

`taylor_polycrystal` makes it; solvers of `fem` load it by the name "taylor-polycrystal". Arrays are NumPy's, float64, points
first; nothing is kept between calls. All points have the same orientations, and each the state of its own grains.

State of a point: that of the polycrystal (`micro.crystal.taylor`), then the second Piola-Kirchhoff stress S at the end of the
last step, Pa (6), and the work done since the start, J/m^3 (1), which the trapezoidal rule accumulates:

    work_{n+1} = work_n + (S_n + S_{n+1}) : (C_{n+1} - C_n) / 4.

The dissipation is this work less the stored energy, and has the error of that rule, of second order in the step.

Tangent: P = F S(C), so that, with H = dS/dC,

    dP_ij/dF_kl = delta_ik S_lj + 2 F_im H_mjlq F_kq,

and H by central differences over the six components of C, with the same integrator that gives S.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.reduced_texture import find_reduced, read_reduced
from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import Texture, random_texture
from micro.tensors import determinant, inverse, matmul

#: Step of the central differences in the components of C. Its error is of second order in the step over the strain within
#: which the flow changes (about 1e-3), that of the residual stress of the Newton iteration of first order in its inverse.
DIFFERENCE = 1e-6
#: Components of a symmetric tensor: 11, 22, 33, 12, 23, 13.
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))
#: Numbers that the law adds to the state of the polycrystal: S and the work.
EXTRA = 7


class PolycrystalLaw:
    """A Taylor polycrystal behind the interface of a law of finite strain.

    A point whose grains cannot be integrated over a step returns a stress of NaN, which makes a solver cut the step or stop
    at that point.

    Args:
        polycrystal: The polycrystal.
        name: Name of the law.

    Attributes:
        polycrystal: The polycrystal.
        density: kg/m^3. bulk_modulus, shear_modulus: Moduli of the virgin state, Pa.
        state_size: Numbers in the state of one point.
        observed: Names of the fields of `observe`: mean accumulated slip per family and twin fraction.
    """

    strain = "finite"
    dimension = 3

    def __init__(self, polycrystal: TaylorPolycrystal, name: str = "taylor-polycrystal") -> None:
        self.polycrystal, self.name = polycrystal, name
        parameters = polycrystal.parameters
        self.density = float(parameters.density)
        self.bulk_modulus, self.shear_modulus = 2.0 * float(parameters.lambda_e), float(parameters.G)
        self._inner = polycrystal.initial_state(1).shape[1]
        self.state_size = self._inner + EXTRA
        systems = polycrystal.systems
        self._families = tuple(dict.fromkeys(systems.families))
        member = [[float(family == name) for name in self._families] for family in systems.families]
        self._member = torch.tensor(member, dtype=torch.float64)  # (n_slip, families)
        twins = ("twin_fraction",) if systems.n_twin else ()
        self.observed = (*(f"slip_{family}" for family in self._families), *twins)

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state, (n, k)."""
        state = np.zeros((n, self.state_size))
        state[:, : self._inner] = self.polycrystal.initial_state(1).numpy()
        return state

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Advance the grains by one step.

        Args:
            F: Deformation gradients at the end of the step, (n, 3, 3).
            state: State at its start, (n, k); it is left as it is.
            dt: Size of the step, s.

        Returns:
            First Piola-Kirchhoff stress (n, 3, 3), Pa, NaN at points that failed, and the new state.

        Raises:
            ValueError: A shape does not fit, or dt is negative.
        """
        F, state = self._checked(F, state, dt)
        P, new = self._advance(F, state, dt)
        S = _components(np.linalg.solve(F, P)) if len(F) else np.zeros((0, 6))
        C, C_n = _right_cauchy_green(F), state[:, :6] * _unit(len(state))
        change = (C - C_n) * np.array([1.0, 1, 1, 2, 2, 2])
        work = state[:, -1] + 0.25 * ((S + state[:, self._inner : -1]) * change).sum(axis=1)
        new[:, self._inner : -1], new[:, -1] = S, work
        return P, new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and its derivative.

        Returns:
            P, the new state, and dP_dF (n, 3, 3, 3, 3), Pa, NaN at points that failed.

        Raises:
            ValueError: As `update`.
        """
        P, new = self.update(F, state, dt)
        F, state = self._checked(F, state, dt)
        S = np.linalg.solve(F, P)
        C = np.swapaxes(F, 1, 2) @ F
        H = np.empty((len(F), 3, 3, 3, 3))
        for i, j in PAIRS:
            direction = np.zeros((3, 3))
            direction[i, j] += 0.5
            direction[j, i] += 0.5
            sides = [self._second(C + sign * DIFFERENCE * direction, state, dt) for sign in (1.0, -1.0)]
            H[..., i, j] = H[..., j, i] = (sides[0] - sides[1]) / (2.0 * DIFFERENCE)
        dP_dF = 2.0 * np.einsum("nim,nmjlq,nkq->nijkl", F, H, F, optimize=True)
        dP_dF += np.einsum("ik,nlj->nijkl", np.eye(3), S)
        return P, new, dP_dF

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Mean accumulated slip of each family and mean twin fraction over the grains, (n, len(observed))."""
        weights = self.polycrystal.texture.weights
        _, e, lam = self.polycrystal.unpack(torch.from_numpy(self._grains(state)))
        fields = [torch.einsum("g,nga,af->nf", weights, e, self._member)]
        if "twin_fraction" in self.observed:
            fields.append(torch.einsum("g,ngb->n", weights, lam)[:, None])
        return torch.cat(fields, dim=1).numpy()

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Stored energy (n,), J/m^3: elastic energy and that of the hardening of slip and twins, eqs. (A.3) to (A.5)."""
        F_now, systems, p = torch.from_numpy(np.ascontiguousarray(F)), self.polycrystal.systems, self.polycrystal.parameters
        texture = self.polycrystal.texture
        F_in, e, lam = self.polycrystal.unpack(torch.from_numpy(self._grains(state)))
        A = matmul(matmul(F_now[:, None], texture.orientations), inverse(F_in))
        J = determinant(F_now)
        elastic = 0.5 * p.G * (J[:, None] ** (-2 / 3) * (A * A).sum((-1, -2)) - 3.0)
        energy = elastic + _slip_energy(systems, e)
        if systems.n_twin:
            total, square = lam.sum(-1), (lam * lam).sum(-1)
            energy = energy + systems.twin_k * (total * total - square) + 0.5 * systems.twin_h * square
        return (energy @ texture.weights + p.lambda_e * (J - 1.0) ** 2).numpy()

    def dissipation(self, state: np.ndarray) -> np.ndarray:
        """Energy dissipated so far (n,), J/m^3: the work of the steps less the stored energy."""
        C = (state[:, :6] * _unit(len(state)))[:, [0, 3, 5, 3, 1, 4, 5, 4, 2]].reshape(-1, 3, 3)
        return state[:, -1] - self.stored_energy(_root(C), state)

    def _checked(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        if F.ndim != 3 or F.shape[1:] != (3, 3):
            raise ValueError(f"F must have shape (n, 3, 3), got {F.shape}.")
        if state.shape != (len(F), self.state_size):
            raise ValueError(f"state must have shape ({len(F)}, {self.state_size}), got {state.shape}.")
        if not dt >= 0.0:
            raise ValueError(f"dt must not be negative, got {dt}.")
        return np.ascontiguousarray(F, dtype=np.float64), np.ascontiguousarray(state, dtype=np.float64)

    def _grains(self, state: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(state[:, : self._inner])

    def _advance(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """P and the new state, with the entries of S and work still to be filled."""
        inner = torch.from_numpy(self._grains(state))
        P, grains, ok = self.polycrystal.update(torch.from_numpy(F), inner, dt)
        new = np.empty_like(state)
        new[:, : self._inner] = grains.numpy()
        P = P.numpy()
        lost = ~ok.numpy()
        if lost.any():
            P[lost] = np.nan
        return P, new

    def _second(self, C: np.ndarray, state: np.ndarray, dt: float) -> np.ndarray:
        """S (n, 3, 3) at the right Cauchy-Green tensor C (n, 3, 3)."""
        U = _root(C)
        return np.linalg.solve(U, self._advance(U, state, dt)[0])


def _components(S: np.ndarray) -> np.ndarray:
    return S.reshape(-1, 9)[:, [0, 4, 8, 1, 5, 2]]


def _right_cauchy_green(F: np.ndarray) -> np.ndarray:
    return _components(np.swapaxes(F, 1, 2) @ F)


def _root(C: np.ndarray) -> np.ndarray:
    """A tensor F with F^T F = C and positive determinant: Cholesky's upper triangle."""
    return np.ascontiguousarray(np.swapaxes(np.linalg.cholesky(C), 1, 2))


def _slip_energy(systems: object, e: Tensor) -> Tensor:
    """Energy W_p of the hardening of slip (n, g), J/m^3, eq. (A.4)."""
    h, sigma_inf, v = systems.h, systems.sigma_inf, systems.v
    rate = torch.where(sigma_inf > 0, h / sigma_inf.clamp(min=1e-30), torch.zeros_like(h))
    saturating = torch.where(sigma_inf > 0, sigma_inf * (e + torch.expm1(-rate * e) / rate.clamp(min=1e-30)), 0.0)
    latent = 0.5 * ((e @ v) ** 2 - (e * e) @ (v * v))
    return saturating.sum(-1) + latent


def taylor_polycrystal(
    grains: int = 128,
    *,
    material: str | CrystalParameters = "magnesium",
    texture: Texture | str | Path | None = None,
    seed: int = 0,
    reduced: bool | str | Path | None = None,
    tolerance: float | None = None,
    slip: str = "domains",
    backend: str = "auto",
) -> PolycrystalLaw:
    """Make a Taylor polycrystal, full or reduced.

    Without a texture, 128 grains are those of the default texture, random orientations with equal weights, and another number
    is a reduced set of these: few grains with weights that respond like all 128 (`micro.crystal.reduced`). Reduced sets of
    magnesium are shipped; `python3 -m micro.reduce` makes others.

    Args:
        grains: Number of grains.
        material: Material, the name of a shipped one or the path of a file, or its parameters.
        texture: A texture, or a file of one; all of its grains are taken.
        seed: Seed of the random orientations.
        reduced: None as above; False for `grains` random orientations with equal weights; the path of a file that
            `python3 -m micro.reduce` has written for its grains and material.
        tolerance: Tolerance of the integration per grain; None is the default of `TaylorPolycrystal`.
        slip: Slip in twinned volume, "domains", "common" or "parent".
        backend: "auto", "compiled" or "torch".

    Returns:
        The law.

    Raises:
        ValueError: An option does not fit, or there is no reduced set of this number of grains.
    """
    if isinstance(grains, bool) or not isinstance(grains, int) or grains < 1:
        raise ValueError(f"grains must be a positive whole number, got {grains!r}.")
    if reduced is True:
        raise ValueError("reduced must be False or the path of a reduced set; without it the shipped sets are used.")
    options: dict[str, object] = {"slip": slip, "backend": backend}
    if tolerance is not None:
        options["tolerance"] = tolerance
    name = "taylor-polycrystal"
    if isinstance(reduced, str | Path):
        found = read_reduced(Path(reduced))
        chosen, parameters = found.texture, load_material(found.material)
        name = f"{name}-{len(chosen.weights)}-of-{found.of}"
    elif texture is not None:
        chosen = texture if isinstance(texture, Texture) else read_texture(texture)
        parameters = _material(material)
    elif reduced is False or grains == FULL:
        chosen, parameters = random_texture(grains, seed), _material(material)
    else:
        found = find_reduced(grains, material=material, seed=seed)
        chosen, parameters = found.texture, load_material(found.material)
        name = f"{name}-{grains}-of-{found.of}"
    return PolycrystalLaw(TaylorPolycrystal(chosen, parameters=parameters, **options), name)


def _material(material: str | CrystalParameters) -> CrystalParameters:
    return material if isinstance(material, CrystalParameters) else load_material(material)
