"""PCA-Net on-line: the history map of paper 1 as a law with state, no stored history, and with a free time step.

The encoder is linear in the history, code_m = sum_j Phi_jm U(t_j) over the times t_j of the data, and the first layer
is linear in the code. So the first layer absorbs the encoder: with W_j = W Phi_j, what it adds to its base for "the
history so far, then held (or continued linearly) to the end of the window" is the part h of the times passed,
accumulated step by step, and two sums over the times to come:

    h = h_n + sum_{t_n < t_j <= t} W_j (U_n + r (t_j - t_n)),    r = (U - U_n)/(t - t_n)
    x = h + sum_{t_j > t} W_j U                                  held, or
    x = h + sum_{t_j > t} W_j (U + r (t_j - t))                  continued linearly, or
    x = h + sum_{t_j > t} W_j (U + r a (1 - e^(-(t_j - t)/a)))   with a rate that fades in a time a

This is exact for the history that is linear between the solver's steps, sampled at the times of the data, for any
steps. The state is h, one number per neuron of the first layer, whatever the number of modes. All points of a host have
one time, so that the sums of W_j, six rows, are made once for all of them; and so is the one row of the decoder that is
needed, which the output layer absorbs. What remains per point are the products of the hidden layers among themselves.

Virgin state: all is done in differences from the history that stays at the identity, layer by layer, so that the
stress of that history is exactly zero at every time. The network is trained in the same form.

Beyond the window the law has no data. Its time then stays at T: what was accumulated is frozen, only the
last sample of the history follows the present strain, and `observe` shows `window_used` > 1. It is not valid there.

References:
    Algorithm 1 and Eq. (25), (26) of doi:10.1016/j.jmps.2021.104668.
"""

import math
from typing import Any

import torch
from torch import Tensor

from surrogates.path.trust import EXPECTED, NOVELTY, Trust
from surrogates.tensors import PointLaw, determinant, deviator, first_piola, isochoric, rotation, to_matrix, to_vector

#: Principal components of the first layer among the features of a state.
COMPONENTS = 32


def reach(ahead: Tensor, horizon: float) -> Tensor:
    """Change of a history a time `ahead` after now, for unit rate now: linear for an infinite horizon, none for zero.

    In between the rate falls by e in each horizon.
    """
    if horizon == 0.0:
        return torch.zeros_like(ahead)
    if math.isinf(horizon):
        return ahead
    return -horizon * torch.expm1(-ahead / horizon)


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
        return self.activate(torch.matmul(x, self.weight.t()))

    def activate(self, y: Tensor) -> Tensor:
        """Change of the layer's output (n, width) for a change y (n, width) before activation."""
        # Expanded, so that both activations take the same vector instructions and cancel to the last bit.
        return torch.selu(self.base + y) - torch.selu(self.base.expand_as(y).contiguous())


