"""Internal variables of a lattice cell, found in its strain paths by linear algebra; training starts from them.

Identification takes three steps:

1. The elastic response. The steps without dissipation give `decode_E`, by which strain explains the internal
   coordinates elastically. What is left of the internal coordinates spans the space of the internal variables.
2. The directions. The axes of this space are arbitrary at first. The dissipation is a sum over single mechanisms, and
   in the axes of the mechanisms most of them do not change in most steps; this distinguishes these axes from others.
3. The coefficients. Stress gives C and G, dissipation gives the thresholds, and the yield condition
   -(G.E + K Z)_i = (k_i + h_i p_i) sign(dZ_i) of the variables that move gives K and h. The variables are scaled so
   that K_ii + h_i = k_i: a change by 1 removes a force of the size of the threshold.

`merge` reduces the number of variables by letting those that are most similar change as one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from micro.threads import small_batches

REPEATED = 1e-6  # angle under which two directions are the same
QUIET = 1e-10  # fraction of the largest dissipation under which a step counts as elastic


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of a `surrogates.tann.law.TannLaw`; see there for shapes."""

    C: Tensor
    G: Tensor
    K: Tensor
    k: Tensor
    h: Tensor
    decode_E: Tensor
    decode_Z: Tensor

    def scaled(self, size: Tensor) -> "Coefficients":
        """The same law in the variables Z / size."""
        return Coefficients(
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
        raise ValueError("The paths must contain elastic steps in every direction of strain for the elastic response.")
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
    """Internal variables that appear in the internal coordinates, one for every direction in which they change alone.

    Args:
        strain: Mandel vectors (s, T, c), virgin at first.
        xi: internal coordinates (s, T, x), sizes of about one.
        dissipation: of each step (s, T).

    Returns:
        Z (s, T, N), decode_E (x, c) and decode_Z (x, N), with xi = decode_E E + decode_Z Z.

    Raises:
        ValueError: the paths do not determine all of them; the sentence names what is missing.
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
            f"The paths must show each of the {N} internal variables change alone in some steps, "
            f"they do so for {len(directions)}: make more paths or smaller increments."
        )
    Z = torch.linalg.solve(directions.T, white.flatten(0, 1).T).T.reshape(white.shape)
    return Z, decode_E, (axes * values) @ directions.T


def given(strain: Tensor, xi: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Internal variables given beforehand, those that change alike taken once; returns as `discover`.

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
) -> Coefficients:
    """The coefficients of a law whose internal variables along the paths are known.

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
    numbers = Coefficients(C, G, K, k, h, decode_E, decode_Z * size)
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
            raise ValueError(
                f"Internal variable {i + 1} moves in {len(rows)} steps, {2 * N + 2} are needed: "
                "make more or longer paths."
            )
        sign = torch.sign(dZ[rows, i])
        known = Z[rows]
        if hardens:
            known = torch.cat([known, (sign * p[rows, i])[:, None]], dim=1)
        found = torch.linalg.lstsq(known, (-(E[rows] @ G[:, i]) - k[i] * sign)[:, None]).solution[:, 0]
        K[i] = found[:N]
        if hardens:
            h[i] = found[N].clamp(min=0.0)
    return 0.5 * (K + K.T), h


def single_directions(change: Tensor, dissipation: Tensor, wanted: int, *, most: int = 6000) -> Tensor:
    """Directions (N, r) in which single variables move, up to sign.

    A direction that repeats exactly among the steps is that of one variable: two that move together keep no ratio.
    Those found are projected out, and directions that repeat in what is left are of one new variable beside known ones;
    each known one rests in some of these steps, so that the part along it that comes most often is the new one's own.

    Args:
        change: changes (S, r) of the coordinates in whitened axes, of steps that dissipate.
        dissipation: of those steps (S,).
        wanted: how many directions there should be.
        most: steps of least dissipation that are compared at once.

    Returns:
        The directions found; fewer than wanted where the paths do not determine them.
    """
    change = change / change.norm(dim=1, keepdim=True)
    change = change[torch.argsort(dissipation)]
    found = change[:0]
    while len(found) < wanted:
        span = torch.linalg.qr(found.T).Q if len(found) else change.new_zeros(change.shape[1], 0)
        left = change - (change @ span) @ span.T
        length = left.norm(dim=1)
        rows = torch.nonzero(length > 1e-3).flatten()[:most]
        new = []
        for same in repeated(left[rows] / length[rows, None]):
            pick = rows[same]
            unit = left[pick[0]] / length[pick[0]]
            scaled = change[pick] / (left[pick] @ unit)[:, None]
            known = torch.linalg.lstsq(found.T, (scaled - unit).T).solution.T if len(found) else scaled[:, :0]
            level, agreeing = most_frequent(known)
            if agreeing >= 3:
                direction = unit + level @ found
                new.append(direction / direction.norm())
        if not new:
            break
        found = torch.cat([found, torch.stack(new)])[:wanted]
    return found


def most_frequent(values: Tensor) -> tuple[Tensor, int]:
    """The most frequent value of each column of (S, m), (m,), and the number of rows that have the rarest of them."""
    if values.shape[1] == 0:
        return values[0], len(values)
    ordered = values.sort(dim=0).values
    width = REPEATED * (1.0 + ordered.abs())
    upper = torch.searchsorted(ordered.T.contiguous(), (ordered + width).T.contiguous())
    count = upper - torch.arange(len(ordered))
    best = count.argmax(dim=1)
    columns = torch.arange(values.shape[1])
    middle = best + count[columns, best] // 2
    return ordered[middle.clamp(max=len(ordered) - 1), columns], int(count[columns, best].min())


def repeated(unit: Tensor, least: int = 5) -> list[Tensor]:
    """Rows of each group of at least `least` vectors (S, r) of one direction, up to sign; larger groups first."""
    alike = (unit @ unit.T).abs() > 1.0 - 0.5 * REPEATED**2
    count, groups = alike.sum(dim=1), []
    for row in torch.argsort(count, descending=True).tolist():
        if int(count[row]) < least:
            break
        if bool(alike[row, row]):
            same = torch.nonzero(alike[row]).flatten()
            groups.append(same)
            alike[same] = False
    return groups


def merge(numbers: Coefficients, wanted: int, seed: int) -> Coefficients:
    """Let groups of variables move together (Galerkin): energy and dissipation are those of the full law.

    Variables are similar if strain drives them in the same way, G_i / k_i up to sign; groups are found by k-means, the
    best of ten.

    Args:
        numbers: the full law, N variables.
        wanted: number of variables to keep, 1 to N.
        seed: seed of the first centres.
    """
    points = (numbers.G / numbers.k).T
    leading = points.gather(1, points.abs().argmax(dim=1, keepdim=True))
    sign = torch.where(leading < 0, -1.0, 1.0).to(points)
    group = k_means(points * sign, wanted, seed)
    P = torch.nn.functional.one_hot(group, wanted).to(points) * sign  # Z_full = P Z
    return Coefficients(
        numbers.C, numbers.G @ P, P.T @ numbers.K @ P, P.abs().T @ numbers.k, P.abs().T @ numbers.h,
        numbers.decode_E, numbers.decode_Z @ P,
    )  # fmt: skip


def k_means(points: Tensor, groups: int, seed: int, *, starts: int = 10, rounds: int = 100) -> Tensor:
    """Group (n,) of each of the points (n, m), none empty: Lloyd's iteration from centres drawn by distance."""
    generator = torch.Generator().manual_seed(seed)
    best, best_spread = torch.arange(len(points)) % groups, float("inf")
    for _ in range(starts):
        chosen = [int(torch.randint(len(points), (1,), generator=generator))]
        while len(chosen) < groups:
            distance = torch.cdist(points, points[chosen]).amin(dim=1) ** 2
            distance[chosen] = 0.0
            weight = distance + 1e-12 * distance.sum() + 1e-300
            weight[chosen] = 0.0
            chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
        centres = points[chosen]
        group = torch.cdist(points, centres).argmin(dim=1)
        for _ in range(rounds):
            count = torch.bincount(group, minlength=groups)
            sums = torch.zeros_like(centres).index_add_(0, group, points)
            centres = torch.where(count[:, None] > 0, sums / count.clamp(min=1)[:, None], centres)
            new = torch.cdist(points, centres).argmin(dim=1)
            if bool((new == group).all()):
                break
            group = new
        spread = float((points - centres[group]).norm() ** 2)
        if spread < best_spread and int(torch.bincount(group, minlength=groups).min()) > 0:
            best, best_spread = group, spread
    return best
