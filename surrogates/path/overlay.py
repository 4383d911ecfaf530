"""One step of the recurrent law: parallel viscoplastic elements whose constants a network reads from the state.

Elements in parallel that share one strain and yield one after the other are the overlay model of Besseling (1958) and
Iwan (1967). Here each is viscoplastic and has a back strain, and their constants are not constant: a small network
computes them from isotropic invariants of the state. All tensors are deviators in the corotated frame, as vectors of
five components, strains in per cent; times are in microseconds.

The state holds the elastic strains e_k of the elements and memory tensors m_j. With the strain E (see
`surrogates.path.recurrent`) and J at the start of a step, an increment D of strain in a time dt gives

    xi_k = e_k - X_k,   z_k = |xi_k| - r_k                      relative strain and overstress             (1)
    d z_k / dt = rate of |xi_k| + ... - a_k <z_k>^2              over the step, solved exactly (Riccati)   (2)
    p_k = what the overstress loses over the step                plastic strain of the element             (3)
    e_k <- X_k + n_k (r_k + z_k) if it flows, else e_k + D       n_k: direction of the flow                (4)
    m_j <- m_j + (1 - exp(-g_j p)) (T_j - m_j),  p = sum w_k p_k   memory, along the plastic length alone  (5)
    tau = 2 G sum_k w_k e_k                                      Kirchhoff deviator, w_k > 0, sum 1        (6)

The strengths r_k, viscosities a_k, rates g_j, back strains X_k and targets T_j come from the state at the start of the
step. The exponent two of the overstress is that of the crystal, whose m is one half. Hence, for any weights:

- the virgin stress is zero, and the virgin tangent elastic, 2 G;
- a step of no strain and no duration changes nothing; in a hold the overstress fades, in time;
- elastic cycles change neither the elements that stay below their strength nor the memory;
- the stress is bounded: |X_k| < 0.95 r_k, r_k lies within a factor exp(1.5) of its mean, the overstress only relaxes;
- flow dissipates, since n . e >= r + z - |X| > 0; no energy is stored but the elastic one, G sum w_k |e_k|^2;
- the law is isotropic.

The compiled form is surrogates/artifact/kernel/overlay.h, with the same names.

References:
    Besseling (1958), doi:10.1115/1.4011867; Iwan (1967), doi:10.1115/1.3607751.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from surrogates.artifact.compiled_recurrent import COUNTED


class Sizes(NamedTuple):
    """Sizes of a law: elements, memory tensors; mixed tensors, products and basis tensors of the network; its width."""

    elements: int
    memory: int
    mixed: int = 8
    products: int = 8
    basis: int = 10
    width: int = 96

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Sizes":
        """The sizes of the law that has these weights, by name; see `shapes`."""
        return cls(**{size.lower(): len(weights[name]) for size, name in COUNTED.items()})

    @property
    def tensors(self) -> int:
        """Tensors that the network reads: those of the state, and the strain."""
        return self.elements + self.memory + 1

    @property
    def features(self) -> int:
        """Invariants that the network reads."""
        return self.mixed * (self.mixed + 1) // 2 + self.products * self.mixed + self.products + 1

    @property
    def outputs(self) -> int:
        """Numbers that the network gives."""
        return self.elements * (2 + self.basis) + self.memory * (1 + self.elements + self.basis)

    @property
    def state(self) -> int:
        """Numbers of the tensors of the state."""
        return 5 * (self.elements + self.memory)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights, in the order of the compiled form."""
        n, c, p, h = self.tensors, self.mixed, self.products, self.width
        return {
            "mix": (c, n), "left": (p, n), "right": (p, n), "basis": (self.basis, n + p),
            "W1": (h, self.features), "b1": (h,), "W2": (h, h), "b2": (h,), "W3": (self.outputs, h),
            "b3": (self.outputs,), "strength": (self.elements,), "viscosity": (self.elements,),
            "share": (self.elements,), "rate": (self.memory,),
        }  # fmt: skip

    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def defines(self) -> tuple[str, ...]:
        """The macros of the compiled form."""
        return tuple(f"{name.upper()}={value}" for name, value in self._asdict().items())


