"""Source of paper 2's data: random strain paths of a lattice cell and its response.

References:
    Masi and Stefanou (2022), section IV.A, doi:10.1016/j.cma.2022.115190.
"""

import argparse
import math
from typing import Any

import numpy as np
import torch

from micro.data.cli import as_range, check_between, check_count, check_memory
from micro.data.source import Block, Field, Source
from micro.lattice.bars import LAWS, IsotropicBar, KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import lattice_parameters
from micro.lattice.geometry import make_cell
from micro.tensors import ORDERS, from_components, to_components


def strain_walk(
    sample: int, seed: int, *, components: int, steps: int, increment: tuple[float, float], zero: float
) -> np.ndarray:
    """Return the random strain path of a sample, which has a random stream of its own (Philox).

    Args:
        sample: Number of the sample, the counter of the stream.
        seed: Seed of the data set, its key.
        components: Independent components c of the strain.
        steps: Number of increments.
        increment: Range from which the size a of a path is drawn evenly in the logarithm; each component of each
            increment is uniform in [-a, a].
        zero: Probability that an increment is zero in all components.

    Returns:
        Strain (steps + 1, c), zero at first.
    """
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, sample]))
    size = np.exp(rng.uniform(*np.log(increment)))
    dE = rng.uniform(-size, size, size=(steps, components))
    dE[rng.uniform(size=steps) < zero] = 0.0
    return np.vstack([np.zeros(components), np.cumsum(dE, axis=0)])


class LatticeSource(Source):
    """Random walks of the average strain of a lattice cell, solved with its auxiliary problem.

    Args:
        seed: Seed of the paths.
        cell: Name of the cell, see `micro.lattice.make_cell`.
        perturbation: Standard deviation of the nodes' displacements.
        cell_seed: Its seed.
        bar: Law of the bars.
        steps: Increments per path.
        increment: Range of the size of a path's increments.
        zero: Probability of a zero increment.
        device: Torch device.
        threads: Torch threads.

    Raises:
        ValueError: An argument is out of its range.
    """

    name = "lattice"

    def __init__(
        self,
        seed: int,
        *,
        cell: str,
        perturbation: float,
        cell_seed: int,
        bar: KinematicBar | IsotropicBar,
        steps: int,
        increment: tuple[float, float],
        zero: float,
        device: str,
        threads: int,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        if not 0 <= zero <= 1:
            raise ValueError(f"zero must lie between 0 and 1, got {zero}.")
        torch.set_num_threads(threads)
        self.seed = seed
        self.lattice = LatticeCell(make_cell(cell, perturbation=perturbation, seed=cell_seed), bar, device)
        shape = self.lattice.cell
        (m, d), b = shape.nodes.shape, len(shape.bars)
        self.order = ORDERS[d]
        self.walk: dict[str, Any] = {
            "components": len(self.order.pairs),
            "steps": steps,
            "increment": increment,
            "zero": zero,
        }
        self.parameters = {
            **lattice_parameters(shape, bar, perturbation=perturbation, seed=cell_seed),
            "steps": steps,
            "increment": list(increment),
            "zero": zero,
        }
        self.tolerances = {"newton": self.lattice.tolerance, "iterations": self.lattice.iterations}
        names, components, time = self.order.names, len(self.order.pairs), (steps + 1,)
        self.fields = {
            "strain": Field("1", (*time, components), f"time, component {names} of the average strain"),
            "stress": Field("Pa", (*time, components), f"time, component {names} of the average stress"),
            "psi": Field("J/m^3", time, "time; free energy per volume of the cell"),
            "dissipation": Field("J/m^3", time, "time; dissipated since the time before per volume of the cell"),
            "displacement": Field("m", (*time, m * d), "time, node and direction (directions run fastest)"),
            "force": Field("N", (*time, b), "time, bar; force of the whole bar"),
            "alpha": Field("1", (*time, b), "time, bar; plastic strain"),
        }
        if bar.state_size > 1:
            self.fields["p"] = Field("1", (*time, b), "time, bar; accumulated plastic strain")

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of cell, bars and paths."""
        add = parser.add_argument
        parser.set_defaults(block=64)
        add("--cell", default="square-2", metavar="NAME", help="square-k or cube-k, k units per side")
        add("--perturbation", default=0.0, type=float, metavar="X", help="standard deviation of the nodes, in units")
        add("--cell-seed", default=0, type=int, metavar="S", help="seed of the perturbation")
        add("--bar", default="kinematic", choices=tuple(LAWS), help="hardening of the bars")
        add("--modulus", default=KinematicBar.modulus, type=float, metavar="X", help="Young's modulus E, Pa")
        add("--hardening", default=KinematicBar.hardening, type=float, metavar="X", help="hardening modulus H, Pa")
        add("--strength", default=KinematicBar.strength, type=float, metavar="X", help="yield strength k, Pa")
        add("--steps", default=50, type=int, metavar="N", help="increments per path")
        add("--increment", default=[0.1], type=float, nargs="+", metavar="X", help="largest increment, or its range")
        add("--zero", default=0.2, type=float, metavar="X", help="probability of a zero increment")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "LatticeSource":
        """Make the source from parsed options."""
        if not math.isfinite(arguments.perturbation):
            raise ValueError(f"perturbation must be finite, got {arguments.perturbation}.")
        check_count("steps", arguments.steps)
        for name in ("modulus", "hardening", "strength"):
            check_between(name, getattr(arguments, name), 1e-30, 1e30)
        for increment in as_range("increment", arguments.increment):
            check_between("increment", increment, 1e-12, 1e6)
        source = cls(
            arguments.seed,
            cell=arguments.cell,
            perturbation=arguments.perturbation,
            cell_seed=arguments.cell_seed,
            bar=LAWS[arguments.bar](arguments.modulus, arguments.hardening, arguments.strength),
            steps=arguments.steps,
            increment=as_range("increment", arguments.increment),
            zero=arguments.zero,
            device=arguments.device,
            threads=arguments.threads,
        )
        numbers = sum(math.prod(field.shape) for field in source.fields.values())
        unknowns = source.lattice.cell.nodes.size
        check_memory(
            f"blocks of {arguments.block} samples of {arguments.steps} steps",
            min(arguments.block, arguments.samples) * (24 * numbers + 32 * unknowns**2),
            arguments.device,
        )
        return source

    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block; see `fields` for the arrays."""
        strain = np.stack([strain_walk(int(sample), self.seed, **self.walk) for sample in ids])
        with torch.no_grad():
            history = self.lattice.solve(torch.from_numpy(from_components(strain, self.order)))
        arrays = {
            "strain": strain,
            "stress": to_components(history.stress, self.order).cpu().numpy(),
            "psi": history.psi.cpu().numpy(),
            "dissipation": history.dissipation.cpu().numpy(),
            "displacement": history.displacement.flatten(2).cpu().numpy(),
            "force": history.force.cpu().numpy(),
        }
        for column, name in enumerate(("alpha", "p")[: self.lattice.bar.state_size]):
            arrays[name] = history.bar[..., column].cpu().numpy()
        return Block(arrays, history.reason)