class PCALaw(PointLaw):
    """The on-line PCA-Net.

    State, float64: what the first layer has from the times passed (width), strain V = U - I at the last step (6,
    Mandel), time (s), largest |V| so far.

    Args:
        phi: encoder (T, 6, d), one set of modes per component, at evenly spaced times.
        psi: decoder (T, 6, d).
        hidden: the hidden layers.
        output: weight of the output layer (6 d, width); its bias falls out of the difference.
        window: T, s.
        stress_scale: Pa per unit of the network's stress.
        bulk: K, Pa.
        strain_max: largest |V| of the training data.
        horizon: time, relative to the window, in which the rate of the continued history fades; 0 holds the history,
            infinity continues it linearly.
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
        horizon: float,
        isochoric_measure: bool,
        full_stress: bool,
    ) -> None:
        super().__init__()
        self.times, self.modes = int(phi.shape[0]), int(phi.shape[2])
        self.width = int(hidden[0].weight.shape[0])
        self.phi = torch.nn.Buffer(phi.clone())
        self.psi = torch.nn.Buffer(psi.clone())
        self.hidden = torch.nn.ModuleList(hidden)
        self.output = torch.nn.Parameter(output.clone(), requires_grad=False)
        self.window, self.stress_scale, self.bulk, self.strain_max = window, stress_scale, bulk, strain_max
        self.horizon, self.isochoric_measure, self.full_stress = horizon, isochoric_measure, full_stress
        components = min(self.width, COMPONENTS)
        self.projection = torch.nn.Buffer(torch.zeros(self.width, components, dtype=torch.float64))
        self.trust = Trust(components + 8)

    def describe(self) -> dict[str, Any]:
        """The entries of the manifest for the state, the observed fields and the window."""
        size = self.width
        fields = [
            ("first_layer", 0, [size]),
            ("strain", size, [6]),
            ("time", size + 6, []),
            ("strain_peak", size + 7, []),
        ]
        return {
            "state": {"size": size + 8, "fields": [{"name": n, "offset": o, "shape": s} for n, o, s in fields]},
            "observe": ["window_used", "strain_used", NOVELTY, EXPECTED],
            "time_window": self.window,
        }

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """Virgin state (n, k): zero, since all is relative to the history that stays at the identity."""
        return torch.zeros(n, self.width + 8, dtype=torch.float64, device=self.phi.device)

    def first_layer(self, weights: Tensor, V: Tensor) -> Tensor:
        """What the first layer gets, (n, width), from a strain V (n, 6) at all times of the data with weights (m, T).

        One row of weights serves all points, or each has its own.
        """
        modes = torch.matmul(weights.to(self.phi.dtype), self.phi.reshape(self.times, -1))
        weight: Tensor = self.hidden[0].weight  # type: ignore[assignment]
        layer = weight.reshape(self.width, 6, self.modes).permute(1, 2, 0)
        rows = torch.matmul(modes.reshape(-1, 6, 1, self.modes), layer).squeeze(2)  # sums of W_j, (m, 6, width)
        V = V.to(rows.dtype)
        if rows.shape[0] == 1:
            return torch.matmul(V, rows[0])
        return torch.matmul(V.unsqueeze(1), rows).squeeze(1)

    @torch.jit.export
    def encode(self, V: Tensor, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """First layer from the times passed, and from the padded history, (n, width), for V (n, 6) at new times t."""
        m = self.width
        V_n, t_n = state[:, m : m + 6], state[:, m + 6]
        s = (t / self.window).clamp(max=1.0).unsqueeze(1)
        s_n = (t_n / self.window).clamp(max=1.0).unsqueeze(1)
        ds = s - s_n
        moving = ds > 0.0
        rate = torch.where(moving, (V - V_n) / torch.where(moving, ds, torch.ones_like(ds)), torch.zeros_like(V))
        if s.numel() > 0 and bool((s == s[0]).all()) and bool((s_n == s_n[0]).all()):
            s, s_n = s[0:1], s_n[0:1]  # a host steps all points at one time: one row serves them all
        last = float(self.times - 1)
        j = torch.arange(self.times, dtype=V.dtype, device=V.device).unsqueeze(0)
        # The last time is never passed, so that its sample follows the present strain at and after the end.
        future = torch.logical_or(j > s * last, j == last)
        passed = torch.logical_and(torch.logical_not(future), j > s_n * last)
        first = state[:, :m]
        if bool(passed.any()):  # most steps of a solver pass no time of the data
            past = passed.to(V.dtype)
            change = self.first_layer(past, V_n) + self.first_layer(past * (j / last - s_n), rate)
            first = first + change.to(first.dtype)
        ahead = future.to(V.dtype)
        padded = first.to(self.phi.dtype) + self.first_layer(ahead, V)
        if self.horizon > 0.0:
            padded = padded + self.first_layer(ahead * reach((j / last - s).clamp(min=0.0), self.horizon), rate)
        return first, padded

    @torch.jit.export
    def decode(self, first: Tensor, t: Tensor) -> Tensor:
        """Stress (n, 6) (Mandel, network units) at times t (n,) for what the first layer gets, (n, width)."""
        x = first
        for k, layer in enumerate(self.hidden):
            x = layer.activate(x) if k == 0 else layer(x)
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
        m = self.width
        t = state[:, m + 6] + dt
        first, padded = self.encode(V, state, t)
        stress = self.stress_scale * self.decode(padded, t).to(F.dtype)
        if not self.full_stress:
            stress = deviator(stress)
        if not self.isochoric_measure:
            stress = J.unsqueeze(1) * stress  # Kirchhoff from Cauchy
        bulk = 0.0 if self.full_stress else self.bulk
        P = first_piola(F, J, R, to_matrix(stress), bulk)
        peak = torch.maximum(state[:, m + 7], (V * V).detach().sum(dim=1).sqrt())
        new_state = torch.cat([first, V, t.unsqueeze(1), peak.unsqueeze(1)], dim=1)
        return P, new_state

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """Trust (n, 4): part of the window used and part of the trained strain used; novelty and expected error.

        Above 1 the first three are out of range; see `surrogates.path.trust`.
        """
        m = self.width
        used = torch.stack([state[:, m + 6] / self.window, state[:, m + 7] / self.strain_max], dim=1)
        return torch.cat([used, self.trust(self.features(state))], dim=1)

    @torch.jit.export
    def features(self, state: Tensor) -> Tensor:
        """Where a state lies (n, f): components of the first layer, V, |V|, and the part of the window used."""
        m = self.width
        V = state[:, m : m + 6]
        sizes = torch.stack([V.square().sum(1).sqrt(), state[:, m + 6] / self.window], dim=1)
        return torch.cat([torch.matmul(state[:, :m], self.projection.to(state.dtype)), V, sizes], dim=1)
