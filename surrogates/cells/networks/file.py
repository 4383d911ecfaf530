"""File of a voxel network: its weights, its shape, and a manifest, which is also written beside it as JSON.

The manifest records data, command, seed and held-out errors.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from micro.data.files import whole_file
from surrogates.cells.networks.multiscale import MultiscaleNetwork
from surrogates.cells.networks.paper import PaperNetwork, TensorNetwork

#: The network that comes with the package.
PRETRAINED = Path(__file__).parents[2] / "pretrained" / "voxels_multiscale.pt"
FORMAT = "anvilx voxel network 1"


@dataclass(frozen=True)
class Shape:
    """Kind and size of a network.

    Attributes:
        network: Its kind.
        width: Vector fields of the multiscale network's finest grid.
        features: Numbers of features per voxel, from which the gates are computed.
        steps: Steps of the multiscale network.
        side: Voxels per side, of the tensor network only.
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
        manifest: The data it was trained on, and its errors.
    """

    module: torch.nn.Module
    manifest: dict[str, Any]


def make_network(shape: Shape, seed: int = 0) -> torch.nn.Module:
    """Return a network with its initial weights."""
    if shape.network == "multiscale":
        return MultiscaleNetwork(shape.width, shape.features, shape.steps, seed)
    return PaperNetwork(seed) if shape.network == "paper" else TensorNetwork(shape.side, seed)


def save_network(path: Path, module: torch.nn.Module, manifest: dict[str, Any]) -> None:
    """Write the weights and the manifest, whose entry `shape` is that of the network, and the manifest beside as JSON.

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
        ValueError: The file is missing, damaged, or no voxel network.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found = stored["format"]
        if found == FORMAT:
            manifest = json.loads(stored["manifest"])
            module = make_network(Shape(**manifest["shape"]))
            module.load_state_dict(stored["weights"])
    except Exception as error:  # torch.load raises whatever its zip and pickle readers do
        raise ValueError(f"{path} is not a voxel network, or it is truncated.") from error
    if found != FORMAT:  # perhaps of another version, whose weights would not fit
        raise ValueError(f"{path}: format must be {FORMAT!r}, got {found!r}.")
    return CellNetwork(module.to(device).eval(), manifest)
