"""The learning study of paper 1: data sets by protocol, trained networks that are kept, their errors and properties.

Shared by `table1.py` and its pictures. A set is named as in `make_sets.py`; protocols have the letters of table 1.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.crystal.taylor import TaylorPolycrystal
from micro.data.files import write_whole
from surrogates import tensors
from surrogates.path import errors, pca_net
from surrogates.path.data import Samples, load_samples, mandel
from surrogates.path.pca_net import GPA, PCANet, PCANetConfig, cauchy, encode, histories
from surrogates.path.properties import (
    acausality,
    anisotropy,
    diverging,
    held_ramps,
    resampled,
    tensile,
    turned_tension,
)
from surrogates.training.checkpoint import Checkpoint

#: Sets of the protocols of table 1: random and fixed intervals, uniaxial, loading and unloading, cavity; random
#: intervals in a larger set, and with the rate exponent 5. In 2-D the same in one periodic cell of 16 x 16 points, and
#: 2D-64, random intervals in cells of 64 x 64 points, one for each path.
PROTOCOLS = {
    "R": "taylor-{}", "F": "taylor-{}-fixed", "U": "taylor-{}-uniaxial", "L-U": "taylor-{}-load-unload",
    "C": "taylor-{}-cavity", "R+": "taylor-{}-large", "m5": "taylor-{}-exponent-5",
    "2D-R": "cell-{}-coarse", "2D-F": "cell-{}-coarse-fixed", "2D-U": "cell-{}-coarse-uniaxial",
    "2D-L-U": "cell-{}-coarse-load-unload", "2D-C": "cell-{}-coarse-cavity", "2D-m5": "cell-{}-coarse-exponent-5",
    "2D-64": "cell-{}",
}  # fmt: skip
#: Sets that networks are trained on; a fifth of their paths is held out.
TRAINED = ("R", "F", "R+", "m5", "2D-R", "2D-F", "2D-L-U", "2D-m5", "2D-64")
#: Sets whose material or cell is no other set's.
ALONE = ("m5", "2D-m5", "2D-64")
#: What is learned: fields of the configuration.
ROUTES: dict[str, dict[str, Any]] = {
    "paper": {"stress": "full", "measure": "stretch", "augment": False},
    "turned": {"stress": "full", "measure": "stretch", "augment": True},
    "isochoric": {"stress": "deviator", "measure": "isochoric", "augment": True},
}
SETS = Path(__file__).with_name("sets")
ONLINE = 100  # test paths that are followed on-line, which costs 200 evaluations each
STRIDES = (1, 2, 4, 8, 20)
PARTING = 5  # histories of figure 2
INSTANTS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the held ramps of figure 2(b)


@dataclass(frozen=True)
class Network:
    """What one network is trained on, and its size."""

    strain: int  # per cent
    protocol: str
    paths: int
    modes: int
    width: int
    route: str
    steps: int  # updates asked for; whole epochs are trained


def named(network: Network) -> str:
    """A short name, also of the file."""
    n = network
    return f"{n.strain}-{n.protocol}-{n.paths}-{n.modes}-{n.width}-{n.route}-{n.steps}"


def set_name(protocol: str, strain: int) -> str:
    """The folder of a protocol at a strain in per cent."""
    return PROTOCOLS[protocol].format(strain)


def alike(one: str, other: str) -> bool:
    """Whether two protocols are of the same material."""
    if one in ALONE or other in ALONE:
        return one == other
    return one.startswith("2D") == other.startswith("2D")


def operations(network: Network, depth: int) -> tuple[int, int]:
    """Weights of a network, and multiplications and additions of one on-line evaluation at a point.

    On-line the first layer absorbs the encoder: of it, the products of the six strains and of their six rates remain.
    Only one row of the decoder is needed, which the output layer absorbs: six rows instead of six times the modes.
    """
    m, w = 6 * network.modes, network.width
    weights = m * w + (depth - 1) * w * w + depth * w + w * m
    return weights, 2 * (12 * w + (depth - 1) * w * w + 6 * w)


class Study:
    """Sets, networks and their errors; everything that was computed is kept in the folder of the results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, Path(options.output) / "networks"
        self.missing: list[str] = []
        self.sets: dict[tuple[str, int], tuple[Samples, Samples]] = {}
        for strain in options.strains:
            for protocol in PROTOCOLS:
                self._load(protocol, strain)
        if not self.sets:
            raise ValueError(f"--data must be a folder with sets of make_sets.py, got {options.data}.")

    def _load(self, protocol: str, strain: int) -> None:
        path = self.options.data / set_name(protocol, strain)
        if not (path / "dataset.json").is_file():
            if (SETS / f"{path.name}.toml").is_file():
                self.missing.append(path.name)
            return
        partial = self.options.allow_partial
        count = sum(len(part) for part in load_samples([path], 1, allow_partial=partial))
        held = min(self.options.tests, count // 5) if protocol in TRAINED else count - 1
        self.sets[protocol, strain] = load_samples([path], max(1, held), allow_partial=partial)

    def tests(self, protocol: str, strain: int) -> Samples:
        """Test paths of a protocol."""
        return self.sets[protocol, strain][1][: self.options.tests]

    def protocols(self, network: Network) -> list[str]:
        """The protocols that a network can be tested on: of its strain and material."""
        strain, own = network.strain, network.protocol
        found = [p for p in PROTOCOLS if (p, strain) in self.sets and alike(p, own)]
        return [p for p in found if p != "R+" or own == "R+"]

    def config(self, network: Network, paths: int) -> PCANetConfig:
        """The configuration of a network."""
        o = self.options
        epochs = ceil(network.steps / ceil(paths / o.batch))
        return PCANetConfig(
            modes=network.modes, width=network.width, epochs=epochs, batch=o.batch, learning_rate=o.rate,
            final_rate=o.rate / 100, optimiser=o.optimiser, **ROUTES[network.route],
        )  # fmt: skip

    def result(self, network: Network) -> tuple[dict[str, Any], tuple[PCANet, PCANetConfig]] | None:
        """Train a network, or take it up where it stopped, and measure its errors; None where its set is missing.

        Returns:
            Its numbers; the model and its configuration.
        """
        if (network.protocol, network.strain) not in self.sets:
            return None
        train = self.sets[network.protocol, network.strain][0][: network.paths]
        config = self.config(network, len(train))
        content = json.dumps([asdict(config), train.hash, len(train)])
        key = hashlib.sha256(content.encode()).hexdigest()
        files = [self.folder / f"{named(network)}-{key[:8]}{suffix}" for suffix in (".ckpt", ".json")]
        done = files[1].is_file()
        if not done and self.options.stop:
            return None
        checkpoint = Checkpoint(files[0], max(1, config.epochs // 10), files[0].is_file(), key)
        stored = checkpoint.load() if checkpoint.resume else None
        before = int(stored["epoch"]) if stored else 0
        model = pca_net.build(config, train)
        start = time.process_time()
        fitted = pca_net.fit(model, train, train[:1], config, checkpoint=checkpoint)
        spent = time.process_time() - start
        if done:
            found = json.loads(files[1].read_text())
            if set(found["tests"]) == set(self.protocols(network)):
                return found, (model, config)
        else:
            minutes = spent / 60 * config.epochs / max(1, config.epochs - before)
            found = {"key": key, **asdict(network), "config": asdict(config), "minutes": minutes, **fitted}
        found |= self.measure(network, model, config, train)
        write_whole(files[1], json.dumps(found, indent=1) + "\n")
        return found, (model, config)

    def measure(self, network: Network, model: PCANet, config: PCANetConfig, train: Samples) -> dict[str, Any]:
        """Errors of a network on its training paths and on all test protocols of its strain."""
        weights, count = operations(network, config.depth)
        tests = {}
        for protocol in self.protocols(network):
            held = self.tests(protocol, network.strain)
            tests[protocol] = {
                **pca_net.evaluate(model, held, config, "whole"), **self.mode_errors(model, held, config),
                "paths": len(held),
            }  # fmt: skip
            assert tests[protocol]["full"] >= 0.99 * tests[protocol]["best"]
        own = self.tests(network.protocol, network.strain)[:ONLINE]
        online = pca_net.evaluate(model, own, config)
        tests[network.protocol] |= {f"{key}_online": online[key] for key in ("full", "deviatoric")}
        some = train[: self.options.tests]
        training = pca_net.evaluate(model, some, config, "whole")
        return {
            "paths": len(train), "training": training, "tests": tests, "weights": weights, "operations": count,
        }  # fmt: skip

    def mode_errors(self, model: PCANet, samples: Samples, config: PCANetConfig) -> dict[str, float]:
        """Mean relative errors of the modes: of U, of U - I, of what the network gives, and of the full stress."""
        V, sigma = histories(samples, config.stress, config.measure)
        U = V + torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=V.dtype)
        kept = [back(x, modes.double()) for x, modes in ((U, model.phi), (V, model.phi), (sigma, model.psi))]
        mean = [float(errors.relative_errors(y, x).mean()) for y, x in zip(kept, (U, V, sigma), strict=True)]
        best = errors.report(cauchy(kept[2] * GPA, samples, config.stress, config.measure), samples)["full"]
        return {"input": mean[0], "input_strain": mean[1], "output": mean[2], "best": best}

    def predict(self, model: PCANet, config: PCANetConfig, U: np.ndarray, duration: float) -> Tensor:
        """Cauchy stress (s, T, 6), Pa, that a network gives for histories of U (s, T, 6), all of them known."""
        samples = self.paths(U, duration)
        V = histories(samples, config.stress, config.measure)[0].float()
        with torch.no_grad():
            code = model(model.encode(V), torch.from_numpy(samples.duration).float())
            stress = torch.einsum("scd,tcd->stc", code, model.psi).double() * GPA
        return cauchy(stress, samples, config.stress, config.measure)

    def paths(self, U: np.ndarray, duration: float) -> Samples:
        """Histories without a stress, of the material of the sets."""
        any_set = next(iter(self.sets.values()))[0]
        time_ = np.tile(np.linspace(0, 1, U.shape[1]), (len(U), 1))
        J = np.linalg.det(tensors.from_components(U))[..., None]
        bulk = pca_net.moduli(any_set)[0]
        stress = bulk * (J - 1) * np.array([1.0, 1, 1, 0, 0, 0])
        return Samples(U, stress, np.full(len(U), duration), time_, np.arange(len(U)), meta=any_set.meta)

    def properties(self, models: dict[str, Any], strain: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Causality and isotropy of the polycrystal and of the networks trained on random intervals at a strain.

        Returns:
            The numbers by law, and the curves of the pictures.
        """
        held = self.tests("R", strain)
        duration, times = float(held.duration[0]), held.U.shape[1]
        half, size = (times - 1) // 2, strain / 100
        part = diverging(held.U[: 4 * PARTING], half)[:PARTING]
        instants = [round(t * (times - 1)) for t in INSTANTS]
        angles = np.deg2rad(np.arange(0, 361, 30))
        cases = {
            "part": (part, [half] * len(part)), "held": (held_ramps(size, instants, times), instants),
            "turned": (turned_tension(angles, size, times), []),
        }  # fmt: skip
        laws: dict[str, Callable[[np.ndarray], Tensor]] = {"polycrystal": lambda U: polycrystal(U, duration)}
        for name, (model, config) in models.items():
            if name.startswith(f"{strain}-R-"):
                laws[name] = lambda U, m=model, c=config: self.predict(m, c, U, duration)
        rows: dict[str, Any] = {}
        curves: dict[str, Any] = {"cases": cases, "angles": angles}
        for name, law in laws.items():
            rows[name], curves[name] = {}, {}
            for case, (U, ends) in cases.items():
                full = law(U)
                curves[name][case] = full
                for suffix, stress in (("", full), ("_deviator", tensors.deviator(full))):
                    value = acausality(stress, ends) if ends else anisotropy(tensile(stress, angles))
                    rows[name][case + suffix] = value
        assert max(rows["polycrystal"][case] for case in ("part", "held")) < 1e-6
        return rows, curves

    def resolution(self, models: dict[str, Any], strain: int) -> dict[str, dict[str, float]]:
        """Full-stress error of each network on test paths known at fewer times, by number of steps (figure 1(d))."""
        held = self.tests("R", strain)[:200]
        steps, duration = held.U.shape[1] - 1, float(held.duration[0])
        found: dict[str, dict[str, float]] = {}
        for name, (model, config) in models.items():
            if not name.startswith(f"{strain}-R-"):
                continue
            found[name] = {}
            for stride in (s for s in STRIDES if steps % s == 0):
                stress = self.predict(model, config, resampled(held.U, stride), duration)
                error = errors.relative_errors(stress[:, ::stride], mandel(held.stress)[:, ::stride])
                found[name][str(steps // stride)] = float(error.mean())
        return found


def back(history: Tensor, modes: Tensor) -> Tensor:
    """The part of histories (s, T, 6) that modes (T, 6, d) keep."""
    return torch.einsum("scd,tcd->stc", encode(history, modes), modes)


def polycrystal(U: np.ndarray, duration: float) -> Tensor:
    """Cauchy stress (s, T, 6), Pa, of the polycrystal that the sets were made with, its 128 random grains."""
    instants = torch.linspace(0.0, duration, U.shape[1], dtype=torch.float64).expand(len(U), -1)
    result = TaylorPolycrystal(128, seed=0).solve(torch.from_numpy(U), instants)
    if not bool(result.ok.all()):
        raise RuntimeError(f"The polycrystal could not be solved: {next(text for text in result.reason if text)}.")
    return mandel(result.stress.numpy())
