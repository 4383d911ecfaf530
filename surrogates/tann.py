"""TANN: thermodynamics-based network of a lattice, with internal variables that it finds or that are given.

Free energy and dissipation potential are those of `surrogates.tann_law`; encoder and decoder are one set of weights:
the decoder is linear, and the encoder is its exact inverse on what it can show (the pseudo-inverse, which is the
transpose where the columns are orthonormal). Linear is enough: with linear elastic bars the plastic strains are linear
in displacements and forces. First numbers come from `surrogates.identify`; then follow the paper's two trainings, by
Algorithm 1 with the encoder in the loop, and by Algorithm 2 on the variables that the frozen encoder finds. Of all
epochs the numbers that do best on held-out steps are kept, those of the beginning among them.

References:
    Masi and Stefanou (2022), section III, Eqs. (11) to (13), Algorithms 1 and 2, doi:10.1016/j.cma.2022.115190.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from micro.condensed import condense
from micro.lattice_parameters import lattice_of
from surrogates.checkpoint import Checkpoint
from surrogates.epochs import run_epochs
from surrogates.export import Material
from surrogates.flow import moved
from surrogates.identify import Numbers, discover, given, identify
from surrogates.lattice_law import coordinate_names, lattice_material
from surrogates.merge import merge
from surrogates.tann_errors import recall_errors
from surrogates.tann_law import TannLaw
from surrogates.walks import Walks, load_walks


@dataclass(frozen=True)
class TannConfig:
    """Configuration of a TANN and its training."""

    variables: int = 0  # internal variables; 0 for all that the internal coordinates show
    internal: Literal["discovered", "given"] = "discovered"  # given: the plastic strains of the bars, the older form
    epochs: int = 10  # of the first training, Algorithm 1
    tuning: int = 10  # of the second training, Algorithm 2
    batch: int = 256
    learning_rate: float = 1e-4
    final_rate: float = 1e-6
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can use."""
        for name in ("variables", "epochs", "tuning"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}.")


class Tann(torch.nn.Module):
    """A TANN under training: the numbers of its law, kept such that energy and thresholds stay positive.

    Args:
        numbers: first numbers.
        size: sizes of the internal coordinates (x,), by which they are divided.
        hardens: whether isotropic hardening is learned.
    """

    size: Tensor
    best: Tensor
    best_loss: Tensor
    best_epoch: Tensor

    def __init__(self, numbers: Numbers, size: Tensor, hardens: bool) -> None:
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
        # What did best on held-out steps so far, and at which epoch: kept with the weights, so that it resumes.
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

    def numbers(self) -> Numbers:
        """The numbers now."""
        lower = torch.tril(self.factor)
        joint, h = lower @ lower.T, self.root_h**2
        c = self.c
        C, G, K = joint[:c, :c], joint[:c, c:], joint[c:, c:] - torch.diag(h)
        return Numbers(C, G, K, self.log_k.exp(), h, self.decode_E, self.decode_Z)

    def encode(self, xi: Tensor, E: Tensor) -> Tensor:
        """Internal variables (..., N) of internal coordinates (..., x) at the strain (..., c): the tied encoder."""
        return (xi - E @ self.decode_E.T) @ torch.linalg.pinv(self.decode_Z).T

    def decode(self, Z: Tensor, E: Tensor) -> Tensor:
        """Internal coordinates (..., x) of internal variables at a strain."""
        return E @ self.decode_E.T + Z @ self.decode_Z.T

    def step(self, E: Tensor, Z: Tensor, p: Tensor) -> dict[str, Tensor]:
        """One step of Algorithm 2 from Z (n, N) to the strain E (n, c), p the path of Z so far; differentiable."""
        numbers = self.numbers()
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

    def law(self, coordinates: tuple[str, ...] = ()) -> TannLaw:
        """The law of the numbers now; with names of the internal coordinates, with the decoder."""
        numbers = self.numbers()
        decoder = {}
        if coordinates:
            decoder = {
                "decode_E": self.size[:, None] * numbers.decode_E, "decode_Z": self.size[:, None] * numbers.decode_Z
            }  # fmt: skip
        h = numbers.h if self.hardens else None
        parts = {"C": numbers.C, "G": numbers.G, "K": numbers.K, "k": numbers.k}
        detached = {name: value.detach() for name, value in {**parts, **decoder}.items()}
        return TannLaw(**detached, h=None if h is None else h.detach(), coordinates=coordinates)


def coordinates_of(walks: Walks) -> tuple[Tensor, Tensor]:
    """Internal coordinates (s, T, x), forces before displacements, and their sizes (x,), one for each kind."""
    parts = (walks.force, walks.displacement)
    size = torch.cat([part.new_full((part.shape[-1],), float(part.std())) for part in parts])
    return torch.cat(parts, dim=-1), size


