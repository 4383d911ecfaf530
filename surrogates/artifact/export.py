"""Export: a law with its manifest and certificate, as an artifact and the `.json` beside it."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.jit.frontend import FrontendError

from surrogates.artifact.certify import certify, settings
from surrogates.artifact.contract import Completed, describe
from surrogates.artifact.load import MANIFEST_FILE, check_manifest_of, content_hash, switch_fusion_off, telling
from surrogates.artifact.schema import SCHEMA, UNITS, Observable, Range, parse_manifest


@dataclass(frozen=True)
class Material:
    """The entries of a manifest that describe the material, for every kind of law.

    Attributes:
        strain: "finite" or "small".
        dimension: 2 or 3.
        density: kg/m^3.
        moduli: bulk and shear modulus, Pa.
        range: limits of the training data, without the window: names of `Range` -> value.
        microstructure: cell and bars of a lattice law, see `micro.lattice.data.lattice_parameters`; else None.
    """

    strain: str
    dimension: int
    density: float
    moduli: tuple[float, float]
    range: Mapping[str, float | None]
    microstructure: dict[str, Any] | None = field(default=None)


@dataclass(frozen=True)
class Origin:
    """Where the data of a law come from: the manifest's group `data`; see there."""

    hash: str
    code_version: str
    samples: int
    seed: int
    command: str


def write_law(
    output: Path, law: torch.nn.Module, *, kind: str, name: str, material: Material, origin: Origin,
    errors: dict[str, Any], training: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Certify a law and write it.

    Args:
        output: the `.pt` file; the manifest goes beside it as `.json`.
        law: the law, with a plain Python method `describe() -> {"state", "observe", "time_window"}`: the entries of the
            manifest; `observe` lists `Observable`s, or names of fields without a role. An entry "certified_strain" is
            the largest strain of the certificate, where it is not that of the range.
        kind: kind of the law.
        name: its name; empty for that of the file.
        material: what it is of.
        origin: the data it comes from.
        errors: held-out errors.
        training: how it was made, with the command, the seed and the epochs.

    Returns:
        The manifest as written, a JSON object.

    Raises:
        ValueError: a field does not fit, or the law cannot be certified.
    """
    described = law.describe()  # type: ignore[operator]
    return _write(
        output, law, described, kind=kind, name=name or output.stem, material=material, origin=origin, errors=errors,
        training=training,
    )  # fmt: skip


def _write(
    output: Path, law: torch.nn.Module, described: Mapping[str, Any], *, kind: str, name: str, material: Material,
    origin: Origin, errors: dict[str, Any], training: dict[str, Any], dt: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make the manifest of a law, certify the law and write both."""
    bulk, shear = material.moduli
    parameter = next(law.parameters(), None)
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "strain": material.strain,
        "dimension": material.dimension,
        "units": UNITS,
        "density": material.density,
        "moduli": {"bulk": bulk, "shear": shear},
        "state": described["state"],
        "observe": [
            (entry if isinstance(entry, Observable) else Observable(entry)).to_json() for entry in described["observe"]
        ],
        "range": {**asdict(Range()), **material.range, "time_window": described["time_window"]},
        "dtype": "float64" if parameter is None else str(parameter.dtype).removeprefix("torch."),
        "data": asdict(origin),
        "errors": errors,
        "certificate": {},
        "training": training,
        "microstructure": material.microstructure,
        "hash": "",
    }
    manifest = json.loads(json.dumps(manifest))
    chosen = settings(parse_manifest(manifest, output, certified=False), described.get("certified_strain"))
    manifest["certificate"] = certify(law.cpu(), **{**chosen, "dt": chosen["dt"] if dt is None else dt})
    output.parent.mkdir(parents=True, exist_ok=True)
    manifest = save_law(output, law, manifest)
    write_beside(output, manifest)
    return manifest


def export_law(output: str | Path, law: torch.nn.Module, *, kind: str = "own", name: str = "") -> dict[str, Any]:
    """Certify a law of your own and write it as an artifact; see `surrogates.artifact.contract` for what it needs.

    Args:
        output: the `.pt` file; the manifest goes beside it as `.json`.
        law: the module, which TorchScript must accept.
        kind: kind of the law.
        name: its name; empty for the law's own, or that of its class.

    Returns:
        The manifest as written, a JSON object.

    Raises:
        ValueError: the law lacks an attribute or method, cannot be scripted, or cannot be certified.
    """
    output, about = Path(output), describe(law)
    # TorchScript leaves out methods that are neither called nor marked: the wrapper calls them all.
    whole = law if isinstance(law, torch.jit.ScriptModule) else Completed(law)
    try:
        torch.jit.script(whole)
    except (RuntimeError, OSError, TypeError, FrontendError) as error:  # code that TorchScript does not accept
        raise ValueError(f"{about.name}: TorchScript does not accept the law: {telling(error)}") from error
    layout = {"size": about.state_size, "fields": []}
    entries = {"state": layout, "observe": list(about.observables), "time_window": None}
    material = Material(
        about.strain, about.dimension, about.density, (about.bulk_modulus, about.shear_modulus),
        {"strain_max": about.strain_max},
    )  # fmt: skip
    return _write(
        output, whole, entries, kind=kind, name=name or about.name, material=material,
        origin=Origin("", "", 0, 0, ""), errors={}, training={"command": "", "seed": 0, "epochs": 0},
        dt=about.time_step,
    )  # fmt: skip


def save_law(path: str | Path, module: torch.nn.Module, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write a law and its manifest to one file, whole or not at all.

    Args:
        path: the `.pt` file to write.
        module: a scripted module, or one that `torch.jit.script` accepts.
        manifest: every field but `hash`, which is computed here (a given one is replaced).

    Returns:
        The manifest as written, with its hash.

    Raises:
        ValueError: a field is missing, unknown or mistyped, or the module does not match the manifest.
    """
    path = Path(path)
    switch_fusion_off()
    scripted = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
    scripted.eval()
    manifest = json.loads(json.dumps({**manifest, "hash": ""}))  # what a reader will see: lists, not tuples
    typed = parse_manifest(manifest, path)
    check_manifest_of(scripted, typed, path)
    bare = io.BytesIO()
    torch.jit.save(scripted, bare)
    bare.seek(0)
    try:
        # TorchScript writes some code that it cannot read (2.6: a literal 48e9 becomes the integer 48000000000).
        check_manifest_of(torch.jit.load(bare), typed, path)
    except RuntimeError as error:
        raise ValueError(f"{path}: TorchScript cannot read back what it wrote: {telling(error)}") from error
    manifest["hash"] = content_hash(bare, manifest)
    whole = io.BytesIO()
    torch.jit.save(scripted, whole, _extra_files={MANIFEST_FILE: json.dumps(manifest, indent=1)})
    with _whole_file(path) as part:
        _write_without_sources(whole, part)
    return manifest


def _write_without_sources(archive: io.BytesIO, path: Path) -> None:
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
    parse_manifest(manifest, path)
    manifest["hash"] = content_hash(path, manifest)
    with (
        _whole_file(path) as part,
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as new,
    ):
        for entry in old.infolist():
            extra = entry.filename.endswith("/extra/" + MANIFEST_FILE)
            new.writestr(entry, json.dumps(manifest, indent=1) if extra else old.read(entry))
    return manifest


def write_beside(path: str | Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of an artifact to the `.json` beside it, whole or not at all."""
    beside = Path(path).with_suffix(".json")
    with _whole_file(beside) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file beside a path; it takes the name of the path if the block ends without an error."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(descriptor)
    part = Path(temporary)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
