"""A network for voxel cells: its configuration, its file, and its answers in parts that fit the memory.

The file holds the weights, what shapes the network, and a manifest (data, command, seed, errors held out), which also
stands beside it as JSON.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from surrogates.cells.energy import CellEnergy
from surrogates.cells.networks.multiscale import MultiscaleNetwork
from surrogates.cells.networks.paper import PaperNetwork, TensorNetwork
from surrogates.training.output_file import whole_file

#: The network that comes with the package.
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "voxels_multiscale.pt"
FORMAT = "anvilx voxel network 1"
#: Voxels that a network is given at a time.
VOXELS = 1 << 20


@dataclass(frozen=True)
class Shape:
    """What shapes a network.

    Attributes:
        network: Which one.
        width: Vector fields of the multiscale network's finest grid.
        features: Numbers of a voxel from which its gates are read.
        steps: Its steps.
        side: Voxels a side, of the tensor network only.
    """

    network: Literal["multiscale", "paper", "tensor"] = "multiscale"
    width: int = 4
    features: int = 12
    steps: int = 3
    side: int = 0


@dataclass(frozen=True)
class CellNetwork:
    """A network as read from its file.

    Attributes:
        module: Maps a `CellEnergy` to fluctuations, or to tensors if it is a tensor network.
        manifest: What it was trained on, and its errors.
    """

    module: torch.nn.Module
    manifest: dict[str, Any]


def make_network(shape: Shape, seed: int = 0) -> torch.nn.Module:
    """Return a network with its first weights."""
    if shape.network == "multiscale":
        return MultiscaleNetwork(shape.width, shape.features, shape.steps, seed)
    return PaperNetwork(seed) if shape.network == "paper" else TensorNetwork(shape.side, seed)


def save_network(path: Path, module: torch.nn.Module, manifest: dict[str, Any]) -> None:
    """Write weights and manifest, whose entry `shape` is that of the network, and the manifest beside.

    Each file is written whole or not at all: a run that fails leaves an earlier network as it was.
    """
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    with whole_file(path) as part:
        torch.save({"format": FORMAT, "manifest": text, "weights": weights}, part)
    with whole_file(path.with_suffix(".json")) as part:
        part.write_text(text)


def load_network(path: str | Path = PRETRAINED, device: str = "cpu") -> CellNetwork:
    """Read a network.

    Raises:
        ValueError: The file is missing or is none of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not there.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found = stored["format"]
        if found == FORMAT:
            manifest = json.loads(stored["manifest"])
            module = make_network(Shape(**manifest["shape"]))
            module.load_state_dict(stored["weights"])
    except Exception as error:  # torch.load raises whatever its zip and pickle readers do
        raise ValueError(f"{path} is not a voxel network, or it is truncated.") from error
    if found != FORMAT:  # of another version perhaps, whose weights would not fit
        raise ValueError(f"{path}: format must be {FORMAT!r}, got {found!r}.")
    return CellNetwork(module.to(device).eval(), manifest)


def predict_steps(
    module: torch.nn.Module, density: Tensor, steps: Sequence[int | None]
) -> tuple[list[Tensor], Tensor | None]:
    """Return the tensors (cells, 6, 6) after each of some steps, in one run, and the fluctuations after the last.

    Args:
        module: The network.
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 to 1.
        steps: Of a multiscale network, in rising order; None is its own number. Other networks have but one answer.
    """
    tensors: list[list[Tensor]] = [[] for _ in steps]
    fields = []
    many = max(1, VOXELS // int(np.prod(density.shape[1:])))
    with torch.no_grad():
        for part in density.split(many):
            cells = CellEnergy(part)
            if isinstance(module, TensorNetwork):
                tensors[-1].append(module(cells).double())
                continue
            if isinstance(module, MultiscaleNetwork):
                sequence = module.sequence(cells, steps[-1])
            else:
                sequence = [module(cells)]
            for found, k in zip(tensors, steps):
                found.append(cells.certified(sequence[-1 if k is None else k - 1]))
            fields.append(sequence[-1])
    return [torch.cat(found) for found in tensors], torch.cat(fields) if fields else None


def predict(module: torch.nn.Module, density: Tensor, *, steps: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Return tensors (cells, 6, 6), float64, and fluctuations (cells, 6, 3, X, Y, Z), float32, in voxels.

    The tensors of networks that give fields are upper bounds of the elements', Eq. (25); a tensor network gives no
    fields, and no bound.

    Args:
        module: The network.
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 to 1.
        steps: Of a multiscale network, its own number if None.
    """
    tensors, fields = predict_steps(module, density, [steps])
    return tensors[-1], fields
