"""One step of the recurrent law: elastic strains and memory tensors that relax to learned targets.

With D the deviatoric strain increment of the step in the unrotated frame (Mandel), Delta = |D| its length and
d = D / Delta its direction, the state is a set of tensors h: M elastic strains and N memory tensors, all zero in the
virgin material.

    h_tr = h + D (elastic strains), h_tr = h (memory)                     predictor
    h   <- h_tr + (1 - exp(-a g Delta)) (T - h_tr)                        relaxation
    tau  = 2 G sum_i w_i h_i over the elastic strains, w_i > 0, sum 1      Kirchhoff deviator

with rates a > 0 and targets T from networks, and the gate g = |h_tr|^2 / (1 + |h_tr|^2) of the elastic strains (in
units of a typical elastic strain; g = 1 for the memory). Hence, for any weights,
- the virgin stress is zero, and the tangent of the virgin material is the elastic one, 2 G, exactly;
- a step of zero length changes nothing; the change depends on the length of the path, not on the number of steps;
- the stress depends on h alone, so it is continuous where the direction of straining changes.

A polycrystal of many grains is nearly isotropic. A target is therefore an isotropic tensor function of d, the strain E
and h, with coefficients that a network computes from the invariants of these, plus a correction by a second network
that takes the components: isotropy does not have to be learned, and the correction learns the texture
(docs/guides/polycrystals.md gives the deviation of 128 grains from isotropy).
"""

import torch
from torch import Tensor

from surrogates.tensors import deviator, to_matrix, to_vector


def _symmetric_products() -> Tensor:
    """Constants (36, 6) that turn the outer product of two Mandel vectors into that of dev(AB + BA)/2."""
    basis = to_matrix(torch.eye(6, dtype=torch.float64))
    product = torch.einsum("aij,bjk->abik", basis, basis)
    product = 0.5 * (product + product.transpose(2, 3))
    return deviator(to_vector(product.reshape(36, 3, 3)))


class Relaxation(torch.nn.Module):
    """The learned step.

    Args:
        elastic: number M of elastic strains.
        memory: number N of memory tensors.
        width: width of the two hidden layers of the isotropic network.
        texture_width: width of the two hidden layers of the texture's network.
        scale: typical elastic strain, flow stress over 2 G; the unit of the elastic strains in h.
    """

    def __init__(self, elastic: int, memory: int, width: int, texture_width: int, scale: float = 0.005) -> None:
        super().__init__()
        self.elastic, self.tensors, self.scale = elastic, elastic + memory, scale
        count = 2 + self.tensors  # d, E and h
        rows, columns = torch.triu_indices(count, count)
        self.rows, self.columns = torch.nn.Buffer(rows), torch.nn.Buffer(columns)
        scalars = len(rows) + 3 * count + 2 + elastic
        self.isotropic = torch.nn.Sequential(
            torch.nn.Linear(scalars, width), torch.nn.SiLU(), torch.nn.Linear(width, width), torch.nn.SiLU(),
            torch.nn.Linear(width, self.tensors * (count + 4)),
        )  # fmt: skip
        self.texture = torch.nn.Sequential(
            torch.nn.Linear(scalars + 6 * count, texture_width), torch.nn.SiLU(),
            torch.nn.Linear(texture_width, texture_width), torch.nn.SiLU(),
            torch.nn.Linear(texture_width, 6 * self.tensors),
        )  # fmt: skip
        last = self.texture[-1]
        assert isinstance(last, torch.nn.Linear)
        with torch.no_grad():  # isotropic at first
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.products = torch.nn.Buffer(_symmetric_products())  # float64: no weight
        # Memory on all scales of strain from the start: training does not reach rates far from the initial ones.
        self.rates = torch.nn.Buffer(torch.cat([torch.logspace(1.5, 2.7, elastic), torch.logspace(0.3, 2.0, memory)]))
        self.share = torch.nn.Parameter(torch.zeros(elastic))

    def forward(self, E: Tensor, D: Tensor, log_rate: Tensor, h: Tensor) -> Tensor:
        """Advance h by one step; all tensors in the type of the network.

        Args:
            E: (n, 6) isochoric strain (C_bar - I)(C_bar + I)^-1 half-way through the step.
            D: (n, 6) deviatoric strain increment.
            log_rate: (n,) logarithm to base 10 of the rate in 1/s.
            h: (n, M + N, 6) the state, elastic strains first, in units of `scale`.

        Returns:
            The new h.
        """
        n, m = E.shape[0], self.elastic
        length = torch.sqrt((D * D).sum(dim=1, keepdim=True) + 1e-20) - 1e-10
        direction = D / (length + 1e-9)
        h_tr = torch.cat([h[:, :m] + (D / self.scale).unsqueeze(1), h[:, m:]], dim=1)
        size = (h_tr * h_tr).sum(dim=2, keepdim=True)
        root = torch.sqrt(1.0 + size)
        X = torch.cat([direction.unsqueeze(1), deviator(E).unsqueeze(1), h_tr / root], dim=1)  # (n, 2 + M + N, 6)
        left, right = X[:, [0, 0, 1]], X[:, [0, 1, 1]]
        Q = torch.matmul((left.unsqueeze(3) * right.unsqueeze(2)).reshape(n, 3, 36), self.products.to(E.dtype))
        scalars = torch.cat(
            [
                (X[:, self.rows] * X[:, self.columns]).sum(dim=2),
                (Q.unsqueeze(2) * X.unsqueeze(1)).sum(dim=3).flatten(1),
                0.5 * (log_rate.unsqueeze(1) - 4.5),
                0.5 * torch.log10(1.0 + length / 1e-4),
                torch.log(root[:, :m, 0]),
            ],
            dim=1,
        )
        y = self.isotropic(scalars)
        a = torch.nn.functional.softplus(y[:, : self.tensors]) * self.rates
        basis = torch.cat([X, Q], dim=1).unsqueeze(1)
        coefficients = y[:, self.tensors :].reshape(n, self.tensors, self.tensors + 5, 1)
        correction = self.texture(torch.cat([scalars, X.flatten(1)], dim=1)).reshape(n, self.tensors, 6)
        target = deviator((coefficients * basis).sum(dim=2) + correction)
        gate = torch.cat([size[:, :m] / (1.0 + size[:, :m]), torch.ones_like(size[:, m:])], dim=1)
        return h_tr - torch.expm1(-(a * length).unsqueeze(2) * gate) * (target - h_tr)

    @torch.jit.export
    def elastic_strain(self, h: Tensor) -> Tensor:
        """Mean elastic strain (n, 6); the Kirchhoff deviator is 2 G times it."""
        share = torch.softmax(self.share, dim=0).reshape(1, -1, 1)
        return self.scale * (share * h[:, : self.elastic]).sum(dim=1)
