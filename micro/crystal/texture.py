"""Textures: orientations of grains with weights, their files, and the orientations after a deformation.

An orientation is the rotation Q (3, 3) that takes components in the frame of the crystal to those in the frame of the
sample: v_sample = Q v_crystal. Euler angles are Bunge's (phi_1, Phi, phi_2): the sample frame is turned by phi_1 about
its z axis, by Phi about the new x axis and by phi_2 about the new z axis, and is then the frame of the crystal, so

    Q = R_z(phi_1) R_x(Phi) R_z(phi_2).

References:
    H.-J. Bunge, Texture Analysis in Materials Science (1982), doi:10.1016/C2013-0-11769-2.
    M. Alexa, Super-Fibonacci spirals (2022), doi:10.1109/CVPR52688.2022.00811.
"""

from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from micro.crystal.materials import CrystalParameters
from micro.crystal.systems import twin_systems
from micro.tensors import (
    determinant,
    inverse,
    isochoric,
    matmul,
    polar_rotation,
    quaternion_rotations,
    random_rotations,
    rotation_about,
)

#: Turns of the two spirals of `even_texture`: the square root of 2, and the positive root of psi^4 = psi + 4.
SPIRALS = (2**0.5, 1.533751168755204288118041)


@dataclass(frozen=True)
class Texture:
    """Orientations and weights of grains.

    Attributes:
        orientations: Rotations (g, 3, 3) from the frame of the crystal to that of the sample.
        weights: Volume fractions (g,), positive or zero, their sum one.

    Raises:
        ValueError: An orientation is not a rotation, or the weights are not volume fractions.
    """

    orientations: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        q, w = self.orientations, self.weights
        if q.dim() != 3 or q.shape[1:] != (3, 3) or len(q) == 0:
            raise ValueError(f"orientations must have shape (g, 3, 3), got {tuple(q.shape)}.")
        if w.shape != q.shape[:1]:
            raise ValueError(f"weights must have shape ({len(q)},), got {tuple(w.shape)}.")
        one = torch.eye(3, dtype=q.dtype, device=q.device)
        off = float((matmul(q, q.mT) - one).abs().max())
        if not off < 1e-6 or bool((determinant(q) < 0).any()):
            raise ValueError(f"orientations must be rotations, got matrices that are off by {off:.1e}, or reflections.")
        if not bool((w >= 0).all()) or not abs(float(w.sum()) - 1) < 1e-9:
            raise ValueError(f"weights must not be negative and must sum to one, got the sum {float(w.sum())}.")

    def symmetrised(self, group: str) -> "Texture":
        """Return the texture with all its images under a group of rotations of the sample, with equal shares.

        Args:
            group: "orthorhombic" (4 rotations, as of a rolled sheet) or "cubic" (the 24 rotations of the cube, so that
                fewer grains come near the isotropic limit).

        Raises:
            ValueError: `group` is not one of these.
        """
        turns = sample_rotations(group).to(self.orientations)
        q = matmul(turns[:, None], self.orientations[None]).reshape(-1, 3, 3)
        return Texture(q, self.weights.repeat(len(turns)) / len(turns))


def sample_rotations(group: str) -> Tensor:
    """Return the rotations (k, 3, 3) of the group "orthorhombic" (4) or "cubic" (24).

    Raises:
        ValueError: `group` is not one of these.
    """
    if group not in ("orthorhombic", "cubic"):
        raise ValueError(f"group must be 'orthorhombic' or 'cubic', got '{group}'.")
    found = []
    for order in permutations(range(3)) if group == "cubic" else [(0, 1, 2)]:
        for sign in product((1.0, -1.0), repeat=3):
            turn = np.diag(sign)[:, list(order)]
            if np.linalg.det(turn) > 0:
                found.append(turn)
    return torch.from_numpy(np.array(found))


def uniform_weights(orientations: Tensor) -> Texture:
    """Return the texture of `orientations` (g, 3, 3) with equal weights."""
    g = len(orientations)
    return Texture(orientations, torch.full((g,), 1 / max(g, 1), dtype=orientations.dtype, device=orientations.device))


def random_texture(grains: int, seed: int = 0) -> Texture:
    """Return `grains` uniformly random orientations with equal weights.

    Raises:
        ValueError: `grains` is not positive.
    """
    _check_grains(grains)
    return uniform_weights(random_rotations(grains, seed))


def even_texture(grains: int) -> Texture:
    """Return `grains` orientations that are spread evenly over all rotations, with equal weights.

    They lie on two coupled spirals. The mean of a smooth function of the orientation converges nearly with the number
    of grains, where that of random orientations converges with its root: the texture comes near the isotropic limit
    with few grains.

    Raises:
        ValueError: `grains` is not positive.

    References:
        Alexa (2022), doi:10.1109/CVPR52688.2022.00811.
    """
    _check_grains(grains)
    s = torch.arange(grains, dtype=torch.float64) + 0.5
    inner, outer = (s / grains).sqrt(), (1 - s / grains).sqrt()
    alpha, beta = 2 * torch.pi * s / SPIRALS[0], 2 * torch.pi * s / SPIRALS[1]
    q = torch.stack([outer * beta.cos(), inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin()], dim=1)
    return uniform_weights(quaternion_rotations(q))


