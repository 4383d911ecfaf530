"""PCA-Net on-line: the history map of paper 1 as a law with state, no stored history, and with a free time step.

The encoder is linear in the history, code_m = sum_j Phi_jm U(t_j) over the times t_j of the data. Hence the code of
"the history so far, then held (or continued linearly) to the end of the window" is the part of the times passed,
accumulated step by step, and two tabulated sums S0, S1 of the modes over the times to come:

    code = c_n + (U_n - r t_n) (A0(t) - A0(t_n)) + r (A1(t) - A1(t_n))  =: c,    r = (U - U_n)/(t - t_n)
         + U S0(t)                                 held, or
         + (U - r t) S0(t) + r S1(t)               continued linearly

with A0(t) = sum_{t_j <= t} Phi_j, A1(t) = sum_{t_j <= t} t_j Phi_j, S0 = A0(T) - A0(t), S1 = A1(T) - A1(t). This is
exact for the history that is linear between the solver's steps, sampled at the times of the data, for any steps.

Virgin state: all is done in differences from the history that stays at the identity, layer by layer, so that the
stress of that history is exactly zero at every time. The network is trained in the same form.

Beyond the window the law has no data. Its time then stays at T: the accumulated code is frozen, only the
last sample of the history follows the present strain, and `observe` shows `window_used` > 1. It is not valid there.

References:
    Algorithm 1 and Eq. (25), (26) of doi:10.1016/j.jmps.2021.104668.
"""

from typing import Any

import torch
from torch import Tensor

from surrogates.tensors import PointLaw, determinant, deviator, first_piola, isochoric, rotation, to_matrix, to_vector


