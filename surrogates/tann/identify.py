"""Identification: first numbers of a TANN from walks, by linear algebra; training goes on from them.

What a step changes without dissipation is elastic and gives decode_E. What is left of the internal coordinates spans
the space of the internal variables; its axes are the directions of single variables (`surrogates.tann.directions`). Stress
gives C and G, dissipation the thresholds, and the yield condition -(G.E + K Z)_i = (k_i + h_i p_i) sign(dZ_i) of
the variables that move gives K and h. Variables are scaled so that K_ii + h_i = k_i: 1 is the change that takes a force
of the size of the threshold away.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from micro.threads import small_batches
from surrogates.tann.directions import REPEATED, single_directions

QUIET = 1e-10  # part of the largest dissipation under which a step counts as elastic


@dataclass(frozen=True)
class Numbers:
    """The numbers of a `surrogates.tann.law.TannLaw`; see there for shapes."""

    C: Tensor
    G: Tensor
    K: Tensor
    k: Tensor
    h: Tensor
    decode_E: Tensor
    decode_Z: Tensor

    def scaled(self, size: Tensor) -> "Numbers":
        """The same law in the variables Z / size."""
        return Numbers(
            self.C, self.G * size, self.K * size[:, None] * size, self.k * size, self.h * size**2, self.decode_E,
            self.decode_Z * size,
        )  # fmt: skip


def elastic_decoder(strain: Tensor, xi: Tensor, dissipation: Tensor) -> Tensor:
    """decode_E (x, c) from the steps that dissipate nothing.

    Args:
        strain: (s, T, c).
        xi: internal coordinates (s, T, x).
        dissipation: of each step (s, T).

    Raises:
        ValueError: the elastic steps do not cover all directions of strain.
    """
    quiet = dissipation[:, 1:] <= QUIET * dissipation.max()
    dE, dxi = strain.diff(dim=1)[quiet], xi.diff(dim=1)[quiet]
    if len(dE) == 0 or int(torch.linalg.matrix_rank(dE)) < strain.shape[-1]:
        raise ValueError("The walks must hold elastic steps in every direction of strain to tell the elastic response.")
    return torch.linalg.lstsq(dE, dxi).solution.T.contiguous()


def spectrum(left: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values (x,) relative to the largest, and axes (x, x), of what strain leaves of xi (S, x)."""
    values, axes = torch.linalg.eigh(left.T @ left)
    values = torch.sqrt(values.flip(0).clamp(min=0.0))
    return values / values[0], axes.flip(1)


def rank(values: Tensor, tolerance: float = 1e-6) -> int:
    """Number of relative singular values above a tolerance."""
    return int((values > tolerance).sum())