def fibre_texture(
    grains: int,
    seed: int = 0,
    *,
    crystal: tuple[float, float, float] = (0.0, 0.0, 1.0),
    sample: tuple[float, float, float] = (0.0, 0.0, 1.0),
    spread: float = 0.0,
) -> Texture:
    """Return grains whose `crystal` direction lies near the `sample` direction, random about it, equal weights.

    Args:
        grains: Number of grains.
        seed: Seed of the orientations.
        crystal: Direction in the frame of the crystal; the default is the c axis of an hcp crystal.
        sample: Direction in the frame of the sample.
        spread: Standard deviation, degrees, of each of the two tilts of the crystal direction away from the sample
            direction (a normal distribution in the tangent plane, so the mean angle is 1.25 spreads).

    Raises:
        ValueError: `grains` is not positive, a direction is zero, or the spread is negative.
    """
    _check_grains(grains)
    if not 0 <= spread <= 90:
        raise ValueError(f"spread must lie between 0 and 90 degrees, got {spread}.")
    rng = np.random.Generator(np.random.Philox(key=seed))
    onto_z, from_z = _to_z(crystal, "crystal"), _to_z(sample, "sample").mT
    found = []
    for spin, x, y in zip(rng.uniform(0, 2 * np.pi, grains), *(np.radians(spread) * rng.standard_normal((2, grains)))):
        z, tilt = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), float(np.hypot(x, y))
        turn = rotation_about(z, float(spin))
        if tilt > 0:
            turn = rotation_about(torch.tensor([x, y, 0.0], dtype=torch.float64), tilt) @ turn
        found.append(from_z @ turn @ onto_z)
    return uniform_weights(torch.stack(found))


def _check_grains(grains: int) -> None:
    if grains < 1:
        raise ValueError(f"grains must be at least 1, got {grains}.")


def _to_z(direction: tuple[float, float, float], name: str) -> Tensor:
    """Return a rotation (3, 3) that turns the direction to the z axis."""
    v = torch.tensor(direction, dtype=torch.float64)
    if v.shape != (3,) or not 0 < float(v.norm()) < float("inf"):
        raise ValueError(f"{name} must be three numbers that are not all zero, got {direction}.")
    v = v / v.norm()
    across = torch.tensor([v[1], -v[0], 0.0], dtype=torch.float64)  # v x z
    if float(across.norm()) == 0.0:
        return torch.eye(3, dtype=torch.float64) if v[2] > 0 else torch.diag(torch.tensor([1.0, -1, -1]).double())
    return rotation_about(across, float(torch.atan2(across.norm(), v[2])))


def from_euler(angles: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) of Bunge's Euler angles (..., 3) in degrees."""
    c, s = torch.deg2rad(angles).cos().unbind(-1), torch.deg2rad(angles).sin().unbind(-1)
    (c1, c0, c2), (s1, s0, s2) = c, s
    rows = [
        c1 * c2 - s1 * s2 * c0, -c1 * s2 - s1 * c2 * c0, s1 * s0,
        s1 * c2 + c1 * s2 * c0, -s1 * s2 + c1 * c2 * c0, -c1 * s0,
        s2 * s0, c2 * s0, c0,
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*angles.shape[:-1], 3, 3)


def to_euler(q: Tensor) -> Tensor:
    """Return Bunge's Euler angles (..., 3) in degrees of rotations (..., 3, 3): [0, 360), [0, 180], [0, 360).

    Where Phi is 0 or 180 degrees only a sum or difference of the others is determined; phi_2 is then 0.
    """
    s = torch.hypot(q[..., 2, 0], q[..., 2, 1])
    flat = s < 1e-9
    phi_1 = torch.where(flat, torch.atan2(q[..., 1, 0], q[..., 0, 0]), torch.atan2(q[..., 0, 2], -q[..., 1, 2]))
    phi_2 = torch.where(flat, 0.0, torch.atan2(q[..., 2, 0], q[..., 2, 1]))
    angles = torch.rad2deg(torch.stack([phi_1, torch.atan2(s, q[..., 2, 2]), phi_2], dim=-1))
    angles = torch.stack([angles[..., 0] % 360, angles[..., 1], angles[..., 2] % 360], dim=-1)
    return torch.where(angles == 360, 0.0, angles)


