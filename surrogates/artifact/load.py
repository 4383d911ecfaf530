"""The law artifact: one TorchScript module with a JSON manifest inside its `.pt` file.

The module has four methods (all tensors float64 at the interface, batch axis first):

- `initial_state(n: int) -> (n, k)`
- `forward(F (n, d, d), state (n, k), dt: float) -> (P (n, d, d) in Pa, new state (n, k))`, pure
- `tangent(F, state, dt) -> (P, new state, dP_dF (n, d, d, d, d))`, the derivative of `forward`
- `observe(state) -> (n, m)`, the fields that the manifest names

The manifest records the kind of the law, its units and range, its data, and its errors. `load_law` checks
every field and the content hash, and refuses what does not fit with one sentence that names the field.
"""

import functools
import hashlib
import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from surrogates.artifact.schema import Manifest, parse_manifest

MANIFEST_FILE = "manifest.json"
METHODS = ("initial_state", "forward", "tangent", "observe")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
# What reading a damaged zip archive raises: about its index, an entry, its checksum, its stream or its size.
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, OSError,
          RuntimeError, MemoryError, UnicodeDecodeError, ValueError, KeyError, IndexError)  # fmt: skip
ENTRY_MAX = 2**31  # bytes of one entry; an index that promises more is damaged


@dataclass(frozen=True)
class Law:
    """A law read from an artifact.

    Attributes:
        module: the TorchScript module, in evaluation mode, on the requested device.
        manifest: the checked manifest; its dtype is the one the module runs in.
        stored: the manifest as it stands in the file, a JSON object.
        path: the file it came from.
    """

    module: torch.jit.ScriptModule
    manifest: Manifest
    stored: dict[str, Any]
    path: Path


@functools.cache
def switch_fusion_off() -> None:
    """Switch off fusion in TorchScript, once per process; call it before any scripted module.

    The profiling executor can hang on graphs that hold torch.autograd.grad, and compiles a kernel for every shape; a
    change of the strategy after a first call would cause a warning.
    """
    torch.jit.set_fusion_strategy([("STATIC", 0), ("DYNAMIC", 0)])


def load_law(
    path: str | Path, *, dtype: str | torch.dtype | None = None, device: str = "cpu", certified: bool = True
) -> Law:
    """Read a law, check its manifest and content, and try it once.

    Args:
        path: the `.pt` file.
        dtype: "float32" or "float64" to run the network in; None takes that of the manifest.
        device: the device of the module.
        certified: refuse a law whose certificate lacks an entry; False is for renewing it.

    Raises:
        ValueError: the file or one of its fields does not fit; the sentence names it.
    """
    path = Path(path)
    wanted = _dtype_name(dtype)
    stored = read_json(path)
    manifest = parse_manifest(stored, path, certified=certified)
    if content_hash(path, stored) != manifest.hash:
        raise ValueError(
            f"{path}: field hash does not match the content: weights, code or manifest were edited after export."
        )
    switch_fusion_off()
    try:
        module = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not an archive that this PyTorch can read: {telling(error)}") from error
    module.eval()
    if wanted is not None and wanted != manifest.dtype:
        module.to(DTYPES[wanted])
        manifest = replace(manifest, dtype=wanted)
    check_manifest_of(module, manifest, path, device=device)
    return Law(module=module, manifest=manifest, stored=stored, path=path)


def read_manifest(path: str | Path, *, certified: bool = True) -> Manifest:
    """The manifest inside an artifact, its fields checked, without loading the module.

    With `certified` False the certificate may be an older one, which lacks entries.

    Raises:
        ValueError: no such file, not an archive, no manifest, or a field that does not fit.
    """
    return parse_manifest(read_json(path), path, certified=certified)