@small_batches()
def discover(strain: Tensor, xi: Tensor, dissipation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Internal variables that the internal coordinates show, one for every direction in which they move alone.

    Args:
        strain: Mandel vectors (s, T, c), virgin at first.
        xi: internal coordinates (s, T, x), sizes of about one.
        dissipation: of each step (s, T).

    Returns:
        Z (s, T, N), decode_E (x, c) and decode_Z (x, N), with xi = decode_E E + decode_Z Z.

    Raises:
        ValueError: the walks do not tell all of them; one sentence says what is missing.
    """
    decode_E = elastic_decoder(strain, xi, dissipation)
    left = xi - strain @ decode_E.T
    values, axes = spectrum(left.flatten(0, 1))
    N = rank(values)
    values, axes = values[:N], axes[:, :N]
    white = left @ (axes / values)
    change, lost = white.diff(dim=1).flatten(0, 1), dissipation[:, 1:].flatten()
    moves = lost > QUIET * lost.max()
    directions = single_directions(change[moves], lost[moves], N)
    if len(directions) < N:
        raise ValueError(
            f"The walks must show each of the {N} internal variables move by itself in some steps, "
            f"they do so for {len(directions)}: make more walks or smaller increments."
        )
    Z = torch.linalg.solve(directions.T, white.flatten(0, 1).T).T.reshape(white.shape)
    return Z, decode_E, (axes * values) @ directions.T


def given(strain: Tensor, xi: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Internal variables named beforehand, those that move alike taken once; returns as `discover`.

    Args:
        strain: Mandel vectors (s, T, c).
        xi: internal coordinates (s, T, x).
        alpha: the variables (s, T, b).
    """
    flat = alpha.flatten(0, 1)
    size = flat.norm(dim=0).clamp(min=1e-300)
    cosine = (flat / size).T @ (flat / size)
    first = [i for i in range(len(size)) if not bool((cosine[i, :i].abs() > 1.0 - 1e-9).any()) and size[i] > 1e-12]
    Z = alpha[..., first]
    both = torch.cat([strain, Z], dim=-1).flatten(0, 1)
    decode = torch.linalg.lstsq(both, xi.flatten(0, 1)).solution.T
    return Z, decode[:, : strain.shape[-1]].contiguous(), decode[:, strain.shape[-1] :].contiguous()


@small_batches()
def identify(
    strain: Tensor, stress: Tensor, dissipation: Tensor, variables: tuple[Tensor, Tensor, Tensor], *, hardens: bool
) -> Numbers:
    """The numbers of a law whose internal variables along the walks are known.

    Args:
        strain: Mandel vectors (s, T, c), virgin at first.
        stress: Mandel vectors (s, T, c), Pa.
        dissipation: of each step (s, T), J/m^3.
        variables: Z (s, T, N), decode_E (x, c), decode_Z (x, N).
        hardens: look for isotropic hardening, too.

    Raises:
        ValueError: a variable moves in too few steps.
    """
    Z, decode_E, decode_Z = variables
    c = strain.shape[-1]
    size = Z.flatten(0, 1).std(dim=0)
    Z = Z / size
    dZ = Z.diff(dim=1)
    dZ = torch.where(dZ.abs() < REPEATED, torch.zeros_like(dZ), dZ)
    k = torch.linalg.lstsq(dZ.flatten(0, 1).abs(), dissipation[:, 1:].reshape(-1, 1)).solution[:, 0]
    linear = torch.linalg.lstsq(torch.cat([strain, Z], dim=-1).flatten(0, 1), stress.flatten(0, 1)).solution
    C, G = 0.5 * (linear[:c] + linear[:c].T), linear[c:].T.contiguous()
    K, h = yield_stiffness(strain, Z, dZ, G, k, hardens)
    numbers = Numbers(C, G, K, k, h, decode_E, decode_Z * size)
    return numbers.scaled(k / (torch.diagonal(K) + h))


def yield_stiffness(
    strain: Tensor, Z: Tensor, dZ: Tensor, G: Tensor, k: Tensor, hardens: bool
) -> tuple[Tensor, Tensor]:
    """K (N, N) and h (N,) from the yield condition at the end of the steps in which a variable moves.

    Raises:
        ValueError: a variable moves in too few steps.
    """
    N = Z.shape[-1]
    p = dZ.abs().cumsum(dim=1).flatten(0, 1)
    E, Z, dZ = strain[:, 1:].flatten(0, 1), Z[:, 1:].flatten(0, 1), dZ.flatten(0, 1)
    K, h = torch.zeros(N, N, dtype=Z.dtype), torch.zeros(N, dtype=Z.dtype)
    for i in range(N):
        rows = torch.nonzero(dZ[:, i]).flatten()
        if len(rows) < 2 * N + 2:
            raise ValueError(f"Internal variable {i + 1} moves in {len(rows)} steps, {2 * N + 2} are needed: walk on.")
        sign = torch.sign(dZ[rows, i])
        known = Z[rows]
        if hardens:
            known = torch.cat([known, (sign * p[rows, i])[:, None]], dim=1)
        found = torch.linalg.lstsq(known, (-(E[rows] @ G[:, i]) - k[i] * sign)[:, None]).solution[:, 0]
        K[i] = found[:N]
        if hardens:
            h[i] = found[N].clamp(min=0.0)
    return 0.5 * (K + K.T), h
