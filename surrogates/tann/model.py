"""TANN under training: the coefficients of a `surrogates.tann.law.TannLaw` as weights, encoder, decoder and losses.

References:
    Masi and Stefanou (2022), section III, Eqs. (11) to (13), Algorithms 1 and 2, doi:10.1016/j.cma.2022.115190.
"""

from dataclasses import replace

import torch
from torch import Tensor

from surrogates.artifact.schema import Observable
from surrogates.tann.data import LatticePaths
from surrogates.tann.flow import moved
from surrogates.tann.internal_variables import Coefficients
from surrogates.tann.law import TannLaw


class Tann(torch.nn.Module):
    """A TANN under training: the coefficients of its law, such that energy and thresholds stay positive.

    Args:
        numbers: initial coefficients.
        size: sizes of the internal coordinates (x,), by which they are divided.
        hardens: whether isotropic hardening is learned.
    """

    size: Tensor
    best: Tensor
    best_loss: Tensor
    best_epoch: Tensor

    def __init__(self, numbers: Coefficients, size: Tensor, hardens: bool) -> None:
        super().__init__()
        c = len(numbers.C)
        joint = torch.cat([
            torch.cat([numbers.C, numbers.G], dim=1),
            torch.cat([numbers.G.T, numbers.K + torch.diag(numbers.h)], dim=1),
        ])  # fmt: skip
        values, axes = torch.linalg.eigh(joint)
        if float(values[0]) <= 0.0:  # rounding, or variables merged: the nearest energy that has a minimum
            joint = axes @ torch.diag(values.clamp(min=1e-6 * float(values[-1]))) @ axes.T
        self.c, self.hardens = c, hardens

        def learned(value: Tensor, grad: bool = True) -> torch.nn.Parameter:
            return torch.nn.Parameter(value.clone(memory_format=torch.contiguous_format), requires_grad=grad)

        self.factor, self.log_k = learned(torch.linalg.cholesky(joint)), learned(numbers.k.log())
        self.root_h = learned(numbers.h.sqrt(), hardens)
        self.decode_E, self.decode_Z = learned(numbers.decode_E), learned(numbers.decode_Z)
        self.register_buffer("size", size)
        # The best parameters on held-out steps so far, and their epoch: kept with the weights for resuming.
        self.register_buffer("best", self.flat())
        self.register_buffer("best_loss", torch.full((), float("inf"), dtype=torch.float64))
        self.register_buffer("best_epoch", torch.zeros((), dtype=torch.float64))

    def flat(self) -> Tensor:
        """A copy of all parameters in one vector."""
        return torch.nn.utils.parameters_to_vector(self.parameters()).detach().clone()

    def consider(self, loss: float, epoch: int) -> None:
        """Keep the parameters if the held-out loss is the best so far."""
        if loss < float(self.best_loss):
            self.best, self.best_loss, self.best_epoch = (
                self.flat(), self.best_loss.new_tensor(loss), self.best_epoch.new_tensor(float(epoch))
            )  # fmt: skip

    def coefficients(self) -> Coefficients:
        """The numbers now."""
        lower = torch.tril(self.factor)
        joint, h = lower @ lower.T, self.root_h**2
        c = self.c
        C, G, K = joint[:c, :c], joint[:c, c:], joint[c:, c:] - torch.diag(h)
        return Coefficients(C, G, K, self.log_k.exp(), h, self.decode_E, self.decode_Z)

    def encode(self, xi: Tensor, E: Tensor) -> Tensor:
        """Internal variables (..., N) of internal coordinates (..., x) at the strain (..., c): the tied encoder."""
        return (xi - E @ self.decode_E.T) @ torch.linalg.pinv(self.decode_Z).T

    def decode(self, Z: Tensor, E: Tensor) -> Tensor:
        """Internal coordinates (..., x) of internal variables at a strain."""
        return E @ self.decode_E.T + Z @ self.decode_Z.T

    def step(self, E: Tensor, Z: Tensor, p: Tensor) -> dict[str, Tensor]:
        """One step of Algorithm 2 from Z (n, N) to the strain E (n, c), p the path of Z so far; differentiable."""
        numbers = self.coefficients()
        stiffness = numbers.K + torch.diag(numbers.h)
        r, k = E @ numbers.G + Z @ numbers.K, numbers.k + numbers.h * p
        with torch.no_grad():
            sign = self.law().flow(r, k)[1]
        dZ = moved(r, k, stiffness, sign)
        new, p = Z + dZ, p + dZ.abs()
        elastic, coupling = E @ numbers.C, new @ numbers.G.T
        psi = (E * (0.5 * elastic + coupling)).sum(dim=1) + 0.5 * (new * (new @ numbers.K)).sum(dim=1)
        return {
            "dZ": dZ,
            "Z": new,
            "stress": elastic + coupling,  # Eq. (9b)
            "psi": psi + 0.5 * (numbers.h * p * p).sum(dim=1),
            "dissipation": (numbers.k * dZ.abs()).sum(dim=1),  # Eq. (9c)
        }

    def law(self, coordinates: tuple[Observable, ...] = (), decouple: float = 0.0) -> TannLaw:
        """The law of the present coefficients; with the decoder if the internal coordinates are named.

        Couplings |K_ij| below `decouple` times sqrt(K_ii K_jj) are dropped.
        """
        numbers = self.coefficients()
        root = torch.diagonal(numbers.K).sqrt()
        small = numbers.K.abs() < decouple * root[:, None] * root
        numbers = replace(numbers, K=torch.where(small, torch.zeros_like(small, dtype=root.dtype), numbers.K))
        decoder = {}
        if coordinates:
            decoder = {
                "decode_E": self.size[:, None] * numbers.decode_E, "decode_Z": self.size[:, None] * numbers.decode_Z
            }  # fmt: skip
        h = numbers.h if self.hardens else None
        parts = {"C": numbers.C, "G": numbers.G, "K": numbers.K, "k": numbers.k}
        detached = {name: value.detach() for name, value in {**parts, **decoder}.items()}
        return TannLaw(**detached, h=None if h is None else h.detach(), coordinates=coordinates)


