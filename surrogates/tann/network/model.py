"""The paper's network under training: the law with its encoder, the data of the trainings and their losses.

References:
    Masi and Stefanou (2022), section III, Eqs. (11) to (13), doi:10.1016/j.cma.2022.115190.
"""

import torch
from torch import Tensor
from torch.nn.functional import elu, linear

from surrogates.tann.data import LatticePaths
from surrogates.tann.model import coordinates_of, relative
from surrogates.tann.network.law import TannNetworkLaw


class TannNetwork(torch.nn.Module):
    """The law under training with its encoder, whose weights are the decoder's, transposed.

    Args:
        law: the law.
        discovered: whether there is an encoder; else the variables are given.
    """

    best_loss: Tensor
    best_epoch: Tensor

    def __init__(self, law: TannNetworkLaw, discovered: bool) -> None:
        super().__init__()
        self.law, self.discovered = law, discovered
        layers = [*law.decoder, law.shown][::-1] if discovered else []
        self.bias = torch.nn.ParameterList([torch.zeros(layer.in_features, dtype=torch.float64) for layer in layers])
        self.given = tuple[int, ...]()
        # The best parameters on held-out steps so far, and their epoch: kept with the weights for resuming.
        self.register_buffer("best", self.flat())
        self.register_buffer("best_loss", torch.full((), float("inf"), dtype=torch.float64))
        self.register_buffer("best_epoch", torch.zeros((), dtype=torch.float64))

    def flat(self) -> Tensor:
        """A copy of all parameters in one vector."""
        return torch.nn.utils.parameters_to_vector(self.parameters()).detach().clone()

    def consider(self, loss: float, epoch: int) -> None:
        """Keep the parameters if the held-out loss is the best so far: early stopping."""
        if loss < float(self.best_loss):
            self.best, self.best_loss, self.best_epoch = (
                self.flat(), self.best_loss.new_tensor(loss), self.best_epoch.new_tensor(float(epoch))
            )  # fmt: skip

    def encode(self, xi: Tensor) -> Tensor:
        """Internal variables (n, N), over sizes, of inelastic internal coordinates (n, x), over sizes; zero at zero."""
        y = torch.cat([xi, torch.zeros_like(xi[:1])], dim=0)
        layers = [*self.law.decoder, self.law.shown][::-1]
        for k, (layer, bias) in enumerate(zip(layers, self.bias, strict=True)):
            y = linear(y, layer.weight.t(), bias)
            if k < len(layers) - 1:
                y = elu(y)
        return (y[:-1] - y[-1:]) / self.law.Z_size

    def variables(self, paths: LatticePaths) -> Tensor:
        """Internal variables (s, T, N), over sizes, of all states of some paths."""
        if not self.discovered:
            return paths.alpha[..., list(self.given)].to(self.law.b) / self.law.Z_size
        left = inelastic(paths, self.law)
        return self.encode(left.flatten(0, 1)).reshape(*left.shape[:2], -1)


def inelastic(paths: LatticePaths, law: TannNetworkLaw) -> Tensor:
    """Internal coordinates (s, T, x), over sizes, without what strain explains elastically."""
    return coordinates_of(paths)[0].to(law.b) / law.xi_size - paths.strain.to(law.b) @ law.decode_E.T


