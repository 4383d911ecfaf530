"""TannLaw: a small-strain law of a quadratic free energy, a dissipation potential and a decoder.

    Psi(E, Z) = 1/2 E.C E + E.G Z + 1/2 Z.K Z + 1/2 h.p^2,      phi(dZ; p) = sum_i (k_i + h_i p_i) |dZ_i|

Stress is dPsi/dE, Eq. (9b); a step minimises Psi(E_new, Z + dZ) + phi(dZ) (see `surrogates.tann.flow`), so that
D = -T.dZ >= 0, Eq. (9c), the virgin state is free of stress, a step without strain changes nothing, and the tangent is
symmetric: all this by construction, for any coefficients. The coefficients are learned (`surrogates.tann`), or those of
a lattice cell itself (`surrogates.tann.exact`). The accumulated |dZ| are p; with h = 0 hardening is kinematic alone.

References:
    Masi and Stefanou (2022), Eqs. (9) and Algorithm 2, doi:10.1016/j.cma.2022.115190.
"""

from typing import Any

import torch
from torch import Tensor

from surrogates.artifact.schema import Observable
from surrogates.tann.flow import HiddenFlow, make_flow
from surrogates.tensors import ORDERS, component_factors, mandel_basis


def observables(N: int, coordinates: tuple[Observable, ...]) -> tuple[Observable, ...]:
    """The observed fields of a law with N internal variables and these internal coordinates."""
    variables = [Observable(f"Z_{i + 1}", "internal_variable", i) for i in range(N)]
    energies = [Observable("psi", "stored_energy"), Observable("dissipation", "dissipation")]
    return (*energies, *variables, *coordinates)


