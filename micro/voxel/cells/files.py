"""Voxels from files: .npy, HDF5, raw, a TIFF of many pages, a folder of images.

`read_voxels` returns the numbers in the file; the caller interprets them (densities, phases, grey
values with a threshold). Sizes are checked before anything is read: a file whose header announces more data than the
file or the memory can hold is refused.
"""

import importlib
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from micro.data.cli import check_memory
from micro.voxel.cells.frames import as_shape

IMAGES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".pgm")
#: Files that may hold all layers as pages.
STACKS = (".tif", ".tiff")
#: Bytes of a voxel while images are read and stacked.
NUMBER = 8
HDF5 = (".h5", ".hdf5", ".hdf")
#: Modes of images whose numbers are used unchanged; others are converted to grey values of eight bits.
MODES = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def optional(module: str, package: str, purpose: str) -> Any:
    """Import an optional package; the ValueError names what is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"{purpose} needs the Python package {package}, which is not installed here.") from None


def read_npy(path: Path) -> np.ndarray:
    """Return the array of a .npy file."""
    try:
        with np.errstate(over="ignore"):
            stored = np.load(path, mmap_mode="r", allow_pickle=False)  # maps no more than the content of the file
    except (OSError, ValueError, EOFError, OverflowError, TypeError):
        raise ValueError(f"{path} is not a .npy file of numbers, or it is truncated.") from None
    if not isinstance(stored, np.ndarray):
        raise ValueError(f"{path} is an archive; a .npy file of one array is needed.")
    check_memory("its numbers", stored.nbytes, name=str(path))
    return np.array(stored)


def read_hdf5(path: Path, dataset: str | None) -> np.ndarray:
    """Return a data set of an HDF5 file; without a name, the only one of three or four axes."""
    try:
        stored = h5py.File(path, "r")
    except OSError:
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated.") from None
    with stored as file:
        if dataset is None:
            found: list[str] = []
            file.visititems(
                lambda name, item: (
                    found.append(name) if isinstance(item, h5py.Dataset) and item.ndim in (3, 4) else None
                )
            )
            if len(found) != 1:
                names = ", ".join(found) or "none"
                raise ValueError(f"dataset must be named, {path} has these of three or four axes: {names}.")
            dataset = found[0]
        if not isinstance(file.get(dataset), h5py.Dataset):
            raise ValueError(f"{path} has no data set {dataset}.")
        found_set = file[dataset]
        check_memory("its numbers", found_set.size * found_set.dtype.itemsize, name=f"{path}, {dataset},")
        return found_set[()]


def by_number(file: Path) -> tuple[list[str | int], str]:
    """Return a key that sorts names with their numbers by value: layer2 before layer10."""
    words = re.split("([0-9]+)", file.name)
    return [int(word) if k % 2 else word for k, word in enumerate(words)], file.name


def read_images(path: Path) -> np.ndarray:
    """Return the grey values (X, Y, Z) of images, one layer z each: the pages of a TIFF, or all files of a folder.

    Files are taken in the order of their names, numbers in these by their value. Columns of an image run along x, its
    rows, from the bottom, along y.
    """
    image = optional("PIL.Image", "Pillow", "Reading images")
    files = [path]
    if path.is_dir():
        files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGES), key=by_number)
    if not files:
        raise ValueError(f"{path} must hold images ({', '.join(IMAGES)}), it holds none.")
    layers: list[np.ndarray] = []
    for file in files:
        found = read_pages(image, file, all_pages=file is path, files=len(files))
        layers += found
        for layer in found:
            if layer.shape != layers[0].shape:
                raise ValueError(f"{file.name} must have {layers[0].shape} pixels as those before, got {layer.shape}.")
    return np.stack([layer[::-1].T for layer in layers], axis=-1)


def read_pages(image: Any, file: Path, *, all_pages: bool, files: int) -> list[np.ndarray]:
    """Return the grey values (rows, columns) of the pages of an image, or of its first page.

    Args:
        image: The module PIL.Image.
        file: The image.
        all_pages: Whether each page is a layer.
        files: How many images of this size are to be read.
    """
    found: list[np.ndarray] = []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Corrupt|Truncated", UserWarning)  # otherwise layers would be missing
            warnings.simplefilter("error", image.DecompressionBombWarning)
            with image.open(file) as picture:
                pages = getattr(picture, "n_frames", 1) if all_pages else 1
                check_memory("its pixels", NUMBER * math.prod(picture.size) * pages * files, name=str(file))
                for page in range(pages):
                    picture.seek(page)
                    found.append(np.array(picture if picture.mode in MODES else picture.convert("L")))
    except (image.DecompressionBombWarning, image.DecompressionBombError):
        raise ValueError(f"{file} must have at most {image.MAX_IMAGE_PIXELS} pixels in a layer, it has more.") from None
    except (OSError, SyntaxError, UserWarning):  # what Pillow raises for damaged pixels, .png chunks and pages
        raise ValueError(f"{file} is not an image, or it is truncated.") from None
    return found


def read_raw(path: Path, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return the voxels (X, Y, Z) of a raw file, whose size must be that of the shape."""
    size = as_shape(shape, "shape")
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"dtype must be a type of NumPy, for instance <u2, got {dtype!r}.") from None
    if kind.kind not in "buif":
        raise ValueError(f"dtype must be a type of real numbers, for instance <u2, got {dtype!r}.")
    wanted, held = math.prod(size) * kind.itemsize, path.stat().st_size
    if held != wanted:
        raise ValueError(
            f"{path} must hold {math.prod(size)} numbers of {dtype}, {wanted} bytes, it holds {held} bytes."
        )
    check_memory("its numbers", held, name=str(path))
    return np.fromfile(path, dtype=kind).reshape(size)


def read_voxels(
    path: str | Path,
    *,
    dataset: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str | None = None,
) -> np.ndarray:
    """Return the voxels of a file or of a folder of images.

    Args:
        path: A file .npy, .h5 or .hdf5, .raw, .tif of many pages, or a folder.
        dataset: Name in an HDF5 file.
        shape: Voxels (X, Y, Z) of a raw file, in C order: z runs fastest.
        dtype: Type of the numbers of a raw file, with byte order, for instance "<u2".

    Returns:
        Numbers (X, Y, Z), or (cells, X, Y, Z).

    Raises:
        ValueError: The file is missing, is of another kind, does not hold voxels, or is too large for the memory.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir() or (suffix in STACKS and path.is_file()):
        voxels = read_images(path)
    elif not path.is_file():
        raise ValueError(f"{path} does not exist.")
    elif suffix == ".npy":
        voxels = read_npy(path)
    elif suffix in HDF5:
        voxels = read_hdf5(path, dataset)
    elif suffix == ".raw":
        if shape is None or dtype is None:
            raise ValueError("shape and dtype must be given for a raw file.")
        voxels = read_raw(path, shape, dtype)
    else:
        raise ValueError(f"{path} must be .npy, .h5, .hdf5, .raw, .tif or a folder of images.")
    if voxels.ndim not in (3, 4) or 0 in voxels.shape or voxels.dtype.kind not in "buif":
        raise ValueError(f"{path} must hold (X, Y, Z) or (cells, X, Y, Z) numbers, got {voxels.shape} {voxels.dtype}.")
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize > 8:
        voxels = voxels.astype(float)  # PyTorch has no long double
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise ValueError(f"{path} must hold finite numbers.")
    return voxels.astype(voxels.dtype.newbyteorder("="))
