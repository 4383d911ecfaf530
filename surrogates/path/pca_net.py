"""PCA-Net, the history map of paper 1: encode the strain history in principal components, map, decode the stress.

As the authors trained it: a separate uncentred SVD for each component, SELU layers, relative L2 loss of the decoded
stress, Adam with a cosine from 1e-4 to 1e-6, batches of 16. Four changes, each an option:

- `stress="deviator"` learns the deviatoric Cauchy stress alone, the pressure K (J - 1) being exact; "full" is the
  choice of the paper.
- `measure="isochoric"` maps the history of the isochoric stretch to the Kirchhoff deviator, of which it is a function
  exactly; "stretch" maps U to the Cauchy stress, as in the paper.
- `augment` turns each path by a random rotation, since a polycrystal of many random grains is nearly isotropic: 128 of
  them are some per cent away from it, which a network trained in this way does not learn.
- `optimiser="muon"` needs far fewer updates than Adam, see `surrogates.training.muon`; it wants large batches.

The modes are orthonormal, so the error of a decoded stress is that of its code and the part of the stress outside the
modes, which no network changes: |Psi c - s|^2 = |c - Psi^T s|^2 + |s - Psi Psi^T s|^2. So paths are encoded once,
before training, and nothing is decoded in it. The network takes the code of U - I, which is that of U but for a
constant that the first bias absorbs, and its weights begin with the variance that keeps the activations of SELU normal.

On-line, the future of the history is continued linearly at the latest rate (as by the authors), with a rate that fades,
or held constant. Linear is the default: the stress is viscous, and holding stops the strain at the very time whose
stress is read. A network trained on whole paths has never seen such histories. `continued` gives them to it: that
share of each batch is cut at random times and continued as on-line, and of these paths the stress at the cut counts.

Stress is the difference of the network at a history and at the history that stays at the identity, in training and
on-line, so that a virgin material is free of stress. Where the durations of the data differ, the network also takes the
logarithm of the duration, and the window of the exported law is chosen (`window`; the longest duration by default).

References:
    Eq. (25), (26) of doi:10.1016/j.jmps.2021.104668. Weights at the start: Klambauer, Unterthiner, Mayr and Hochreiter
    (2017), Self-normalizing neural networks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from micro.threads import small_batches
from surrogates import tensors
from surrogates.path.data import DATA, Samples, load_samples, mandel, material, matrices, moduli
from surrogates.path.errors import report
from surrogates.path.pca_law import PCALaw, Shifted, reach
from surrogates.path.trust import calibrate, training_states
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_network_size, check_rates, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record, write_trained_law
from surrogates.training.muon import Muon

GPA = 1e9


@dataclass(frozen=True)
class PCANetConfig:
    """Configuration of a PCA-Net; the defaults are the paper's, but for the deviator."""

    modes: int = option(100, "modes a component")
    width: int = option(1000, "width of the hidden layers")
    depth: int = option(4, "hidden layers")
    epochs: int = option(200, "epochs; the paper goes up to 1500")
    batch: int = option(16, "paths a batch")
    learning_rate: float = option(1e-4, "learning rate at the start")
    final_rate: float = option(1e-6, "learning rate at the end of the cosine")
    optimiser: Literal["adam", "muon"] = option("adam", "optimiser; muon wants a learning rate near 1e-2")
    seed: int = option(0, "seed of weights, order and rotations")
    stress: Literal["deviator", "full"] = option("deviator", "what the network learns")
    measure: Literal["stretch", "isochoric"] = option("stretch", "input of the network: U, or its isochoric part")
    augment: bool = option(False, "rotate paths at random in training")
    continued: float = option(0.0, "share of paths trained on as on-line: cut at random, continued")
    continuation: Literal["hold", "linear", "fading"] = option("linear", "how the history is continued", export=True)
    horizon: float = option(0.1, "time, over the window, in which a fading rate falls by e", export=True)
    window: float = option(0.0, "time window of the exported law, s; 0: the longest path", export=True)

    def __post_init__(self) -> None:
        """Check the fields."""
        check_integers(self, 1, "modes", "width", "depth", "epochs", "batch")
        check_rates(self)
        check_seed(self.seed)
        if not 0 <= self.continued <= 1:
            raise ValueError(f"continued must lie between 0 and 1, got {self.continued}.")
        if not 0 < self.horizon < math.inf:
            raise ValueError(f"horizon must be positive and finite, got {self.horizon}.")
        if not 0 <= self.window < math.inf:
            raise ValueError(f"window must be finite and not negative, got {self.window}.")
        if self.stress == "full" and self.measure == "isochoric":
            raise ValueError("stress full needs measure stretch: an isochoric history does not determine the pressure.")


