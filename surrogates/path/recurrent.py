"""The recurrent law: a Markovian surrogate of a polycrystal that evolves in time and learns its internal variables.

There is no time window and no stored history, the state is small, and the time step of the solver is free. The learned
step is in `surrogates.path.overlay`, the kinematics in `surrogates.path.corotated`; this module makes them a law of
finite strain. `surrogates.path.training` trains it.

The Kirchhoff deviator of a polycrystal whose grains flow without change of volume depends on the isochoric part of the
history, and its pressure is K (J - 1) exactly: the network learns the deviator alone.

References:
    The learning problem: sections 2, 3 of doi:10.1016/j.jmps.2021.104668; a recurrent law is its outlook (section 5).
"""

from typing import Any

import torch
from torch import Tensor

from surrogates.artifact import Observable
from surrogates.path.corotated import first_piola, from_five, pieces, relative, strain, stretch
from surrogates.path.overlay import Overlay
from surrogates.path.trust import EXPECTED, NOVELTY, Trust
from surrogates.tensors import PointLaw, determinant, inverse

#: Strain of a piece of a step; a larger step is cut inside the law.
LIMIT = 0.003
#: Largest strain of the paths of the certificate, whose twelve steps are those of an implicit solver.
CERTIFIED = 0.05


class RecurrentLaw(PointLaw):
    """The recurrent law.

    State, float64: G - I (9), elastic strains (K x 5), per cent, memory tensors (M x 5), plastic length, dissipated
    energy (J/m^3).

    Args:
        overlay: The learned step.
        bulk: K, Pa.
        shear: G, Pa.
        limit: Strain of a piece of a step.
    """

    def __init__(self, overlay: Overlay, *, bulk: float, shear: float, limit: float = LIMIT) -> None:
        super().__init__()
        self.overlay = overlay
        self.bulk, self.shear, self.limit = bulk, shear, limit
        self.elements, self.memory = overlay.elements, overlay.memory
        self.trust = Trust(overlay.features + 2)

    def describe(self) -> dict[str, Any]:
        """The entries of the manifest for the state, the observed fields and the window (there is none)."""
        shapes = {"G": [9], "e": [self.elements, 5], "m": [self.memory, 5], "plastic_length": [], "dissipation": []}
        at, fields = 0, []
        for name, shape in shapes.items():
            fields.append({"name": name, "offset": at, "shape": shape})
            at += shape[0] * (shape[1] if len(shape) > 1 else 1) if shape else 1
        observed = [
            Observable("stored_energy", "stored_energy"), Observable("dissipation", "dissipation"),
            Observable("plastic_length"), Observable(NOVELTY), Observable(EXPECTED),
        ]  # fmt: skip
        layout = {"size": at, "fields": fields}
        return {"state": layout, "observe": observed, "time_window": None, "certified_strain": CERTIFIED}

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """Virgin state (n, k): all zero."""
        size = 11 + 5 * (self.elements + self.memory)
        return torch.zeros(n, size, dtype=torch.float64, device=self.overlay.share.device)

    @torch.jit.export
    def unpack(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G (n, 3, 3), e (n, K, 5) and m (n, M, 5) of a state, in float64."""
        G = state[:, :9].reshape(-1, 3, 3) + torch.eye(3, dtype=state.dtype, device=state.device)
        end = 9 + 5 * self.elements
        return G, state[:, 9:end].reshape(-1, self.elements, 5), state[:, end:-2].reshape(-1, self.memory, 5)

    @torch.jit.export
    def step(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with a step dt (n,) of each point's own."""
        kind = self.overlay.share.dtype
        G_n, e, m = self.unpack(state)
        e, m, G = e.to(kind), m.to(kind), G_n
        seen = state[:, -2:]
        B = relative(F, G_n)
        count = pieces(B, self.limit)
        most = int(count.max()) if count.numel() > 0 else 1
        eye = torch.eye(3, dtype=F.dtype, device=F.device)
        for j in range(1, most + 1):
            part = (torch.clamp(count, max=j) / count).reshape(-1, 1, 1)
            B_j = eye + part * (B - eye)
            if j > 1:
                M = torch.matmul(G_n, inverse(G))
                B_j = torch.matmul(torch.matmul(M.transpose(1, 2), B_j), M)
            D, S = stretch(B_j)
            E, volume = strain(G).to(kind), (determinant(G) - 1.0).to(kind)
            new = self.overlay(e, m, E, volume, (100.0 * D).to(kind), (1e6 * dt / count).to(kind))
            gained = torch.stack([0.01 * new.plastic, 2e-4 * self.shear * new.lost], dim=1).to(F.dtype)
            there = count >= j
            G = torch.where(there.reshape(-1, 1, 1), torch.matmul(S, G), G)
            e, m = torch.where(there.reshape(-1, 1, 1), new.e, e), torch.where(there.reshape(-1, 1, 1), new.m, m)
            seen = torch.where(there.unsqueeze(1), seen + gained, seen)
        tau = from_five((0.02 * self.shear) * self.overlay.stress(e).to(F.dtype))
        parts = [(G - eye).flatten(1), e.flatten(1).to(F.dtype), m.flatten(1).to(F.dtype), seen]
        return first_piola(F, G, tau, self.bulk), torch.cat(parts, dim=1)

    @torch.jit.export
    def features(self, state: Tensor) -> Tensor:
        """Where a state lies (n, f), float64: the invariants of the network, |E|, the root of the plastic length."""
        kind = self.overlay.share.dtype
        G, e, m = self.unpack(state)
        E = strain(G)
        T = torch.cat([e.to(kind), m.to(kind), E.to(kind).unsqueeze(1)], dim=1)
        invariants = self.overlay.invariants(T, (determinant(G) - 1.0).to(kind))[0].double()
        sizes = torch.stack([E.square().sum(1).sqrt(), state[:, -2].clamp(min=0.0).sqrt()], dim=1)
        return torch.cat([invariants, sizes], dim=1)

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """(n, 5): stored energy and dissipated energy, J/m^3, plastic length, novelty, expected error."""
        G, e, _ = self.unpack(state)
        volume = determinant(G) - 1.0
        kind = self.overlay.share.dtype
        energy = 1e-4 * self.shear * self.overlay.energy(e.to(kind)).to(state.dtype) + 0.5 * self.bulk * volume * volume
        seen = torch.stack([energy, state[:, -1], state[:, -2]], dim=1)
        return torch.cat([seen, self.trust(self.features(state))], dim=1)