class TannLaw(torch.nn.Module):
    """The law of the artifact's contract; strain and stress inside are Mandel vectors, c = 3 (2-D) or 6 (3-D) long.

    Args:
        C: elastic stiffness (c, c), Pa.
        G: coupling dPsi/dE dZ (c, N), Pa.
        K: stiffness of the internal variables d2Psi/dZ2 (N, N), Pa, positive definite.
        k: thresholds (N,), Pa, positive.
        h: isotropic hardening (N,), Pa; None for none.
        decode_E, decode_Z: internal coordinates xi = decode_E E + decode_Z Z, (x, c) and (x, N).
        coordinates: names and roles of the x internal coordinates.

    Raises:
        ValueError: shapes do not fit each other, or an energy or a threshold is not positive.
    """

    C: Tensor
    G: Tensor
    K: Tensor
    k: Tensor
    h: Tensor
    decode_E: Tensor
    decode_Z: Tensor
    M: Tensor
    components: Tensor
    elastic: Tensor

    def __init__(
        self, C: Tensor, G: Tensor, K: Tensor, k: Tensor, *, h: Tensor | None = None,
        decode_E: Tensor | None = None, decode_Z: Tensor | None = None, coordinates: tuple[Observable, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        c, N = G.shape
        if c not in (3, 6) or C.shape != (c, c) or K.shape != (N, N) or k.shape != (N,):
            raise ValueError(
                f"C, G, K, k must have shapes (c, c), (c, N), (N, N), (N,) with c = 3 or 6, "
                f"got {tuple(C.shape)}, {tuple(G.shape)}, {tuple(K.shape)}, {tuple(k.shape)}."
            )
        hard = torch.zeros_like(k) if h is None else h
        stiffness = 0.5 * (K + K.T) + torch.diag(hard)
        if not bool((k > 0).all()) or not bool((hard >= 0).all()):
            raise ValueError("k must be positive and h must not be negative.")
        eigenvalues = torch.linalg.eigvalsh(stiffness)
        if not bool((eigenvalues > 0).all()):
            raise ValueError(f"K must be positive definite, its smallest eigenvalue is {float(eigenvalues[0]):g}.")
        x = len(coordinates)
        decode_E = torch.zeros(x, c, dtype=torch.float64) if decode_E is None else decode_E
        decode_Z = torch.zeros(x, N, dtype=torch.float64) if decode_Z is None else decode_Z
        if decode_E.shape != (x, c) or decode_Z.shape != (x, N):
            raise ValueError(
                f"decode_E and decode_Z must have shapes ({x}, {c}) and ({x}, {N}) for {x} coordinates, "
                f"got {tuple(decode_E.shape)} and {tuple(decode_Z.shape)}."
            )
        self.dimension, self.variables = (2 if c == 3 else 3), N
        self.coordinates, self.observables = [entry.name for entry in coordinates], observables(N, coordinates)
        self.hardens = bool((hard > 0).any())
        M = mandel_basis(ORDERS[self.dimension]).reshape(c, -1)
        shape = decode_Z[[i for i, entry in enumerate(coordinates) if entry.quantity == "node_displacement"]]
        flow = make_flow(stiffness, torch.mm(G.T, M), shape)
        if isinstance(flow, HiddenFlow):  # the stiffness is exactly that of the flow
            stiffness = torch.diag(flow.D) - flow.W @ flow.W.T
        self.flow = flow
        # One parameter, which gives the precision of the law to the host; the rest are constants of the closed forms.
        self.C = torch.nn.Parameter(0.5 * (C + C.T), requires_grad=False)
        for name, value in {
            "G": G, "K": stiffness - torch.diag(hard), "k": k, "h": hard, "decode_E": decode_E, "decode_Z": decode_Z,
            "M": M,  # (c, d d): Mandel basis
            "components": component_factors(self.dimension),  # (c,): from Mandel to tensor components
            "elastic": (M.T @ self.C.data @ M).reshape(-1),
        }.items():  # fmt: skip
            self.register_buffer(name, value.detach().clone().contiguous())

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """The virgin state (n, k), all zero."""
        N, c = self.variables, self.C.shape[0]
        size = N * (2 if self.hardens else 1) + c + 2
        return torch.zeros([n, size], dtype=torch.float64, device=self.C.device)

    def strain(self, F: Tensor) -> Tensor:
        """Mandel vector (n, c) of E = sym(F - I), Eq. (15) at small strain."""
        H = F - torch.eye(self.dimension, dtype=F.dtype, device=F.device)
        return torch.mm(H.flatten(1), self.M.t())

    def change(self, E: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Change (n, N) of the internal variables in a step to the strain E (n, c), and its sign."""
        N = self.variables
        Z, still = state[:, :N], (E * self.components == self.past(state)).all(dim=1)
        r = torch.mm(E, self.G) + torch.mm(Z, self.K)
        k = self.k
        if self.hardens:
            k = k + self.h * state[:, N : 2 * N]
        g, sign = self.flow(r, k.expand_as(r))
        moves = torch.logical_not(still)[:, None]  # rate independent: without a change of strain nothing changes
        return torch.where(moves, g, torch.zeros_like(g)), torch.where(moves, sign, torch.zeros_like(sign))

    def past(self, state: Tensor) -> Tensor:
        """Components (n, c) of the strain that a state was reached at."""
        end = state.shape[1] - 2
        return state[:, end - self.C.shape[0] : end]

    def close(self, E: Tensor, state: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Stress (n, d, d) and new state (n, k) of a step to E (n, c) in which the internal variables change by g."""
        N = self.variables
        Z = state[:, :N] + g
        elastic, coupling = torch.mm(E, self.C), torch.mm(Z, self.G.t())
        psi = (E * (0.5 * elastic + coupling)).sum(dim=1) + 0.5 * (Z * torch.mm(Z, self.K)).sum(dim=1)
        parts = [Z]
        if self.hardens:
            p = state[:, N : 2 * N] + g.abs()
            parts.append(p)
            psi = psi + 0.5 * (self.h * p * p).sum(dim=1)
        D = state[:, -1] + (self.k * g.abs()).sum(dim=1)
        parts += [E * self.components, torch.stack([psi, D], dim=1)]
        P = torch.mm(elastic + coupling, self.M).reshape(-1, self.dimension, self.dimension)
        return P, torch.cat(parts, dim=1)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """Stress (n, d, d), Pa, and new state (n, k) for F = I + grad u (n, d, d); the law is rate independent."""
        E = self.strain(F)
        return self.close(E, state, self.change(E, state)[0])

    @torch.jit.export
    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` and its derivative (n, d, d, d, d), in closed form, symmetric.

        On a kink (a variable about to move) it is the derivative towards rest.
        """
        d, n = self.dimension, F.shape[0]
        E = self.strain(F)
        g, sign = self.change(E, state)
        P, new_state = self.close(E, state, g)
        dP_dF = self.elastic - self.flow.softening(sign.abs())  # type: ignore[operator]
        return P, new_state, dP_dF.reshape(n, d, d, d, d)

    @torch.jit.export
    def decode(self, state: Tensor) -> Tensor:
        """Internal coordinates xi (n, x) of a state: displacements and forces of the cell, Algorithm 2."""
        E = self.past(state) / self.components
        return torch.mm(E, self.decode_E.t()) + torch.mm(state[:, : self.variables], self.decode_Z.t())

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """(n, m): psi and accumulated dissipation (J/m^3), Z, then the decoded internal coordinates."""
        return torch.cat([state[:, -2:], state[:, : self.variables], self.decode(state)], dim=1)

    def describe(self) -> dict[str, Any]:
        """State layout, observed names and time window for the manifest."""
        N, c = self.variables, self.C.shape[0]
        sizes = [("Z", N), *([("p", N)] if self.hardens else []), ("strain", c), ("psi", 1), ("dissipation", 1)]
        fields, offset = [], 0
        for name, size in sizes:
            fields.append({"name": name, "offset": offset, "shape": [size]})
            offset += size
        return {"state": {"size": offset, "fields": fields}, "observe": list(self.observables), "time_window": None}