def histories(samples: Samples, stress: str, measure: str) -> tuple[Tensor, Tensor]:
    """Input and output of the network: V = U - I and the stress in GPa, (s, T, 6) in Mandel form, float64."""
    U, sigma = mandel(samples.U), mandel(samples.stress) / GPA
    if stress == "deviator":
        sigma = tensors.deviator(sigma)
    if measure == "isochoric":
        J = tensors.determinant(matrices(samples.U).reshape(-1, 3, 3)).reshape(*U.shape[:2], 1)
        U, sigma = U * J ** (-1 / 3), sigma * J
    return U - torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=U.dtype), sigma


def cauchy(sigma: Tensor, samples: Samples, stress: str, measure: str) -> Tensor:
    """Cauchy stress (s, T, 6), Pa, from what the network gives, with the exact pressure where it gives the deviator."""
    if stress == "full":
        return sigma
    J = tensors.determinant(matrices(samples.U).reshape(-1, 3, 3)).reshape(*sigma.shape[:2], 1)
    sigma = tensors.deviator(sigma)
    if measure == "isochoric":
        sigma = sigma / J
    pressure = moduli(samples)[0] * (J - 1)
    return sigma + pressure * torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=sigma.dtype)


def horizon_of(continuation: str, horizon: float) -> float:
    """The horizon of a continuation as the law takes it: 0 holds the history, infinity continues it linearly."""
    return {"hold": 0.0, "linear": math.inf, "fading": horizon}[continuation]


def continued_history(V: Tensor, cut: Tensor, horizon: float) -> Tensor:
    """Histories V (s, T, 6) at evenly spaced times as the on-line law continues them from the times `cut` (s,) on."""
    T = V.shape[1]
    rows = torch.arange(len(V), device=V.device)
    last = V[rows, cut].unsqueeze(1)
    rate = (last - V[rows, (cut - 1).clamp(min=0)].unsqueeze(1)) * (T - 1)
    ahead = (torch.arange(T, device=V.device, dtype=V.dtype) - cut.unsqueeze(1)) / (T - 1)
    return torch.where((ahead > 0).unsqueeze(2), last + rate * reach(ahead, horizon).unsqueeze(2), V)


def principal_modes(history: Tensor, modes: int) -> Tensor:
    """Modes (T, 6, d) of histories (s, T, 6): for each component the leading right singular vectors, not centred."""
    columns = []
    for c in range(6):
        # The Gram matrix is T x T, small for any number of paths; its eigenvectors are the right singular vectors.
        gram = history[:, :, c].t() @ history[:, :, c]
        _, vectors = torch.linalg.eigh(gram)
        columns.append(vectors.flip(1)[:, :modes])
    return torch.stack(columns, dim=1)


def turns(n: int, generator: torch.Generator) -> Tensor:
    """Random rotations of Mandel vectors, (n, 6, 6), orthogonal."""
    q = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=1)
    Q = tensors.quaternion_rotations(q).reshape(n, 1, 3, 3)
    basis = tensors.to_matrix(torch.eye(6, dtype=torch.float64))
    turned = torch.matmul(torch.matmul(Q, basis), Q.transpose(2, 3))
    return tensors.to_vector(turned.reshape(-1, 3, 3)).reshape(n, 6, 6).transpose(1, 2).float()