def coordinates_of(paths: LatticePaths) -> tuple[Tensor, Tensor]:
    """Internal coordinates (s, T, x), forces before displacements, and their sizes (x,), one for each kind."""
    parts = (paths.force, paths.displacement)
    size = torch.cat([part.new_full((part.shape[-1],), float(part.std())) for part in parts])
    return torch.cat(parts, dim=-1), size


class Steps:
    """All steps of some paths, as pairs of states: histories are not needed, since Z contains them (section IV.A).

    Args:
        paths: the paths.
        model: finds the internal variables and, for isotropic hardening, their paths; on its device.
    """

    def __init__(self, paths: LatticePaths, model: Tann) -> None:
        device = model.size.device
        xi = (coordinates_of(paths)[0].to(device) / model.size).detach()
        E = paths.strain.to(device)
        with torch.no_grad():
            Z = model.encode(xi, E)
        p = Z.diff(dim=1).abs().cumsum(dim=1)
        p = torch.cat([torch.zeros_like(p[:, :1]), p[:, :-1]], dim=1)

        def old(x: Tensor) -> Tensor:
            return x[:, :-1].flatten(0, 1)

        def new(x: Tensor) -> Tensor:
            return x[:, 1:].flatten(0, 1).to(device)

        self.E_n, self.xi_n, self.Z_n, self.p_n = old(E), old(xi), old(Z), p.flatten(0, 1)
        self.E, self.xi, self.dZ = new(E), new(xi), Z.diff(dim=1).flatten(0, 1)
        self.stress, self.psi, self.dissipation = new(paths.stress), new(paths.psi), new(paths.dissipation)

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.E)


def steps_loss(model: Tann, steps: Steps, rows: Tensor, stage: int) -> Tensor:
    """Eq. (13) in the first training, Eq. (12) in the second; mean absolute errors, Eq. (11), relative to their sizes.

    The derivative of decoder by encoder cannot be the identity where there are fewer variables than coordinates: it is
    required along the steps alone.
    """
    E, xi, Z_n = steps.E[rows], steps.xi[rows], steps.Z_n[rows]
    if stage == 1:
        E_n, xi_n = steps.E_n[rows], steps.xi_n[rows]
        Z_n = model.encode(xi_n, E_n)
    out = model.step(E, Z_n, steps.p_n[rows])
    loss = sum(
        (relative(out[name], getattr(steps, name)[rows]) for name in ("stress", "psi", "dissipation")), E.new_zeros(())
    )
    if stage == 2:
        return loss + relative(out["dZ"], steps.dZ[rows])
    shown_n, shown = model.decode(Z_n, E_n), model.decode(model.encode(xi, E), E)
    loss = loss + relative(shown_n, xi_n) + relative(model.decode(out["Z"], E), xi)
    return loss + relative(shown - shown_n, xi - xi_n)


def relative(value: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error over the mean size of the truth."""
    return (value - truth).abs().mean() / truth.abs().mean()