class Step(NamedTuple):
    """Result of a step.

    Attributes:
        e: Elastic strains (n, K, 5), per cent.
        m: Memory tensors (n, M, 5).
        plastic: Plastic strain (n,), per cent.
        lost: Dissipated energy over 2 G (n,), per cent squared.
    """

    e: Tensor
    m: Tensor
    plastic: Tensor
    lost: Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """Five components (..., 5) of the deviator of (A B + B A) / 2."""
    p, q = 1 / math.sqrt(6.0), 1 / math.sqrt(8.0)
    a0, a1, a2, a3, a4 = a.unbind(-1)
    b0, b1, b2, b3, b4 = b.unbind(-1)
    return torch.stack(
        [
            -p * (a0 * b1 + a1 * b0) + q * (a4 * b4 - a3 * b3),
            p * (a1 * b1 - a0 * b0 - a2 * b2) + 0.5 * p * (a3 * b3 + a4 * b4),
            -p * (a2 * b1 + a1 * b2) + q * (a3 * b4 + a4 * b3),
            0.5 * p * (a1 * b3 + a3 * b1) - q * (a0 * b3 + a3 * b0) + q * (a2 * b4 + a4 * b2),
            0.5 * p * (a1 * b4 + a4 * b1) + q * (a0 * b4 + a4 * b0) + q * (a2 * b3 + a3 * b2),
        ],
        dim=-1,
    )