class PCANet(torch.nn.Module):
    """Encoder, network and decoder. Histories are V = U - I (s, T, 6) and stress (s, T, 6) in Mandel form, GPa.

    Args:
        phi, psi: modes (T, 6, d) of the strain and of the stress.
        config: the configuration.
        log_spread, log_mean: of the logarithm of the duration; spread 0: one duration, which is no input.
        scales: root mean square of the codes of V and of the stress, which the network sees in these units.
    """

    def __init__(
        self,
        phi: Tensor,
        psi: Tensor,
        config: PCANetConfig,
        *,
        log_spread: float,
        log_mean: float,
        scales: tuple[float, float],
    ) -> None:
        super().__init__()
        modes = phi.shape[2]
        self.phi, self.psi = torch.nn.Buffer(phi.float()), torch.nn.Buffer(psi.float())
        self.log_spread, self.log_mean = log_spread, log_mean
        self.scales = scales
        sizes = [6 * modes + (log_spread > 0)] + [config.width] * config.depth
        self.layers = torch.nn.ModuleList([torch.nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)])
        self.output = torch.nn.Linear(config.width, 6 * modes, bias=False)
        for layer in self.layers:
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            torch.nn.init.normal_(layer.bias, std=0.1)
        torch.nn.init.normal_(self.output.weight, std=0.1 * config.width**-0.5)

    def encode(self, history: Tensor) -> Tensor:
        """Code (s, 6, d) of a history (s, T, 6)."""
        return encode(history, self.phi)

    def decode(self, code: Tensor) -> Tensor:
        """Stress history (s, T, 6) of a code (s, 6, d)."""
        return torch.bmm(code.transpose(0, 1), self.psi.permute(1, 2, 0)).permute(1, 2, 0)

    def hidden(self, code: Tensor, duration: Tensor) -> Tensor:
        """Last hidden layer (s, width) for codes (s, 6, d) of V and durations (s,)."""
        x = code.flatten(1) / self.scales[0]
        if self.log_spread > 0:
            x = torch.cat([x, (duration.log() - self.log_mean).unsqueeze(1) / self.log_spread], dim=1)
        for layer in self.layers:
            x = torch.selu(layer(x))
        return x

    def forward(self, code: Tensor, duration: Tensor) -> Tensor:
        """Code of the stress (s, 6, d) for the code of V = U - I (s, 6, d) and durations (s,)."""
        n = len(code) if self.log_spread > 0 else min(1, len(code))
        still = self.hidden(torch.zeros_like(code[:n]), duration[:n])
        return self.scales[1] * self.output(self.hidden(code, duration) - still).reshape_as(code)


def encode(history: Tensor, modes: Tensor) -> Tensor:
    """Code (s, 6, d) of a history (s, T, 6) in modes (T, 6, d)."""
    return torch.bmm(history.permute(2, 0, 1), modes.transpose(0, 1)).transpose(0, 1)


def spread_of(codes: Tensor) -> float:
    """Root mean square of codes, not zero."""
    return max(1e-12, float(codes.square().mean().sqrt()))


@small_batches()
def build(config: PCANetConfig, train: Samples) -> PCANet:
    """A network with the modes of the training paths and fresh weights.

    Raises:
        ValueError: the times are not evenly spaced or fewer than the modes.
    """
    T = train.U.shape[1]
    grid = torch.linspace(0, 1, T, dtype=torch.float64)
    if not torch.allclose(torch.from_numpy(train.time), grid.expand(len(train), T), atol=1e-9):
        raise ValueError("PCA-Net needs evenly spaced times, the data has others.")
    if config.modes > T:
        raise ValueError(f"modes must not exceed the {T} times of a path, got {config.modes}.")
    check_network_size(config.width * (12.0 * config.modes + (config.depth - 1) * config.width))
    V, sigma = histories(train, config.stress, config.measure)
    U = V + torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=V.dtype)
    phi, psi = principal_modes(U, config.modes), principal_modes(sigma, config.modes)
    logs = torch.from_numpy(train.duration).log()
    spread = float(logs.max() - logs.min())
    torch.manual_seed(config.seed)
    return PCANet(
        phi,
        psi,
        config,
        log_spread=spread / 4 if spread > 0.01 else 0.0,
        log_mean=float(logs.max() + logs.min()) / 2,
        scales=(spread_of(encode(V, phi)), spread_of(encode(sigma, psi))),
    )