def build(config: TannConfig, train: Walks) -> Tann:
    """The first numbers, identified on the training walks; fewer variables than there are by merging the most alike."""
    xi, size = coordinates_of(train)
    xi = xi / size
    if config.internal == "given":
        variables = given(train.strain, xi, train.alpha)
    else:
        variables = discover(train.strain, xi, train.dissipation)
    hardens = train.lattice["bar"]["name"] == "isotropic"
    numbers = identify(train.strain, train.stress, train.dissipation, variables, hardens=hardens)
    found = numbers.G.shape[1]
    if config.variables > found:
        raise ValueError(f"variables must be at most the {found} that the walks show, got {config.variables}.")
    if 0 < config.variables < found:
        numbers = merge(numbers, config.variables, config.seed)
    return Tann(numbers, size, hardens)


def fit(
    model: Tann, train: Walks, held_out: Walks, config: TannConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Both trainings; the best numbers on held-out steps stay in `model`.

    Returns:
        The number of internal variables and, for each training, the held-out loss (Eqs. 13 and 12, each term relative
        to its mean size) of its first and its best numbers, and the epoch of the best; the lattice learned.
    """
    found: dict[str, Any] = {"variables": model.factor.shape[0] - model.c, "lattice": train.lattice}
    for stage, epochs in ((1, config.epochs), (2, config.tuning)):
        model.decode_E.requires_grad_(stage == 1)  # the second training knows the variables: the encoder is frozen
        model.decode_Z.requires_grad_(stage == 1)
        steps, tests = Steps(train, model), Steps(held_out, model)
        rows = torch.arange(len(tests), device=model.size.device)[:: max(1, len(tests) // 4000)]
        generator = torch.Generator().manual_seed(config.seed + stage)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.NAdam(trained, lr=config.learning_rate)
        with torch.no_grad():
            first = float(steps_loss(model, tests, rows, stage))
        model.best_loss = torch.full_like(model.best_loss, float("inf"))
        model.consider(first, 0)

        def epoch(
            number: int, steps: Steps = steps, tests: Steps = tests, stage: int = stage, rows: Tensor = rows,
            generator: torch.Generator = generator, optimiser: torch.optim.Optimizer = optimiser,
        ) -> dict[str, float]:  # fmt: skip
            total = 0.0
            for part in torch.randperm(len(steps), generator=generator).split(config.batch):
                loss = steps_loss(model, steps, part.to(rows.device), stage)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                total += loss.item() * len(part)
            with torch.no_grad():
                tested = float(steps_loss(model, tests, rows, stage))
            model.consider(tested, number + 1)
            return {"train": total / len(steps), "held out": tested}

        run_epochs(
            model, optimiser, epochs, epoch, final_rate=config.final_rate, checkpoint=checkpoint, progress=progress,
            generator=generator, stage=stage,
        )  # fmt: skip
        torch.nn.utils.vector_to_parameters(model.best.clone(), model.parameters())
        found |= {
            f"loss_first_{stage}": first, f"loss_{stage}": float(model.best_loss),
            f"epoch_{stage}": float(model.best_epoch),
        }  # fmt: skip
    return found


class Steps:
    """All steps of some walks, as pairs of states: histories are not needed, for Z holds them (section IV.A).

    Args:
        walks: the walks.
        model: finds the internal variables and, for isotropic hardening, their paths; on its device.
    """

    def __init__(self, walks: Walks, model: Tann) -> None:
        device = model.size.device
        xi = (coordinates_of(walks)[0].to(device) / model.size).detach()
        E = walks.strain.to(device)
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
        self.stress, self.psi, self.dissipation = new(walks.stress), new(walks.psi), new(walks.dissipation)

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.E)


def steps_loss(model: Tann, steps: Steps, rows: Tensor, stage: int) -> Tensor:
    """Eq. (13) in the first training, Eq. (12) in the second; mean absolute errors, Eq. (11), relative to their sizes.

    The derivative of decoder by encoder cannot be the identity where there are fewer variables than coordinates: it is
    asked for along the steps alone.
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


def export(model: Tann, train: Walks, config: TannConfig) -> TannLaw:
    """The law of the trained numbers, with the decoder."""
    return model.law(coordinate_names(lattice_of(train.lattice)[0])).cpu()


load = load_walks


def material(train: Walks) -> Material:
    """What the manifest says of the lattice: a lattice has no density, 1 kg/m^3 stands for it."""
    return lattice_material(condense(*lattice_of(train.lattice)).C, float(train.strain.norm(dim=-1).max()))


def errors(model: Tann, law: Any, held_out: Walks, config: TannConfig) -> dict[str, float]:
    """Errors of the law in recall along held-out walks and loads of other kinds; see `surrogates.tann_errors`."""
    return recall_errors(law, held_out)