def read_json(path: str | Path) -> dict[str, Any]:
    """The manifest inside an artifact as the JSON object that stands there, its fields not checked.

    Raises:
        ValueError: no such file, not an archive, or no manifest in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such law file.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            scripted = any(name.endswith("data.pkl") for name in names) and any("/code/" in name for name in names)
            entry = [name for name in names if name.endswith("/extra/" + MANIFEST_FILE)]
            text = read_entry(archive, entry[0]) if scripted and entry else b""
    except DAMAGE as error:
        raise ValueError(f"{path} is not a TorchScript archive, or it is truncated or damaged.") from error
    if not scripted:
        raise ValueError(f"{path} is not a TorchScript archive: it holds no scripted module.")
    if not entry:
        raise ValueError(f"{path} holds no {MANIFEST_FILE}: it was not written by save_law.")
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {MANIFEST_FILE} is not JSON ({error}).") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{path}: the manifest must be a JSON object, got {type(manifest).__name__}.")
    return manifest


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """One entry of an archive, unless its index promises more than any law has."""
    if archive.getinfo(name).file_size > ENTRY_MAX:
        raise zipfile.BadZipFile(f"{name} is too large")
    return archive.read(name)


def content_hash(source: str | Path | io.BytesIO, manifest: dict[str, Any]) -> str:
    """SHA-256 over parameters, buffers, attributes and code of a saved module, and over its manifest but `hash`.

    Taken from the entries of the archive itself, so that it does not depend on the PyTorch that reads it.
    Debug records (which hold source paths) and container details do not count.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist(), key=lambda name: name.split("/", 1)[-1]):
                inner = name.split("/", 1)[-1]
                counted = inner in ("data.pkl", "constants.pkl") or inner.startswith(("data/", "constants/", "code/"))
                if counted and not inner.endswith(".debug_pkl"):
                    content = read_entry(archive, name)
                    digest.update(f"{inner} {len(content)}\n".encode())
                    digest.update(content)
    except DAMAGE as error:
        raise ValueError(f"{source} is not a TorchScript archive, or it is truncated or damaged.") from error
    rest = {key: value for key, value in manifest.items() if key != "hash"}
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def check_manifest_of(module: Any, manifest: Manifest, path: str | Path, *, device: str = "cpu") -> None:
    """Check that a module matches its manifest; see `check_module`."""
    sizes = {"state_size": manifest.state.size, "observed": len(manifest.observables)}
    check_module(module, path, dimension=manifest.dimension, device=device, **sizes)


def check_module(
    module: Any, path: str | Path, *, dimension: int, state_size: int, observed: int, device: str = "cpu"
) -> None:
    """Call the law at no point and at one virgin point, and check the shapes and types of what it returns.

    Args:
        module: the law.
        path: of the artifact, or a name of the law, for the message.
        dimension: d.
        state_size: numbers in the state of a point.
        observed: fields that it observes.
        device: the device of the module.

    Raises:
        ValueError: a method is missing or fails, or a result has another shape or type than in the manifest.
    """
    for method in METHODS:
        if not hasattr(module, method):
            raise ValueError(f"{path}: the module has no method {method}.")
    k, m, d = state_size, observed, dimension
    for n in (0, 1):
        F = torch.eye(d, dtype=torch.float64, device=device).repeat(n, 1, 1)
        try:
            with torch.no_grad():
                state = module.initial_state(n)
                _check_tensor(state, (n, k), "initial_state", "state.size", path)
                P, new_state = module.forward(F, state, 1e-9)
                _check_tensor(P, (n, d, d), "forward", "dimension", path)
                _check_tensor(new_state, (n, k), "forward", "state.size", path)
                P, new_state, dP_dF = module.tangent(F, state, 1e-9)
                _check_tensor(P, (n, d, d), "tangent", "dimension", path)
                _check_tensor(new_state, (n, k), "tangent", "state.size", path)
                _check_tensor(dP_dF, (n, d, d, d, d), "tangent", "dimension", path)
                _check_tensor(module.observe(state), (n, m), "observe", "observe", path)
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{path}: the law failed at a virgin point: {telling(error)}") from error


def _check_tensor(value: object, shape: tuple[int, ...], method: str, field: str, path: str | Path) -> None:
    if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape or value.dtype != torch.float64:
        got = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"{path}: {method} must return {shape} torch.float64 by field {field}, got {got}.")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{path}: {method} returns a value that is not finite at a virgin point.")


def _dtype_name(dtype: str | torch.dtype | None) -> str | None:
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}.")
    return name


def telling(error: BaseException) -> str:
    """The lines of a TorchScript error that state what is wrong, without the code that it quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "<--- HERE" in str(error) and "Traceback" not in str(error):
        lines = lines[:2]  # about the archive: message first, code after
    else:
        lines = lines[-1:]  # from a run: code first, message last
    return " ".join(lines) or type(error).__name__