def first_axes(model: TannNetwork, data: Tensor) -> None:
    """Pre-training by layers: every layer, its ELU linear, keeps as much of its input (S, x) as a linear layer can."""
    layers = [*model.law.decoder, model.law.shown][::-1]
    y = data[:: max(1, len(data) // 20000)]
    for layer, bias in zip(layers, model.bias, strict=True):
        old, new = layer.out_features, layer.in_features
        if new >= old:
            weight = torch.linalg.qr(torch.randn(new, old, dtype=data.dtype))[0].T
        else:
            weight = torch.linalg.eigh(y.T @ y).eigenvectors.flip(1)[:, :new]
        layer.weight.copy_(weight)
        layer.bias.copy_(-2.0 * (y @ weight @ weight.T).amin(dim=0).clamp(max=0.0) + 0.1)
        y = y @ weight
        bias.copy_(-2.0 * y.amin(dim=0).clamp(max=0.0) + 0.1)
    # A layer's own bias stands for its shift less what the shift of the layer before has become, in both directions.
    for k in range(len(layers) - 1, 0, -1):
        model.bias[k] -= model.bias[k - 1] @ layers[k].weight
    for k in range(len(layers) - 1):
        layers[k].bias -= layers[k + 1].bias @ layers[k].weight.T


class Steps:
    """Steps of some paths as pairs of states, over sizes; steps without strain, where the law is exact, left out."""

    def __init__(self, paths: LatticePaths, model: TannNetwork) -> None:
        law = model.law
        E = paths.strain.to(law.b) / law.E_size
        with torch.no_grad():
            Z = model.variables(paths)
        xi = inelastic(paths, law) if model.discovered else torch.zeros(*E.shape[:2], 0, dtype=E.dtype)
        moves = (E.diff(dim=1) != 0).any(dim=2)
        energy = law.stress_size * law.E_size

        def old(x: Tensor) -> Tensor:
            return x[:, :-1][moves]

        def new(x: Tensor) -> Tensor:
            return x[:, 1:].to(law.b)[moves]

        self.E_n, self.xi_n, self.Z_n = old(E), old(xi), old(Z)
        self.E, self.xi, self.dZ = new(E), new(xi), Z.diff(dim=1)[moves]
        self.stress = new(paths.stress) / law.stress_size
        self.psi, self.dissipation = new(paths.psi) / energy, new(paths.dissipation) / energy
        names = ("xi", "dZ", "stress", "psi", "dissipation")
        self.size = {name: getattr(self, name).abs().mean() for name in names}

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.E)


def steps_loss(model: TannNetwork, steps: Steps, rows: Tensor, stage: int) -> Tensor:
    """Eq. (13) in stage 1, Eq. (12) in stage 2: mean absolute errors, Eq. (11), relative to mean sizes.

    The derivative of decoder by encoder cannot be the identity where there are fewer variables than coordinates: it is
    required along the steps alone. The part of the change proposed by NN_Z that the second law removes counts as an
    error; otherwise NN_Z would not learn where it violates the second law.
    """
    law, size = model.law, steps.size
    E_n, E, Z_n = steps.E_n[rows], steps.E[rows], steps.Z_n[rows]
    first = stage == 1 and model.discovered
    if first:
        both = model.encode(torch.cat([steps.xi_n[rows], steps.xi[rows]]))
        Z_n, Z_true = both[: len(rows)], both[len(rows) :]
    d = law.propose(E_n, E - E_n, Z_n)
    dz, D = law.admit(E, Z_n, d)
    psi, gradient = law.potential(E, Z_n + dz)
    loss = (gradient[:, : law.c] - steps.stress[rows]).abs().mean() / size["stress"]
    loss = loss + (psi - steps.psi[rows]).abs().mean() / size["psi"]
    loss = loss + (D - steps.dissipation[rows]).abs().mean() / size["dissipation"]
    loss = loss + (d - dz).abs().mean() / size["dZ"]
    if not first:
        return loss + (d - steps.dZ[rows]).abs().mean() / size["dZ"]
    xi_n, xi = steps.xi_n[rows], steps.xi[rows]
    shown_n, shown, led = law.show(torch.cat([Z_n, Z_true, Z_n + dz])).chunk(3)
    loss = loss + ((shown_n - xi_n).abs().mean() + (led - xi).abs().mean()) / size["xi"]
    return loss + relative(shown - shown_n, xi - xi_n)


class Windows:
    """Windows of paths, over sizes: the law is driven from their first states."""

    def __init__(self, paths: LatticePaths, model: TannNetwork, window: int) -> None:
        law = model.law
        energy = (law.stress_size * law.E_size).cpu()

        def cut(x: Tensor) -> Tensor:
            count = (x.shape[1] - 1) // window
            return torch.cat([x[:, k * window : (k + 1) * window + 1] for k in range(count)]).to(law.b)

        with torch.no_grad():
            self.Z = cut(model.variables(paths))
        self.E, self.stress = cut(paths.strain / law.E_size.cpu()), cut(paths.stress / law.stress_size.cpu())
        self.psi, self.dissipation = cut(paths.psi / energy), cut(paths.dissipation / energy)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.E)


def windows_loss(model: TannNetwork, windows: Windows, rows: Tensor) -> Tensor:
    """Eq. (12) along windows, with Z in place of its rate."""
    law = model.law
    E, z = windows.E[rows], windows.Z[rows, 0]
    found: dict[str, list[Tensor]] = {"Z": [], "stress": [], "psi": [], "dissipation": []}
    cut = z.new_zeros(())
    for k in range(1, E.shape[1]):
        d = law.propose(E[:, k - 1], E[:, k] - E[:, k - 1], z)
        dz, D = law.admit(E[:, k], z, d)
        z = z + dz
        cut = cut + (d - dz).abs().mean()
        psi, gradient = law.potential(E[:, k], z)
        for name, value in zip(found, (z, gradient[:, : law.c], psi, D), strict=True):
            found[name].append(value)
    loss = cut / (windows.Z[rows].diff(dim=1).abs().mean() * (E.shape[1] - 1))
    for name, values in found.items():
        loss = loss + relative(torch.stack(values, dim=1), getattr(windows, name)[rows, 1:])
    return loss
