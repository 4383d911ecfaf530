"""The Taylor polycrystal as a material law: grains at every point of a structure, the concurrent multiscale method.

`taylor_polycrystal` makes it; solvers of `fem` load it by the name "taylor-polycrystal". Arrays are NumPy's, float64,
points first; nothing is kept between calls. All points have the same orientations, and each the state of its own
grains.

State of a point: that of the grains (`micro.crystal.compiled`), then the second Piola-Kirchhoff stress S at the end of
the last step, Pa (6), and the work done since the start, J/m^3 (1), which the trapezoidal rule accumulates:

    work_{n+1} = work_n + (S_n + S_{n+1}) : (C_{n+1} - C_n) / 4.

The dissipation is this work less the stored energy, and has the error of that rule, of second order in the step.

Tangent: P = F S(C), so that, with H = dS/dC,

    dP_ij/dF_kl = delta_ik S_lj + 2 F_im H_mjlq F_kq,

and H by central differences over the six components of C, with the same integrator that gives S. The integrator
chooses its time steps by their error, so S(C) is smooth but for jumps of some 1e-6 to 1e-5 of its size, where it takes
another number of them. An explicit solver does not see these; Newton's method converges quadratically down to them,
so an implicit solver should ask for no more, `rtol=1e-4`.
"""

from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from micro.crystal import compiled, constants
from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.reduced_texture import find_reduced, read_reduced
from micro.crystal.systems import CrystalSystems, crystal_systems
from micro.crystal.texture import Texture, random_texture, read_texture

#: Step of the central differences in the components of C. Larger ones meet the places where the integrator chooses
#: another number of steps, smaller ones lose digits: 3e-8 leaves a relative error below 1e-4 (tests measure it).
DIFFERENCE = 3e-8
#: Components of a symmetric tensor in the rows of C and S, and where each entry of a matrix stands in such a row.
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))
PLACE = np.array([[0, 3, 5], [3, 1, 4], [5, 4, 2]])
#: How often each component stands in a matrix.
TWICE = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
#: Numbers that the law adds to the state of the grains: S and the work.
EXTRA = 7
#: Grains of the default texture.
FULL = 128