@dataclass(frozen=True)
class Pairs:
    """Histories in codes, and what the loss needs besides.

    Attributes:
        strain: code of V (s, 6, d).
        stress: code of the stress (s, 6, d).
        duration: duration (s,), s.
        size: square of the norm of the stress history (s,).
        rest: square of the norm of its part outside the modes (s,).
    """

    strain: Tensor
    stress: Tensor
    duration: Tensor
    size: Tensor
    rest: Tensor

    def __getitem__(self, rows: Tensor) -> "Pairs":
        """The pairs of an index tensor."""
        return Pairs(self.strain[rows], self.stress[rows], self.duration[rows], self.size[rows], self.rest[rows])


def pair(model: PCANet, V: Tensor, sigma: Tensor, duration: Tensor) -> Pairs:
    """Encode histories V and sigma (s, T, 6)."""
    stress, size = encode(sigma, model.psi), sigma.square().sum(dim=(1, 2))
    return Pairs(model.encode(V), stress, duration, size, (size - stress.square().sum(dim=(1, 2))).clamp(min=0.0))


def relative_loss(found: Tensor, pairs: Pairs) -> Tensor:
    """Mean relative error of the stress that codes `found` (s, 6, d) decode to; the modes are orthonormal."""
    error = (found - pairs.stress).square().sum(dim=(1, 2)) + pairs.rest
    return (error / pairs.size).sqrt().mean()


def loss_now(model: PCANet, found: Tensor, sigma: Tensor, cut: Tensor) -> Tensor:
    """Mean error of the stress at the times `cut` (s,) alone, to which codes `found` (s, 6, d) decode.

    Relative to the root mean square of the path's stress sigma (s, T, 6) over time. On-line only the stress now is
    read from a continued history: what the network says of the times before has been read already, from shorter ones.
    """
    rows = torch.arange(len(cut), device=cut.device)
    error = ((found * model.psi[cut]).sum(dim=2) - sigma[rows, cut]).square().sum(dim=1)
    return (error / sigma.square().sum(dim=2).mean(dim=1)).sqrt().mean()


