"""The manifest of a law artifact: which fields it holds, of which type, and the check that holds it to them."""

import math
from pathlib import Path
from typing import Any

SCHEMA = 1
UNITS = {"stress": "Pa", "time": "s", "length": "m"}
DTYPES = ("float32", "float64")

# One row a field: its path in the manifest and what stands there. A "?" after the type admits null (no limit known).
# A group not closed by a row with "*" holds no other entries.
FIELDS = {
    "schema": "integer",
    "kind": "text",
    "name": "text",
    "strain": "text",
    "dimension": "integer",
    "units.stress": "text",
    "units.time": "text",
    "units.length": "text",
    "density": "positive",
    "moduli.bulk": "positive",
    "moduli.shear": "positive",
    "state.size": "integer",
    "state.fields": "list",
    "observe": "list",
    "range.strain_max": "number?",
    "range.rate_min": "number?",
    "range.rate_max": "number?",
    "range.time_window": "number?",
    "range.jacobian_min": "number?",
    "range.jacobian_max": "number?",
    "dtype": "text",
    "data.hash": "text",
    "data.code_version": "text",
    "data.samples": "integer",
    "data.seed": "integer",
    "data.command": "text",
    "errors.*": "scalar",
    "certificate.tangent_difference": "number",
    "certificate.asymmetry": "number",
    "certificate.symmetric": "flag",
    "certificate.eigenvalue_min": "number",
    "certificate.virgin_stress": "number",
    "certificate.zero_increment": "number",
    "certificate.newton_order_element": "number",
    "certificate.newton_order_patch": "number",
    "certificate.*": "scalar",
    "training.command": "text",
    "training.seed": "integer",
    "training.epochs": "integer",
    "training.*": "any",
    "hash": "text",
}


def check_manifest(manifest: object, path: str | Path, *, certified: bool = True) -> None:
    """Hold a manifest to `FIELDS`; with `certified` False entries may be missing from its certificate.

    Raises:
        ValueError: one sentence naming the first field that does not fit.
    """
    if not isinstance(manifest, dict):
        raise ValueError(f"{path}: the manifest must be a JSON object, got {type(manifest).__name__}.")
    if "schema" in manifest and manifest["schema"] != SCHEMA:
        raise ValueError(f"{path}: field schema must be {SCHEMA}, got {manifest['schema']!r}.")
    groups = {field.split(".")[0] for field in FIELDS if "." in field}
    for name in manifest:
        if name not in FIELDS and name not in groups:
            raise ValueError(f"{path}: field {name} is unknown.")
    for group in sorted(groups):
        if group not in manifest:
            raise ValueError(f"{path}: field {group} is missing.")
        if not isinstance(manifest[group], dict):
            raise ValueError(f"{path}: field {group} must be an object, got {manifest[group]!r}.")
        for name, value in manifest[group].items():
            if f"{group}.{name}" not in FIELDS:
                if f"{group}.*" not in FIELDS:
                    raise ValueError(f"{path}: field {group}.{name} is unknown.")
                _check_value(value, FIELDS[f"{group}.*"], f"{group}.{name}", path)
    for field, kind in FIELDS.items():
        if field.endswith("*"):
            continue
        holder: dict[str, Any] = manifest
        if "." in field:
            holder = manifest[field.split(".")[0]]
        name = field.split(".")[-1]
        if name not in holder and field.startswith("certificate."):
            if not certified:
                continue
            raise ValueError(
                f"{path}: field {field} is missing; python3 -m surrogates.certificate {path} --renew makes it."
            )
        if name not in holder:
            raise ValueError(f"{path}: field {field} is missing.")
        _check_value(holder[name], kind, field, path)
    _check_choice(manifest["strain"], ("finite", "small"), "strain", path)
    _check_choice(manifest["dimension"], (2, 3), "dimension", path)
    _check_choice(manifest["dtype"], DTYPES, "dtype", path)
    for name, unit in UNITS.items():
        _check_choice(manifest["units"][name], (unit,), f"units.{name}", path)
    for name in manifest["observe"]:
        if not isinstance(name, str):
            raise ValueError(f"{path}: field observe must list names, got {name!r}.")
    _check_state(manifest["state"], path)


def _check_value(value: object, kind: str, field: str, path: str | Path) -> None:
    if kind.endswith("?") and value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": number,
        "positive": number and value > 0,  # type: ignore[operator]
        "text": isinstance(value, str),
        "flag": isinstance(value, bool),
        "list": isinstance(value, list),
        "scalar": number or isinstance(value, (bool, str)),
        "any": True,
    }
    kind = kind.rstrip("?")
    if not fits[kind]:
        article = "an" if kind == "integer" else "a"
        words = {"positive": "positive number", "scalar": "number, flag or text"}.get(kind, kind)
        raise ValueError(f"{path}: field {field} must be {article} {words}, got {value!r}.")


def _check_choice(value: object, choices: tuple[object, ...], field: str, path: str | Path) -> None:
    if value not in choices:
        raise ValueError(f"{path}: field {field} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _check_state(state: dict[str, Any], path: str | Path) -> None:
    size, end = state["size"], 0
    if size < 0:
        raise ValueError(f"{path}: field state.size must not be negative, got {size}.")
    for entry in state["fields"]:
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or set(entry) != {"name", "offset", "shape"} or not all(
            isinstance(number, int) and number >= 0 for number in [entry["offset"], *shape]
        ):
            raise ValueError(f"{path}: field state.fields must list name, offset and shape, got {entry!r}.")
        if entry["offset"] < end or entry["offset"] + math.prod(shape) > size:
            raise ValueError(f"{path}: field state.fields: {entry['name']} does not fit in {size} numbers.")
        end = entry["offset"] + math.prod(shape)