class Shifted(torch.nn.Module):
    """One hidden layer in differences from the history that stays at the identity: zero input gives exactly zero.

    Args:
        weight: (width, inputs).
        base: (width,), the value before activation for the identity.
    """

    def __init__(self, weight: Tensor, base: Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.base = torch.nn.Parameter(base.reshape(1, -1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Change of the layer's output (n, width) for a change x (n, inputs) of its input."""
        y = self.base + torch.matmul(x, self.weight.t())
        # Expanded, so that both activations take the same vector instructions and cancel to the last bit.
        return torch.selu(y) - torch.selu(self.base.expand_as(y).contiguous())


class PCALaw(PointLaw):
    """The on-line PCA-Net.

    State, float64: accumulated code (6 d), strain V = U - I at the last step (6, Mandel), time (s), largest |V| so far.

    Args:
        phi: encoder (T, 6, d), one set of modes per component, at evenly spaced times.
        psi: decoder (T, 6, d).
        hidden: the hidden layers.
        output: weight of the output layer (6 d, width); its bias falls out of the difference.
        window: T, s.
        stress_scale: Pa per unit of the network's stress.
        bulk: K, Pa.
        strain_max: largest |V| of the training data.
        linear: continue the history linearly rather than hold it.
        isochoric_measure: V is of the isochoric stretch and the stress a Kirchhoff one, else of U and Cauchy.
        full_stress: the network gives the full stress, pressure and all, as the paper's.
    """

    def __init__(
        self,
        phi: Tensor,
        psi: Tensor,
        hidden: list[Shifted],
        output: Tensor,
        *,
        window: float,
        stress_scale: float,
        bulk: float,
        strain_max: float,
        linear: bool,
        isochoric_measure: bool,
        full_stress: bool,
    ) -> None:
        super().__init__()
        self.times, self.modes = int(phi.shape[0]), int(phi.shape[2])
        s = torch.linspace(0.0, 1.0, self.times, dtype=torch.float64).reshape(-1, 1, 1)
        zero = torch.zeros(1, 6, self.modes, dtype=torch.float64)
        self.A0 = torch.nn.Buffer(torch.cat([zero, phi.double().cumsum(0)]))  # row k: sum over the first k times
        self.A1 = torch.nn.Buffer(torch.cat([zero, (s * phi.double()).cumsum(0)]))
        self.psi = torch.nn.Buffer(psi.clone())
        self.hidden = torch.nn.ModuleList(hidden)
        self.output = torch.nn.Parameter(output.clone(), requires_grad=False)
        self.window, self.stress_scale, self.bulk, self.strain_max = window, stress_scale, bulk, strain_max
        self.linear, self.isochoric_measure, self.full_stress = linear, isochoric_measure, full_stress

    def describe(self) -> dict[str, Any]:
        """The entries of the manifest for the state, the observed fields and the window."""
        size = 6 * self.modes
        fields = [
            ("code", 0, [6, self.modes]),
            ("strain", size, [6]),
            ("time", size + 6, []),
            ("strain_peak", size + 7, []),
        ]
        return {
            "state": {"size": size + 8, "fields": [{"name": n, "offset": o, "shape": s} for n, o, s in fields]},
            "observe": ["window_used", "strain_used"],
            "time_window": self.window,
        }

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """Virgin state (n, k): zero, since the code is relative to the history that stays at the identity."""
        return torch.zeros(n, 6 * self.modes + 8, dtype=torch.float64, device=self.A0.device)

    @torch.jit.export
    def encode(self, V: Tensor, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Accumulated code and code of the padded history, both (n, 6, d), for strain V (n, 6) at new times t (n,)."""
        m = 6 * self.modes
        V_n, t_n = state[:, m : m + 6], state[:, m + 6]
        s = (t / self.window).clamp(max=1.0)
        s_n = (t_n / self.window).clamp(max=1.0)
        ds = (s - s_n).unsqueeze(1)
        moving = ds > 0.0
        rate = torch.where(moving, (V - V_n) / torch.where(moving, ds, torch.ones_like(ds)), torch.zeros_like(V))
        # Times passed; the last one never is, so that its sample follows the present strain at and after the end.
        k = (s * float(self.times - 1)).floor().long().clamp(max=self.times - 2) + 1
        k_n = (s_n * float(self.times - 1)).floor().long().clamp(max=self.times - 2) + 1
        if k.numel() > 0 and bool((k == k[0]).all()) and bool((k_n == k_n[0]).all()):
            k, k_n = k[0:1], k_n[0:1]  # a host steps all points at one time: one row serves them all
        A0, A1 = self.A0[k].to(V.dtype), self.A1[k].to(V.dtype)
        code = state[:, :m].reshape(-1, 6, self.modes)
        slope = rate.unsqueeze(2)
        if bool((k != k_n).any()):  # most steps of a solver pass no time of the data
            start = (V_n - rate * s_n.unsqueeze(1)).unsqueeze(2)
            code = code + start * (A0 - self.A0[k_n].to(V.dtype)) + slope * (A1 - self.A1[k_n].to(V.dtype))
        S0 = self.A0[-1:].to(V.dtype) - A0
        if self.linear:
            S1 = self.A1[-1:].to(V.dtype) - A1
            padded = code + (V - rate * s.unsqueeze(1)).unsqueeze(2) * S0 + slope * S1
        else:
            padded = code + V.unsqueeze(2) * S0
        return code, padded

    @torch.jit.export
    def decode(self, code: Tensor, t: Tensor) -> Tensor:
        """Stress (n, 6) (Mandel, network units) at times t (n,) that the network gives for codes (n, 6, d)."""
        x = code.reshape(-1, 6 * self.modes).to(self.output.dtype)
        for layer in self.hidden:
            x = layer(x)
        s = (t / self.window).clamp(max=1.0) * float(self.times - 1)
        j = s.floor().long().clamp(max=self.times - 2)
        w = (s - j).to(x.dtype).reshape(-1, 1, 1)
        common = t.numel() > 0 and bool((t == t[0]).all())
        if common:
            j, w = j[0:1], w[0:1]
        row = (1.0 - w) * self.psi[j].to(x.dtype) + w * self.psi[j + 1].to(x.dtype)
        if common:
            # One time: fold the decoder's row into the output layer, 6 rows instead of 6 d.
            folded = (row.reshape(6, self.modes, 1) * self.output.reshape(6, self.modes, -1)).sum(dim=1)
            return torch.matmul(x, folded.t())
        return (row * torch.matmul(x, self.output.t()).reshape(-1, 6, self.modes)).sum(dim=2)

    @torch.jit.export
    def step(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with a step dt (n,) of each point's own."""
        J = determinant(F)
        F_bar = isochoric(F, J)
        R = rotation(F_bar)
        U = torch.matmul(R.transpose(1, 2), F_bar if self.isochoric_measure else F)
        V = to_vector(0.5 * (U + U.transpose(1, 2)) - torch.eye(3, dtype=F.dtype, device=F.device))
        m = 6 * self.modes
        t = state[:, m + 6] + dt
        code, padded = self.encode(V, state, t)
        stress = self.stress_scale * self.decode(padded, t).to(F.dtype)
        if not self.full_stress:
            stress = deviator(stress)
        if not self.isochoric_measure:
            stress = J.unsqueeze(1) * stress  # Kirchhoff from Cauchy
        bulk = 0.0 if self.full_stress else self.bulk
        P = first_piola(F, J, R, to_matrix(stress), bulk)
        peak = torch.maximum(state[:, m + 7], (V * V).detach().sum(dim=1).sqrt())
        new_state = torch.cat([code.reshape(-1, m), V, t.unsqueeze(1), peak.unsqueeze(1)], dim=1)
        return P, new_state

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """Trust (n, 2): part of the window used and part of the trained strain used; above 1 is out of range."""
        m = 6 * self.modes
        return torch.stack([state[:, m + 6] / self.window, state[:, m + 7] / self.strain_max], dim=1)