def losses(
    model: PCANet, V: Tensor, sigma: Tensor, known: Pairs, config: PCANetConfig, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """One epoch in random order: for each batch the number of its paths and its loss.

    Paths are encoded anew where each is turned at random. The share `continued` of a batch is cut at random times,
    and of these paths the loss is `loss_now`.
    """
    horizon = horizon_of(config.continuation, config.horizon)
    for rows in torch.randperm(len(V), generator=generator).split(config.batch):
        rows = rows.to(V.device)
        n, duration, some, stress = len(rows), known.duration[rows], V[rows], sigma[rows]
        if config.augment:
            turn = turns(n, generator).to(V.device).transpose(1, 2)
            some, stress = torch.bmm(some, turn), torch.bmm(stress, turn)
        m = round(config.continued * n)  # the first are cut, the others are not
        total = torch.zeros((), device=V.device)
        if m > 0:
            cut = torch.randint(1, V.shape[1], (m,), generator=generator).to(V.device)
            code = model.encode(continued_history(some[:m], cut, horizon))
            total = total + m * loss_now(model, model(code, duration[:m]), stress[:m], cut)
        if m < n:
            part = pair(model, some[m:], stress[m:], duration[m:]) if config.augment else known[rows[m:]]
            total = total + (n - m) * relative_loss(model(part.strain, part.duration), part)
        yield n, total / n


@small_batches()
def fit(
    model: PCANet,
    train: Samples,
    held_out: Samples,
    config: PCANetConfig,
    *,
    progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, float]:
    """Train; the state of the last epoch stays in `model`.

    Returns:
        The mean training loss of the last epoch, and the number of updates.
    """
    device = model.phi.device
    V, sigma = (x.float().to(device) for x in histories(train, config.stress, config.measure))
    known = pair(model, V, sigma, torch.from_numpy(train.duration).float().to(device))
    generator = torch.Generator().manual_seed(config.seed)
    rate = config.learning_rate
    optimiser: torch.optim.Optimizer = (
        Muon(model.parameters(), rate) if config.optimiser == "muon"
        else torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    )  # fmt: skip

    def epoch(number: int) -> dict[str, float]:
        total = 0.0
        for count, loss in losses(model, V, sigma, known, config, generator):
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.item() * count
        shown = {"train": total / len(V)}
        if progress and (number % 10 == 9 or number + 1 == config.epochs):
            shown["held out"] = evaluate(model, held_out, config, "whole")["deviatoric"]
        return shown

    loss = run_epochs(
        model, optimiser, config.epochs, epoch, final_rate=config.final_rate, checkpoint=checkpoint,
        progress=progress, generator=generator,
    )  # fmt: skip
    return {"training_loss": loss, "updates": config.epochs * math.ceil(len(V) / config.batch)}


def evaluate(model: PCANet, samples: Samples, config: PCANetConfig, continuation: str = "") -> dict[str, float]:
    """Errors on paths, each path's own duration being the window.

    Args:
        model: the network.
        samples: the paths.
        config: its configuration.
        continuation: "whole" gives the network the whole path, future included; "hold", "linear" and "fading" only
            the path so far at each time, as on-line; none for that of the configuration.
    """
    continuation = continuation or config.continuation
    device = model.phi.device
    V = histories(samples, config.stress, config.measure)[0].float().to(device)
    duration = torch.from_numpy(samples.duration).float().to(device)
    n, T = V.shape[:2]
    stress = torch.zeros(n, T, 6)
    with torch.no_grad():
        if continuation == "whole":
            stress = model.decode(model(model.encode(V), duration)).cpu()
        else:
            horizon = horizon_of(continuation, config.horizon)
            for k in range(1, T):
                past = continued_history(V, torch.full((n,), k, device=device), horizon)
                code = model(model.encode(past), duration)
                stress[:, k] = torch.einsum("scd,cd->sc", code, model.psi[k]).cpu()
    return report(cauchy(stress.double() * GPA, samples, config.stress, config.measure), samples)


def errors(model: PCANet, law: PCALaw, held_out: Samples, config: PCANetConfig) -> dict[str, float]:
    """Held-out errors: on-line, with the continuation exported, and of whole paths, off-line.

    On-line errors are those of the exported law driven along each path, with the path's duration as its window.
    """
    found = evaluate(model, held_out, config)
    whole = evaluate(model, held_out, config, "whole")
    return found | {"full_whole": whole["full"], "deviatoric_whole": whole["deviatoric"]}


def export(model: PCANet, train: Samples, config: PCANetConfig) -> PCALaw:
    """The on-line law of a trained network: the identity's code and the duration go into the first layer's base.

    Its novelty and expected error are calibrated on states along training paths.
    """
    window = config.window or float(train.duration.max())
    model = model.cpu()
    single = model.output.weight.dtype
    hidden = []
    with torch.no_grad():
        x = torch.zeros(1, 6 * config.modes, dtype=torch.float64)
        if model.log_spread > 0:
            log = (torch.tensor(window, dtype=torch.float64).log() - model.log_mean) / model.log_spread
            x = torch.cat([x, log.reshape(1, 1)], dim=1)
        for k, layer in enumerate(model.layers):
            base = x @ layer.weight.double().t() + layer.bias.double()
            weight = layer.weight[:, : 6 * config.modes] / model.scales[0] if k == 0 else layer.weight
            hidden.append(Shifted(weight.detach().clone(), base.to(single)))
            x = torch.selu(base)
    V = histories(train, config.stress, config.measure)[0]
    law = PCALaw(
        model.phi.detach(),
        model.psi.detach(),
        hidden,
        model.scales[1] * model.output.weight.detach(),
        window=window,
        stress_scale=GPA,
        bulk=moduli(train)[0],
        strain_max=float(V.norm(dim=-1).max()),
        horizon=horizon_of(config.continuation, config.horizon),
        isochoric_measure=config.measure == "isochoric",
        full_stress=config.stress == "full",
    ).eval()
    states, found = training_states(law, [train])
    with torch.no_grad():
        directions = torch.linalg.svd(states[:, : law.width], full_matrices=False)[2]
        law.projection.copy_(directions[: law.projection.shape[1]].T)
        calibrate(law.trust, law.features(states), found)
    return law


def write(output: Path, law: PCALaw, train: Samples, config: PCANetConfig, record: Record) -> dict[str, Any]:
    """Write the law as an artifact."""
    return write_trained_law(output, law, train, material(train), record)


Config, SUFFIX, load = PCANetConfig, ".pt", load_samples
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
