"""TannNetworkLaw: the paper's feed-forward TANN as a law, with thermodynamics by construction instead of by training.

All quantities in the networks are divided by their sizes. With e the strain, z the internal variables, x = (e, z):

    NN_psi, one hidden layer of fourth powers:   Psi(x) = sum_k w_k [(u_k + b_k)^4 - b_k^4 - 4 b_k^3 u_k],   u = W x
    NN_Z, leaky ReLU:                            d = N(z, e_n, sigma_n, de) - (1 - g) N(z, e_n, sigma_n, 0)
    second law:                                  dz = s d,   D = -T(e, z + s d) . s d,   T = dPsi/dz

- **Virgin state.** Value and gradient of the fourth powers at x = 0 are subtracted, so Psi and dPsi/dx are exactly zero
  there: every term of the closed forms below has a factor u, and u = W 0 = 0.
- **No strain, no change.** At de = 0 both N are equal and g = |de| / (|de| + grain) is zero, so that d = 0 exactly;
  `grain` is the strain resolution of the network. N is a return mapping onto the yield surface: its value at de = 0 is
  the error of the present state, and g corrects a fraction of it, nearly all in steps larger than the resolution. There
  is no dt: the law is rate independent.
- **Bounded flow.** |dz| <= reach |de|, so that z cannot grow faster than strain, even outside the trained range.
- **Second law.** Along z + s d the power of T is a polynomial, as Psi is of fourth order:
  f(s) = -T(e, z + s d) . d = c_0 - c_1 s - c_2 s^2 - c_3 s^3. For 0 <= s <= 1 each of s, s^2, s^3 is at most s, thus
  f(s) >= c_0 - m s with m = c_1^+ + c_2^+ + c_3^+. Hence s = (c_0 - kappa |d|)^+ / max(m, (c_0 - kappa |d|)^+),
  which lies between 0 and 1, gives f(s) >= kappa |d| wherever s > 0, that is

      D = s f(s) >= kappa |dz| >= 0      for every state, every strain and any weights.

  kappa >= 0 is a threshold: where no flow dissipates that much, the law is elastic. It is less than the least
  dissipation per unit of dz in the data, so s = 1 wherever d is right.

Stress is dPsi/dE, Eq. (9b), of old and new state alike; so it is an input of NN_Z without being part of the state.

References:
    Masi and Stefanou (2022), section III, Algorithm 2, Eqs. (9), doi:10.1016/j.cma.2022.115190.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu

from surrogates.artifact.schema import Observable
from surrogates.tann.law import observables
from surrogates.tensors import ORDERS, component_factors, mandel_basis


class TannNetworkLaw(torch.nn.Module):
    """The law of the artifact's contract; strain and stress inside are Mandel vectors, c = 3 (2-D) or 6 (3-D) long.

    Args:
        dimension: d, 2 or 3.
        variables: N, number of internal variables.
        width: width of the three hidden layers of NN_Z.
        units: fourth powers of NN_psi.
        sizes: widths of the decoder from the internal variables (N) to the internal coordinates (x), both included.
        coordinates: names and roles of the x internal coordinates.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    E_size: Tensor
    stress_size: Tensor
    Z_size: Tensor
    change_size: Tensor
    step_size: Tensor
    kappa: Tensor
    grain: Tensor
    reach: Tensor
    decode_E: Tensor
    xi_size: Tensor
    M: Tensor
    components: Tensor

    def __init__(
        self, dimension: int, variables: int, width: int, units: int, sizes: tuple[int, ...],
        coordinates: tuple[Observable, ...],
    ) -> None:  # fmt: skip
        super().__init__()
        if dimension not in (2, 3) or sizes[0] != variables or sizes[-1] != len(coordinates):
            raise ValueError(
                f"sizes must lead from {variables} variables to {len(coordinates)} coordinates in two or three "
                f"dimensions, got {sizes} in {dimension}."
            )
        c, x = (3 if dimension == 2 else 6), len(coordinates)
        self.dimension, self.c, self.variables = dimension, c, variables
        self.coordinates, self.observables = [entry.name for entry in coordinates], observables(variables, coordinates)
        self.state_in = torch.nn.Linear(variables + 2 * c, width)  # first layer of NN_Z, on the old state
        self.step_in = torch.nn.Linear(c, width, bias=False)  # ... and on the increment of strain
        self.hidden = torch.nn.Sequential(
            torch.nn.LeakyReLU(0.01), torch.nn.Linear(width, width), torch.nn.LeakyReLU(0.01),
            torch.nn.Linear(width, width), torch.nn.LeakyReLU(0.01), torch.nn.Linear(width, variables, bias=False),
        )  # fmt: skip
        self.W = torch.nn.Parameter(0.5 * torch.randn(units, c + variables) / (c + variables) ** 0.5)
        self.b = torch.nn.Parameter(torch.randn(units))
        self.w = torch.nn.Parameter(torch.randn(units) / units)
        layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.decoder, self.shown = torch.nn.ModuleList(layers[:-1]), layers[-1]
        for name, value in {
            "E_size": torch.ones(1), "stress_size": torch.ones(1), "Z_size": torch.ones(variables),
            "change_size": torch.ones(variables), "step_size": torch.ones(1), "kappa": torch.zeros(1),
            "grain": torch.full((1,), 0.1), "reach": torch.full((1,), 10.0),
            "decode_E": torch.zeros(x, c), "xi_size": torch.ones(x),
            "M": mandel_basis(ORDERS[dimension]).reshape(c, -1),  # (c, d d): Mandel basis
            "components": component_factors(dimension),  # (c,): from Mandel to tensor components
        }.items():  # fmt: skip
            self.register_buffer(name, value)
        self.double()

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """The virgin state (n, k), all zero."""
        size = self.variables + self.c + 2
        return torch.zeros([n, size], dtype=torch.float64, device=self.b.device)

    def potential(self, e: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Free energy (n,) and its gradient (n, c + N) at strain e (n, c) and variables z (n, N), all over sizes."""
        u, b = torch.mm(torch.cat([e, z], dim=1), self.W.t()), self.b
        psi = torch.mv(u * u * (6.0 * b * b + 4.0 * b * u + u * u), self.w)
        return psi, torch.mm(self.w * u * (12.0 * b * b + 12.0 * b * u + 4.0 * u * u), self.W)

    def propose(self, e_n: Tensor, de: Tensor, z: Tensor) -> Tensor:
        """The change of z (n, N) that NN_Z proposes for the step de (n, c) from e_n; exactly zero for de = 0."""
        sigma = self.potential(e_n, z)[1][:, : self.c]
        de = de / self.step_size
        still = self.state_in(torch.cat([z, e_n, sigma], dim=1))
        moved = still + self.step_in(de)
        size = de.norm(p=2.0, dim=1, keepdim=True)
        d = self.change_size * (self.hidden(moved) - self.grain / (size + self.grain) * self.hidden(still))
        return d * torch.clamp(self.reach * size / (d.norm(p=2.0, dim=1, keepdim=True) + 1e-30), max=1.0)

    def admit(self, e: Tensor, z: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """The part s d (n, N) of a change d that the second law admits at the new strain, and D (n,), Eq. (9c)."""
        b, w = self.b, self.w
        u, v = torch.mm(torch.cat([e, z], dim=1), self.W.t()), torch.mm(d, self.W[:, self.c :].t())
        c_0 = -torch.mv(v * u * (12.0 * b * b + 12.0 * b * u + 4.0 * u * u), w)
        c_1 = torch.mv(12.0 * (v * (b + u)) ** 2, w)
        c_2 = torch.mv(12.0 * v**3 * (b + u), w)
        c_3 = torch.mv(4.0 * v**4, w)
        free = torch.clamp(c_0 - self.kappa * d.norm(p=2.0, dim=1), min=0.0)
        m = torch.clamp(c_1, min=0.0) + torch.clamp(c_2, min=0.0) + torch.clamp(c_3, min=0.0)
        s = free / torch.clamp(torch.maximum(m, free), min=1e-30)
        D = s * (c_0 - s * (c_1 + s * (c_2 + s * c_3)))
        return s[:, None] * d, torch.clamp(D, min=0.0)  # the clamp removes rounding only

    def strain(self, F: Tensor) -> Tensor:
        """Mandel vector (n, c) of E = sym(F - I), Eq. (15) at small strain."""
        H = F - torch.eye(self.dimension, dtype=F.dtype, device=F.device)
        return torch.mm(H.flatten(1), self.M.to(F.dtype).t())

    def step(self, E: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Stress (n, c), Pa, and new state (n, k) of a step to the strain E (n, c): Algorithm 2."""
        N, c, dtype = self.variables, self.c, self.b.dtype
        past = state[:, N : N + c]
        factor = self.components.to(E.dtype)
        change = (E * factor - past) / factor  # exactly zero where the strain is exactly the old one
        e_n, e = (past / factor / self.E_size).to(dtype), (E / self.E_size).to(dtype)
        de = (change / self.E_size).to(dtype)
        z = state[:, :N].to(dtype)
        dz, D = self.admit(e, z, self.propose(e_n, de, z))
        z = z + dz
        psi, gradient = self.potential(e, z)
        energy = self.stress_size * self.E_size
        new = torch.cat([
            z.to(E.dtype), E * factor, (psi * energy)[:, None].to(E.dtype),
            state[:, -1:] + (D * energy)[:, None].to(E.dtype),
        ], dim=1)  # fmt: skip
        return (gradient[:, :c] * self.stress_size).to(E.dtype), new

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """Stress (n, d, d), Pa, and new state (n, k) for F = I + grad u (n, d, d); dt has no effect."""
        sigma, new_state = self.step(self.strain(F), state)
        return torch.mm(sigma, self.M.to(F.dtype)).reshape(-1, self.dimension, self.dimension), new_state

    @torch.jit.export
    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` and its derivative (n, d, d, d, d), by c backward passes.

        It is not symmetric: the output of NN_Z does not minimise a potential.
        """
        graded = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        E = self.strain(F).detach().requires_grad_(True)
        sigma, new_state = self.step(E, state)
        rows: list[Tensor] = []
        for a in range(self.c):
            gradient = torch.autograd.grad([sigma[:, a].sum()], [E], retain_graph=True)[0]
            assert gradient is not None
            rows.append(gradient)
        torch.set_grad_enabled(graded)
        d, M = self.dimension, self.M.to(F.dtype)
        A = torch.matmul(M.t(), torch.matmul(torch.stack(rows, dim=1).detach(), M))
        P = torch.mm(sigma.detach(), M).reshape(-1, d, d)
        return P, new_state.detach(), A.reshape(-1, d, d, d, d)

    def show(self, z: Tensor) -> Tensor:
        """The decoder: the contribution of z (n, N) to the internal coordinates (n, x), over sizes; zero at z = 0."""
        y = torch.cat([z * self.Z_size, torch.zeros_like(z[:1])], dim=0)
        for layer in self.decoder:
            y = elu(layer(y))
        y = self.shown(y)
        return y[:-1] - y[-1:]

    @torch.jit.export
    def decode(self, state: Tensor) -> Tensor:
        """Internal coordinates xi (n, x) of a state: forces and displacements of the cell, Algorithm 2."""
        N, dtype = self.variables, self.b.dtype
        E = (state[:, N : N + self.c] / self.components).to(dtype)
        xi = torch.mm(E, self.decode_E.t()) + self.show(state[:, :N].to(dtype))
        return (xi * self.xi_size).to(state.dtype)

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """(n, m): psi and accumulated dissipation (J/m^3), Z, then the decoded internal coordinates."""
        return torch.cat([state[:, -2:], state[:, : self.variables], self.decode(state)], dim=1)

    def describe(self) -> dict[str, Any]:
        """State layout, observed names and time window for the manifest."""
        fields, offset = [], 0
        for name, size in (("Z", self.variables), ("strain", self.c), ("psi", 1), ("dissipation", 1)):
            fields.append({"name": name, "offset": offset, "shape": [size]})
            offset += size
        return {"state": {"size": offset, "fields": fields}, "observe": list(self.observables), "time_window": None}
