"""The law artifact: one TorchScript module with a JSON manifest inside its `.pt` file.

The module answers four calls (all tensors float64 at the interface, batch axis first):

- `initial_state(n: int) -> (n, k)`
- `forward(F (n, d, d), state (n, k), dt: float) -> (P (n, d, d) in Pa, new state (n, k))`, pure
- `tangent(F, state, dt) -> (P, new state, dP_dF (n, d, d, d, d))`, the derivative of `forward`
- `observe(state) -> (n, m)`, the fields that the manifest names

The manifest says what the law is, in which units and range, from which data, and how well it does. `load_law` checks
every field and the content hash, and refuses what does not fit with one sentence that names the field.
"""

import functools
import hashlib
import io
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from surrogates.artifact.schema import check_manifest

MANIFEST_FILE = "manifest.json"
METHODS = ("initial_state", "forward", "tangent", "observe")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Law:
    """A law read from an artifact.

    Attributes:
        module: the TorchScript module, in evaluation mode, on the device asked for.
        manifest: the checked manifest.
        path: the file it came from.
    """

    module: torch.jit.ScriptModule
    manifest: dict[str, Any]
    path: Path


@functools.cache
def switch_fusion_off() -> None:
    """Keep TorchScript from fusing, once a process: to be called before any scripted module is.

    The profiling executor can hang on graphs that hold torch.autograd.grad, and compiles a kernel for every shape; a
    change of the strategy after a first call would be warned of.
    """
    torch.jit.set_fusion_strategy([("STATIC", 0), ("DYNAMIC", 0)])


def save_law(path: str | Path, module: torch.nn.Module, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write a law and its manifest to one file, whole or not at all.

    Args:
        path: the `.pt` file to write.
        module: a scripted module, or one that `torch.jit.script` accepts.
        manifest: every field but `hash`, which is computed here (a given one is replaced).

    Returns:
        The manifest as written, with its hash.

    Raises:
        ValueError: a field is missing, unknown or mistyped, or the module does not do what the manifest says.
    """
    path = Path(path)
    switch_fusion_off()
    scripted = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
    scripted.eval()
    manifest = json.loads(json.dumps({**manifest, "hash": ""}))  # what a reader will see: lists, not tuples
    check_manifest(manifest, path)
    check_module(scripted, manifest, path)
    bare = io.BytesIO()
    torch.jit.save(scripted, bare)
    bare.seek(0)
    try:
        # TorchScript writes some code that it cannot read (2.6: a literal 48e9 becomes the integer 48000000000).
        check_module(torch.jit.load(bare), manifest, path)
    except RuntimeError as error:
        raise ValueError(f"{path}: TorchScript cannot read back what it wrote: {_telling(error)}") from error
    manifest["hash"] = content_hash(bare, manifest)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(descriptor)
    try:
        whole = io.BytesIO()
        torch.jit.save(scripted, whole, _extra_files={MANIFEST_FILE: json.dumps(manifest, indent=1)})
        _write_without_sources(whole, temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return manifest


def _write_without_sources(archive: io.BytesIO, path: str) -> None:
    """Write a TorchScript archive without its debug records, which hold the folders of the machine that made it."""
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as lean:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                lean.writestr(entry, whole.read(entry))


def replace_manifest(path: str | Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Give an artifact another manifest, its module untouched to the byte.

    Returns:
        The manifest as written, with its new hash.

    Raises:
        ValueError: the file is no artifact, or a field of the new manifest does not fit.
    """
    path = Path(path)
    manifest = json.loads(json.dumps({**manifest, "hash": ""}))
    check_manifest(manifest, path)
    manifest["hash"] = content_hash(path, manifest)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(descriptor)
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as new:
            for entry in old.infolist():
                extra = entry.filename.endswith("/extra/" + MANIFEST_FILE)
                new.writestr(entry, json.dumps(manifest, indent=1) if extra else old.read(entry))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return manifest


def write_beside(path: str | Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of an artifact to the `.json` beside it, whole or not at all."""
    beside = Path(path).with_suffix(".json")
    part = beside.with_name(beside.name + ".part")
    part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(part, beside)


def load_law(
    path: str | Path, *, dtype: str | torch.dtype | None = None, device: str = "cpu", certified: bool = True
) -> Law:
    """Read a law, check its manifest and content, and try it once.

    Args:
        path: the `.pt` file.
        dtype: "float32" or "float64" to run the network in; None keeps what the manifest says.
        device: where the module lives.
        certified: refuse a law whose certificate lacks an entry; False is for those who renew it.

    Raises:
        ValueError: the file or one of its fields does not fit; one sentence says which.
    """
    path = Path(path)
    wanted = _dtype_name(dtype)
    manifest = read_manifest(path, certified=certified)
    if content_hash(path, manifest) != manifest["hash"]:
        raise ValueError(
            f"{path}: field hash does not match the content: weights, code or manifest were edited after export."
        )
    switch_fusion_off()
    try:
        module = torch.jit.load(str(path), map_location=device)
    except RuntimeError as error:
        raise ValueError(f"{path} is not an archive that this PyTorch can read: {_telling(error)}") from error
    module.eval()
    if wanted is not None and wanted != manifest["dtype"]:
        module.to(DTYPES[wanted])
        manifest = {**manifest, "dtype": wanted}
    check_module(module, manifest, path, device=device)
    return Law(module=module, manifest=manifest, path=path)


def read_manifest(path: str | Path, *, certified: bool = True) -> dict[str, Any]:
    """The manifest inside an artifact, its fields checked, without loading the module.

    With `certified` False the certificate may be an older one, which lacks entries.

    Raises:
        ValueError: no such file, not an archive, no manifest, or a field that does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such law file.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("data.pkl") for name in names) or not any("/code/" in name for name in names):
                raise ValueError(f"{path} is not a TorchScript archive: it holds no scripted module.")
            entry = [name for name in names if name.endswith("/extra/" + MANIFEST_FILE)]
            if not entry:
                raise ValueError(f"{path} holds no {MANIFEST_FILE}: it was not written by save_law.")
            text = archive.read(entry[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a TorchScript archive, or it is truncated.") from error
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {MANIFEST_FILE} is not JSON ({error}).") from error
    check_manifest(manifest, path, certified=certified)
    return manifest


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
                    content = archive.read(name)
                    digest.update(f"{inner} {len(content)}\n".encode())
                    digest.update(content)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{source} is not a TorchScript archive, or it is truncated.") from error
    rest = {key: value for key, value in manifest.items() if key != "hash"}
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def check_module(module: Any, manifest: dict[str, Any], path: str | Path, *, device: str = "cpu") -> None:
    """Call the law at no and at one virgin point and hold what it returns to the manifest.

    Raises:
        ValueError: a method is missing or fails, or a result has another shape or type than the manifest says.
    """
    for method in METHODS:
        if not hasattr(module, method):
            raise ValueError(f"{path}: the module has no method {method}.")
    k, m, d = manifest["state"]["size"], len(manifest["observe"]), manifest["dimension"]
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
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: the law failed at a virgin point: {_telling(error)}") from error


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


def _telling(error: BaseException) -> str:
    """The lines of a TorchScript error that say what is wrong, without the code it quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "<--- HERE" in str(error) and "Traceback" not in str(error):
        lines = lines[:2]  # about the archive: message first, code after
    else:
        lines = lines[-1:]  # from a run: code first, message last
    return " ".join(lines) or type(error).__name__