def read_texture(path: str | Path) -> Texture:
    """Return the texture in a text file of Euler angles.

    Every line has Bunge's three angles in degrees and, if wanted, a weight; all lines or none have one. Text after
    "#" is left out. The weights are scaled to the sum one. They may be volumes of measured grains, or the intensities
    of an ODF at its sampling points: an ODF on a regular grid of Euler angles must be multiplied by sin(Phi) first
    (see `odf_texture`).

    Raises:
        ValueError: The file is missing, or a line is not one of a texture; the sentence names it.
    """
    rows: list[list[float]] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The texture file '{path}' cannot be read: {error}.") from None
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) not in (3, 4) or len(row) != len(rows[0] if rows else row) or not np.isfinite(row).all():
            raise ValueError(
                f"Line {number} of {path} must have three angles in degrees, or in all lines a weight as well, "
                f"got '{line.strip()}'."
            )
        if len(row) == 4 and row[3] < 0:
            raise ValueError(f"The weight in line {number} of {path} must not be negative, got {row[3]}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"The texture file '{path}' has no line of Euler angles.")
    table = torch.tensor(rows, dtype=torch.float64)
    return _weighted(from_euler(table[:, :3]), table[:, 3] if table.shape[1] == 4 else torch.ones(len(table)).double())


def write_texture(path: str | Path, texture: Texture) -> None:
    """Write Bunge's Euler angles in degrees and the weights of a texture to a text file."""
    table = torch.cat([to_euler(texture.orientations), texture.weights[:, None]], dim=1).cpu().numpy()
    header = "Bunge Euler angles phi_1, Phi, phi_2 in degrees, crystal to sample; weight"
    np.savetxt(path, table, fmt="%.17g", header=header)


def odf_texture(path: str | Path, grains: int | None = None, seed: int = 0) -> Texture:
    """Return the texture of an ODF that is given on a regular grid of Euler angles, in a file as of `read_texture`.

    The weight of a point is its intensity times sin(Phi), the volume of its cell of the grid.

    Args:
        path: Text file: phi_1, Phi, phi_2 in degrees and the intensity in every line.
        grains: Number of orientations drawn from the points with replacement, equal weights; by default all points
            with positive weight stay, with their weights.
        seed: Seed of the draw.

    Raises:
        ValueError: The file is not one of a texture, or no point has a positive weight.
    """
    points = read_texture(path)
    sine = torch.hypot(points.orientations[:, 2, 0], points.orientations[:, 2, 1])
    points = _weighted(points.orientations, points.weights * torch.where(sine < 1e-9, 0.0, sine))
    if grains is None:
        kept = points.weights > 0
        return Texture(points.orientations[kept], points.weights[kept])
    _check_grains(grains)
    rng = np.random.Generator(np.random.Philox(key=seed))
    drawn = rng.choice(len(points.weights), size=grains, p=points.weights.numpy())
    return uniform_weights(points.orientations[torch.from_numpy(drawn)])


def _weighted(orientations: Tensor, weights: Tensor) -> Texture:
    total = float(weights.sum())
    if not 0 < total < float("inf"):
        raise ValueError(f"The weights of a texture must have a positive sum, got {total}.")
    return Texture(orientations, weights / total)


def deformed_orientations(orientations: Tensor, F: Tensor, F_in: Tensor) -> Tensor:
    """Return the orientations (..., g, 3, 3) of the grains' lattices after a deformation.

    The lattice deforms by A = F F_in^-1 and is turned by the rotation of A = R U.

    Args:
        orientations: Orientations (g, 3, 3) before the deformation.
        F: Common deformation gradient (..., 3, 3), in the frame of the sample.
        F_in: Inelastic deformation gradients (..., g, 3, 3) of the grains, each in the frame of its crystal.
    """
    q = orientations
    A = matmul(matmul(matmul(q.mT, F[..., None, :, :]), q), inverse(F_in))
    return matmul(q, polar_rotation(isochoric(A, determinant(A))))


def deformed_texture(
    texture: Texture, F: Tensor, F_in: Tensor, lam: Tensor, parameters: CrystalParameters | None = None
) -> Texture:
    """Return the texture of one polycrystal after a deformation: parents and twins, each with its volume fraction.

    A twin's lattice is that of its parent turned by 180 degrees about the normal of the twin plane.

    Args:
        texture: Texture before the deformation, g grains.
        F: Deformation gradient (3, 3), in the frame of the sample.
        F_in: Inelastic deformation gradients (g, 3, 3), each in the frame of its crystal.
        lam: Twin volume fractions (g, T).
        parameters: Material, magnesium by default.

    Raises:
        ValueError: The number of twins is not that of the material.
    """
    twins = twin_systems(parameters)
    if lam.shape != (len(texture.weights), len(twins.m)):
        raise ValueError(f"lam must have shape {(len(texture.weights), len(twins.m))}, got {tuple(lam.shape)}.")
    parent = deformed_orientations(texture.orientations, F, F_in)
    n = twins.m.to(parent)
    turn = 2 * n[:, :, None] * n[:, None, :] - torch.eye(3, dtype=n.dtype, device=n.device)
    q = torch.cat([parent[:, None], matmul(parent[:, None], turn[None])], dim=1)
    share = torch.cat([1 - lam.sum(-1, keepdim=True), lam], dim=1).clamp(min=0.0) * texture.weights[:, None]
    kept = share > 0
    return _weighted(q[kept], share[kept])