class Grains(Protocol):
    """What the law needs of grains that share a deformation; `micro.crystal.compiled` says what the members mean."""

    @property
    def systems(self) -> CrystalSystems:
        """Constants of the crystal."""

    @property
    def orientations(self) -> np.ndarray:
        """Rotations (g, 3, 3) from the crystals to the sample."""

    @property
    def weights(self) -> np.ndarray:
        """Weights (g,)."""

    @property
    def state_size(self) -> int:
        """Numbers in the state of one point."""

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state (n, k)."""

    def advance(
        self, C: np.ndarray, rows: np.ndarray, dt: float, new: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Advance in place; S (n, 6) and status (n,)."""

    def unpack(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """B, e, lam of the grains."""


class PolycrystalLaw:
    """A Taylor polycrystal behind the interface of a law of finite strain.

    A point whose grains cannot be integrated over a step returns a stress of NaN, which makes a solver cut the step, or
    stop and name the point.

    Args:
        grains: The grains.
        name: Name of the law.

    Attributes:
        grains: The grains.
        density: kg/m^3. bulk_modulus, shear_modulus: Moduli of the virgin state, Pa.
        state_size: Numbers in the state of one point.
        observed: Names of the fields of `observe`: mean accumulated slip of each family, mean twin fraction.
    """

    strain = "finite"
    dimension = 3

    def __init__(self, grains: Grains, name: str = "taylor-polycrystal") -> None:
        self.grains, self.name = grains, name
        systems = grains.systems
        self.density = float(systems.parameters.density)
        self.bulk_modulus, self.shear_modulus = 2.0 * float(systems.parameters.lambda_e), float(systems.parameters.G)
        self._inner = grains.state_size
        self.state_size = self._inner + EXTRA
        families = tuple(dict.fromkeys(systems.families))
        self._member = np.array([[float(of == family) for family in families] for of in systems.families])
        self.observed = (*(f"slip_{family}" for family in families), *(("twin_fraction",) if systems.n_twin else ()))

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state, (n, k)."""
        state = np.zeros((n, self.state_size))
        state[:, : self._inner] = self.grains.initial_state(1)
        return state

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Advance the grains by one step.

        Args:
            F: Deformation gradients at the end of the step, (n, 3, 3).
            state: State at its start, (n, k); it is left as it is.
            dt: Duration of the step, s; zero gives the elastic answer.

        Returns:
            First Piola-Kirchhoff stress (n, 3, 3), Pa, NaN at points that failed, and the new state.

        Raises:
            ValueError: A shape does not fit, or dt is negative.
        """
        F, state = self._checked(F, state)
        C = right_cauchy_green(F)
        S, new = self._advance(C, state, dt)
        stress = slice(self._inner, self._inner + 6)
        new[:, -1] += 0.25 * ((S + state[:, stress]) * (C - state[:, :6])) @ TWICE
        new[:, stress] = S
        return F @ S[:, PLACE], new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and its derivative.

        Returns:
            P, the new state, and dP_dF (n, 3, 3, 3, 3), Pa, NaN at points that failed.

        Raises:
            ValueError: As `update`.
        """
        F, state = self._checked(F, state)
        P, new = self.update(F, state, dt)
        S = new[:, self._inner : self._inner + 6][:, PLACE]
        H = self.stiffness(right_cauchy_green(F), state, dt)
        dP_dF = 2.0 * np.einsum("nim,nmjlq,nkq->nijkl", F, H, F, optimize=True)
        return P, new, dP_dF + np.einsum("ik,nlj->nijkl", np.eye(3), S)

    def stiffness(self, C: np.ndarray, state: np.ndarray, dt: float, step: float = DIFFERENCE) -> np.ndarray:
        """Derivative dS/dC at the end of a step, by central differences.

        Args:
            C: Right Cauchy-Green tensors (n, 6) at the end of the step.
            state: State at its start, (n, k).
            dt: Duration of the step, s.
            step: Step of the differences.

        Returns:
            H (n, 3, 3, 3, 3), Pa, symmetric in the first and in the last pair of indices.
        """
        H = np.empty((len(C), 3, 3, 3, 3))
        for component, (i, j) in enumerate(PAIRS):
            # Off the diagonal half of the step goes to each of C_ij and C_ji, which one number stands for.
            change = np.zeros(6)
            change[component] = step / TWICE[component]
            difference = self._advance(C + change, state, dt)[0] - self._advance(C - change, state, dt)[0]
            H[..., i, j] = H[..., j, i] = difference[:, PLACE] / (2.0 * step)
        return H

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Mean accumulated slip of each family and mean twin fraction over the grains, (n, len(observed))."""
        parts, weights = self._unpack(state), self.grains.weights
        fields = np.einsum("g,nga->na", weights, parts["e"]) @ self._member
        if self.grains.systems.n_twin:
            fields = np.column_stack([fields, np.einsum("g,ngb->n", weights, parts["lam"])])
        return fields

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Stored energy (n,), J/m^3: elastic, and of the hardening of slip and twins, eqs. (A.3) to (A.5)."""
        return self._stored(right_cauchy_green(F), state)

    def dissipation(self, state: np.ndarray) -> np.ndarray:
        """Energy dissipated so far (n,), J/m^3: the work of the steps less the stored energy."""
        return state[:, -1] - self._stored(state[:, :6], state)

    def _stored(self, C: np.ndarray, state: np.ndarray) -> np.ndarray:
        systems, parts = self.grains.systems, self._unpack(state)
        p = systems.parameters
        J = np.sqrt(np.linalg.det(C[:, PLACE])) if len(C) else np.zeros(0)
        B = self.grains.orientations @ parts["B"]
        trace = np.einsum("ngik,nij,ngjk->ng", B, C[:, PLACE], B, optimize=True)
        energy = 0.5 * p.G * (J[:, None] ** (-2 / 3) * trace - 3.0) + _slip_energy(systems, parts["e"])
        if systems.n_twin:
            total, square = parts["lam"].sum(-1), (parts["lam"] ** 2).sum(-1)
            energy += systems.twin_k * (total**2 - square) + 0.5 * systems.twin_h * square
        result: np.ndarray = energy @ self.grains.weights + p.lambda_e * (J - 1.0) ** 2
        return result

    def _checked(self, F: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if F.ndim != 3 or F.shape[1:] != (3, 3):
            raise ValueError(f"F must have shape (n, 3, 3), got {F.shape}.")
        if state.shape != (len(F), self.state_size):
            raise ValueError(f"state must have shape ({len(F)}, {self.state_size}), got {state.shape}.")
        return np.ascontiguousarray(F, dtype=np.float64), np.ascontiguousarray(state, dtype=np.float64)

    def _unpack(self, state: np.ndarray) -> dict[str, np.ndarray]:
        return self.grains.unpack(np.ascontiguousarray(state[:, : self._inner]))

    def _advance(self, C: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """S (n, 6) and the new state, with S and work still those of the start."""
        new = np.empty_like(state)
        S, status = self.grains.advance(np.ascontiguousarray(C), state, dt, new)
        new[:, self._inner :] = state[:, self._inner :]
        if status.any():
            new[status != 0] = state[status != 0]
        return S, new


def right_cauchy_green(F: np.ndarray) -> np.ndarray:
    """Components 11, 22, 33, 12, 23, 13 of F^T F, (n, 6), of F (n, 3, 3)."""
    return np.stack([(F[:, :, i] * F[:, :, j]).sum(axis=1) for i, j in PAIRS], axis=1)


def _slip_energy(systems: CrystalSystems, e: np.ndarray) -> np.ndarray:
    """Energy W_p of the hardening of slip (n, g), J/m^3, eq. (A.4), whose derivative is the resistance less r_0."""
    h, sigma_inf, v = systems.h.numpy(), systems.sigma_inf.numpy(), systems.v.numpy()
    rate = np.where(h > 0, h / sigma_inf, 1.0)
    saturating = np.where(h > 0, sigma_inf * (e + np.expm1(-rate * e) / rate), 0.0).sum(-1)
    latent: np.ndarray = 0.5 * ((e @ v) ** 2 - (e**2) @ v**2)
    return saturating + latent


def make_grains(
    texture: Texture, parameters: CrystalParameters, *, tolerance: float | None = None, slip: str = "domains"
) -> compiled.CompiledPolycrystal:
    """Make the grains of a texture, advanced by the compiled law.

    Args:
        texture: Orientations and weights.
        parameters: Material.
        tolerance: Bound on the error of a time step of a grain; None is the default.
        slip: Slip in twinned volume, "domains" or "parent".

    Raises:
        ValueError: An argument is out of its range, or there is no C compiler here.
    """
    if not compiled.available():
        raise ValueError("The law of a polycrystal needs a C compiler, and none that works was found.")
    return compiled.CompiledPolycrystal(
        crystal_systems(parameters),
        texture.orientations.to(torch.float64).numpy(),
        texture.weights.to(torch.float64).numpy(),
        tolerance=constants.TOLERANCE if tolerance is None else tolerance,
        slip=slip,
    )


def taylor_polycrystal(
    grains: int = FULL,
    *,
    material: str | CrystalParameters = "magnesium",
    texture: Texture | str | PathLike[str] | None = None,
    seed: int = 0,
    reduced: bool | str | PathLike[str] | None = None,
    tolerance: float | None = None,
    slip: str = "domains",
) -> PolycrystalLaw:
    """Make the law of a Taylor polycrystal, full or reduced.

    Without a texture, 128 grains are those of the default texture, random orientations with equal weights, and another
    number is a reduced set of these: a few grains with weights that respond like all 128 (`micro.crystal.reduced`).
    Reduced sets of magnesium are shipped; `python3 -m micro.reduce` makes others.

    Args:
        grains: Number of grains.
        material: Name of a shipped material, the path of a file, or parameters.
        texture: A texture, or a file of one (`micro.crystal.texture.read_texture`); all of its grains are taken.
        seed: Seed of the random orientations.
        reduced: None as above; False for `grains` random orientations with equal weights; or a file that
            `python3 -m micro.reduce` has written, for its grains and material.
        tolerance: Bound on the error of a time step of a grain; None is the default.
        slip: Slip in twinned volume, "domains" or "parent".

    Raises:
        ValueError: An option does not fit, or there is no reduced set of this number of grains.
    """
    if isinstance(grains, bool) or not isinstance(grains, int) or grains < 1:
        raise ValueError(f"grains must be a positive whole number, got {grains!r}.")
    options: dict[str, Any] = {"tolerance": tolerance, "slip": slip}
    if isinstance(reduced, str | PathLike) or (reduced is None and texture is None and grains != FULL):
        name = material.name if isinstance(material, CrystalParameters) else material
        given = isinstance(reduced, str | PathLike)
        found = read_reduced(Path(reduced)) if given else find_reduced(grains, name, seed)  # type: ignore[arg-type]
        law = PolycrystalLaw(make_grains(found.texture, load_material(found.material), **options))
        law.name = f"taylor-polycrystal ({found.describe()})"
        return law
    if reduced is True:
        raise ValueError("reduced must be False or the file of a reduced set; left out, the shipped sets are used.")
    parameters = material if isinstance(material, CrystalParameters) else load_material(material)
    if texture is None:
        texture = random_texture(grains, seed)
    elif not isinstance(texture, Texture):
        texture = read_texture(Path(texture))
    count = len(texture.weights)
    return PolycrystalLaw(make_grains(texture, parameters, **options), f"taylor-polycrystal ({count} grains)")