class Overlay(torch.nn.Module):
    """The learned step.

    Args:
        sizes: Sizes of the law.
        seed: Seed of the initial weights.
    """

    span: Final[float] = 1.5  # strengths, viscosities and rates vary by exp(+-span)
    direction: Final[float] = 0.3  # scale of the coefficients of tensors
    back: Final[float] = 0.95  # bound of the back strain over the strength
    bound: Final[float] = 2.0  # bound of the target of a memory tensor
    volume_scale: Final[float] = 30.0  # scale of J - 1
    small: Final[float] = 1e-8  # added to squares of lengths
    mix: Tensor
    left: Tensor
    right: Tensor
    basis: Tensor
    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor
    W3: Tensor
    b3: Tensor
    strength: Tensor
    viscosity: Tensor
    share: Tensor
    rate: Tensor

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        super().__init__()
        self.elements, self.memory, self.features = sizes.elements, sizes.memory, sizes.features
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.triu_indices(sizes.mixed, sizes.mixed)
        self.rows, self.columns = torch.nn.Buffer(rows), torch.nn.Buffer(columns)
        start = {
            "strength": torch.linspace(math.log(0.03), math.log(0.6), sizes.elements),
            "viscosity": torch.full((sizes.elements,), math.log(200.0)),
            "rate": torch.linspace(0.0, math.log(100.0), sizes.memory),
        }
        for name, shape in sizes.shapes().items():
            value = start.get(name, torch.zeros(shape))
            if len(shape) == 2:
                value = torch.randn(shape, generator=generator) / math.sqrt(shape[1])
            self.register_parameter(name, torch.nn.Parameter(0.03 * value if name == "W3" else value))

    def invariants(self, T: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, f) of tensors T (n, t, 5) and J - 1 (n,), and the basis (n, b, 5) of isotropic tensors."""
        mixed = torch.matmul(self.mix, T)
        squares = product(torch.matmul(self.left, T), torch.matmul(self.right, T))
        basis = torch.matmul(self.basis, torch.cat([T, squares], dim=1))
        basis = basis / torch.sqrt(1 + (basis * basis).sum(-1, keepdim=True))
        gram = torch.matmul(mixed, mixed.transpose(1, 2))
        raw = torch.cat(
            [
                gram[:, self.rows, self.columns],
                torch.matmul(squares, mixed.transpose(1, 2)).flatten(1),
                (squares * squares).sum(-1),
                self.volume_scale * volume.unsqueeze(1),
            ],
            dim=1,
        )
        return raw / torch.sqrt(torch.sqrt(1 + raw * raw)), basis

    def forward(self, e: Tensor, m: Tensor, E: Tensor, volume: Tensor, D: Tensor, dt: Tensor) -> Step:
        """Advance by one step.

        Args:
            e: Elastic strains (n, K, 5), per cent.
            m: Memory tensors (n, M, 5).
            E: Deviator of the strain (n, 5) at the start.
            volume: J - 1 (n,) at the start.
            D: Increment of strain (n, 5), per cent.
            dt: Its duration (n,), us.
        """
        K, M = self.elements, self.memory
        features, basis = self.invariants(torch.cat([e, m, E.unsqueeze(1)], dim=1), volume)
        h = torch.nn.functional.silu(torch.nn.functional.linear(features, self.W1, self.b1))
        h = torch.nn.functional.silu(torch.nn.functional.linear(h, self.W2, self.b2))
        out = torch.nn.functional.linear(h, self.W3, self.b3)
        width = 2 + basis.shape[1]
        a, b = out[:, : K * width].reshape(-1, K, width), out[:, K * width :].reshape(-1, M, width - 1 + K)
        r = torch.exp(self.strength + self.span * torch.tanh(a[..., 0]))
        viscosity = torch.exp(self.viscosity + self.span * torch.tanh(a[..., 1]))
        X = self.direction * torch.matmul(a[..., 2:], basis)
        X = self.back * r.unsqueeze(-1) * X / torch.sqrt(1 + (X * X).sum(-1, keepdim=True))
        e_new, p, n = self.flow(e, X, r, viscosity, D.unsqueeze(1), dt.unsqueeze(1))
        share = torch.softmax(self.share, dim=0)
        plastic = (share * p).sum(1)
        direction = (share * p / (plastic + 1e-6).unsqueeze(1)).unsqueeze(-1) * n
        rate = torch.exp(self.rate + self.span * torch.tanh(b[..., 0]))
        T = torch.matmul(b[..., 1 : 1 + K], direction) + self.direction * torch.matmul(b[..., 1 + K :], basis)
        T = self.bound * T / torch.sqrt(self.bound**2 + (T * T).sum(-1, keepdim=True))
        m_new = m - torch.expm1(-rate * (0.01 * plastic).unsqueeze(1)).unsqueeze(-1) * (T - m)
        lost = (share * (0.5 * (e + e_new) * (D.unsqueeze(1) - (e_new - e))).sum(-1)).sum(1)
        return Step(e_new, m_new, plastic, lost)

    def flow(
        self, e: Tensor, X: Tensor, r: Tensor, viscosity: Tensor, D: Tensor, dt: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New elastic strains (n, K, 5), plastic strains (n, K) and directions of flow (n, K, 5); Eqs. (1) to (4).

        In an element that is not yet at its strength only the part of the step after it flows. Over the step the
        relative strain is taken to lengthen (or shorten) evenly, which makes (2) a Riccati equation with the solution
        z = (z0 + load t) / (1 + z0 q t), t = tanh(sqrt(q load)) / sqrt(q load), q = a dt.
        """
        xi = e - X
        trial = xi + D
        start, end = torch.sqrt((xi * xi).sum(-1) + self.small), torch.sqrt((trial * trial).sum(-1) + self.small)
        z0, z1 = start - r, end - r
        rise = z1 - z0
        flows, above, loads = z1 > 0, z0 >= 0, z1 > z0
        zero, one, beyond = torch.zeros_like(z0), torch.ones_like(z0), z1.clamp(min=0)
        crosses = flows & ~above
        fraction = torch.where(above, one, torch.where(crosses, z1 / torch.where(crosses, rise + 1e-4, one), zero))
        first = torch.where(above, torch.where(loads, z0, beyond), zero)
        load = torch.where(above, torch.where(loads, rise, zero), beyond)
        q = viscosity * dt * fraction
        root = torch.sqrt(q * load + 1e-4)
        t = torch.tanh(root) / root
        z = (first + load * t) / (1 + first * q * t)
        p = torch.where(flows, first + load - z, zero)
        ratio = p / (0.5 * (start + end))
        n = xi + (1 + ratio * (0.5 + ratio / 6)).unsqueeze(-1) * D
        n = n / torch.sqrt((n * n).sum(-1, keepdim=True) + self.small)
        return torch.where(flows.unsqueeze(-1), n * (r + z).unsqueeze(-1), trial) + X, p, n

    @torch.jit.export
    def stress(self, e: Tensor) -> Tensor:
        """Kirchhoff deviator over 2 G (n, 5), per cent, of elastic strains (n, K, 5); Eq. (6)."""
        return (torch.softmax(self.share, dim=0).unsqueeze(-1) * e).sum(1)

    @torch.jit.export
    def energy(self, e: Tensor) -> Tensor:
        """Elastic energy over G (n,), per cent squared, of elastic strains (n, K, 5)."""
        return (torch.softmax(self.share, dim=0) * (e * e).sum(-1)).sum(1)
