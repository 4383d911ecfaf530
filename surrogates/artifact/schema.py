"""The manifest of a law artifact: its fields, the check of a JSON object, and the typed manifest.

New artifacts are written with schema 2. Schema 1 is read as well: there the observed fields have names only ("psi",
"force_3"), of which `observable_of` makes roles, and the cell of a lattice law stands under `training.lattice`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA = 2
SCHEMAS = (1, 2)
UNITS = {"stress": "Pa", "time": "s", "length": "m"}
DTYPES = ("float32", "float64")
QUANTITIES = ("stored_energy", "dissipation", "bar_force", "node_displacement", "internal_variable", "other")

# One row per field: its path in the manifest and its type. A "?" after the type admits null (no limit known).
# A group that is not closed by a row with "*" holds no other entries.
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
    "range.length_max": "number?",
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
    "microstructure": "object?",  # from schema 2 on
    "hash": "text",
}
OPTIONAL = ("range.length_max",)  # older artifacts lack it


@dataclass(frozen=True)
class Units:
    """Units of the interface."""

    stress: str
    time: str
    length: str


@dataclass(frozen=True)
class Moduli:
    """Elastic moduli at rest, Pa: bulk K and shear G."""

    bulk: float
    shear: float


@dataclass(frozen=True)
class StateField:
    """One field of the state: where it starts in the row of a point, and its shape."""

    name: str
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StateLayout:
    """Numbers in the state of one point, and the fields they make up."""

    size: int
    fields: tuple[StateField, ...]

    def find(self, name: str) -> StateField | None:
        """The field of a name, if there is one."""
        return next((entry for entry in self.fields if entry.name == name), None)


@dataclass(frozen=True)
class Observable:
    """One observed field and its role.

    Attributes:
        name: for plots and tables.
        quantity: one of `QUANTITIES`; stored energy and dissipation in J/m^3.
        index: of the bar, node or internal variable, from 0; None for the other quantities.
        component: of the displacement of a node, 0 for x; None for the other quantities.
    """

    name: str
    quantity: str = "other"
    index: int | None = None
    component: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest: what is None is left out."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Range:
    """What the law was trained in; None where no limit is known.

    Strain: norm; rates 1/s; window s; J = det F; length: of the path of the strain, which older artifacts do not state.
    """

    strain_max: float | None = None
    rate_min: float | None = None
    rate_max: float | None = None
    time_window: float | None = None
    jacobian_min: float | None = None
    jacobian_max: float | None = None
    length_max: float | None = None


@dataclass(frozen=True)
class Data:
    """The data a law was trained on."""

    hash: str
    code_version: str
    samples: int
    seed: int
    command: str


@dataclass(frozen=True)
class Certificate:
    """The certificate (docs/guides/certificate.md): measures of its tangent, and the settings that reproduce it.

    An entry is not a number (None for the settings) where an older certificate lacks it.
    """

    tangent_difference: float = math.nan
    kinks: float = math.nan
    asymmetry: float = math.nan
    symmetric: bool = False
    eigenvalue_min: float = math.nan
    eigenvalue_negative: float = math.nan
    virgin_stress: float = math.nan
    zero_increment: float = math.nan
    zero_increment_stress: float = math.nan
    newton_strain: float = math.nan
    dissipated: float = math.nan
    newton_order_element: float = math.nan
    newton_iterations_element: float = math.nan
    newton_order_patch: float = math.nan
    newton_iterations_patch: float = math.nan
    self_consistency: float = math.nan
    self_consistency_stress: float = math.nan
    closed_loop: float = math.nan
    self_consistency_uniaxial: float = math.nan
    strain_max: float | None = None
    dt: float | None = None
    seed: int | None = None
    points: int | None = None
    stress_scale: float | None = None


@dataclass(frozen=True)
class Training:
    """How a law was made; `details` holds what else its training reports; it is not an interface."""

    command: str
    seed: int
    epochs: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LatticeCell:
    """The cell of a lattice law: coordinates of its nodes, pairs of nodes of its bars, edges of its box."""

    name: str
    perturbation: float
    seed: int
    nodes: tuple[tuple[float, ...], ...]
    bars: tuple[tuple[int, int], ...]
    box: tuple[float, ...]


@dataclass(frozen=True)
class BarLaw:
    """The law of the bars of a lattice: kind of hardening, moduli and yield strength, Pa."""

    name: str
    modulus: float
    hardening: float
    strength: float


@dataclass(frozen=True)
class Microstructure:
    """The microstructure that a law stands for: a lattice cell and its bars."""

    cell: LatticeCell
    bar: BarLaw

    def parameters(self) -> dict[str, Any]:
        """Cell and bars as plain numbers and lists, as `micro.lattice.data.lattice_of` takes them."""
        cell = {entry.name: getattr(self.cell, entry.name) for entry in fields(self.cell)}
        cell |= {name: [list(row) for row in cell[name]] for name in ("nodes", "bars")}
        bar = {entry.name: getattr(self.bar, entry.name) for entry in fields(self.bar)}
        return {"cell": cell | {"box": list(self.cell.box)}, "bar": bar}


@dataclass(frozen=True)
class Manifest:
    """The manifest of a law artifact; the fields of the JSON object by type."""

    schema: int
    kind: str
    name: str
    strain: str
    dimension: int
    units: Units
    density: float
    moduli: Moduli
    state: StateLayout
    observables: tuple[Observable, ...]
    range: Range
    dtype: str
    data: Data
    errors: Mapping[str, float | bool | str]
    certificate: Certificate
    training: Training
    microstructure: Microstructure | None
    hash: str

    def column(self, quantity: str, index: int | None = None, component: int | None = None) -> int | None:
        """Column of `observe` that holds a quantity; None if the law does not provide it."""
        return column_of(self.observables, quantity, index, component)


def column_of(
    observables: tuple[Observable, ...], quantity: str, index: int | None = None, component: int | None = None
) -> int | None:
    """Place of a quantity among the observed fields; None if it is not there."""
    wanted = (quantity, index, component)
    return next((k for k, o in enumerate(observables) if (o.quantity, o.index, o.component) == wanted), None)


def observable_of(name: str) -> Observable:
    """The role that a name stands for in schema 1: psi, dissipation, Z_5, force_3 or u_2x; all numbers from 1."""
    if name == "psi":
        return Observable(name, "stored_energy")
    if name == "dissipation":
        return Observable(name, "dissipation")
    if match := re.fullmatch(r"Z_(\d+)", name):
        return Observable(name, "internal_variable", int(match[1]) - 1)
    if match := re.fullmatch(r"force_(\d+)", name):
        return Observable(name, "bar_force", int(match[1]) - 1)
    if match := re.fullmatch(r"u_(\d+)([xyz])", name):
        return Observable(name, "node_displacement", int(match[1]) - 1, "xyz".index(match[2]))
    return Observable(name)


def parse_manifest(manifest: object, path: str | Path, *, certified: bool = True) -> Manifest:
    """The typed manifest of a JSON object.

    Args:
        manifest: the object.
        path: of the artifact, for the message.
        certified: refuse a certificate that lacks entries.

    Raises:
        ValueError: one sentence naming the first field that does not fit.
    """
    content = _check_fields(manifest, path, certified=certified)
    entry = content.get("microstructure")
    training = dict(content["training"])
    at = "microstructure"
    if content["schema"] == 1 and training.get("lattice") is not None:
        entry, at = training.pop("lattice"), "training.lattice"
    known = {entry.name for entry in fields(Certificate)}
    return Manifest(
        **{name: content[name] for name in ("schema", "kind", "name", "strain", "dimension", "density", "dtype")},
        units=Units(**content["units"]),
        moduli=Moduli(**content["moduli"]),
        state=_state(content["state"], path),
        observables=_observables(content["observe"], content["schema"], path),
        range=Range(**content["range"]),
        data=Data(**content["data"]),
        errors=dict(content["errors"]),
        certificate=Certificate(**{name: value for name, value in content["certificate"].items() if name in known}),
        training=Training(
            **{name: training.pop(name) for name in ("command", "seed", "epochs")}, details=training
        ),
        microstructure=None if entry is None else _microstructure(entry, content["dimension"], at, path),
        hash=content["hash"],
    )


def _check_fields(manifest: object, path: str | Path, *, certified: bool) -> dict[str, Any]:
    if not isinstance(manifest, dict):
        raise ValueError(f"{path}: the manifest must be a JSON object, got {type(manifest).__name__}.")
    schema = manifest.get("schema", SCHEMA)
    if isinstance(schema, bool) or schema not in SCHEMAS:
        raise ValueError(f"{path}: field schema must be one of {', '.join(map(str, SCHEMAS))}, got {schema!r}.")
    table = {name: kind for name, kind in FIELDS.items() if schema > 1 or name != "microstructure"}
    groups = {name.split(".")[0] for name in table if "." in name}
    for name in manifest:
        if name not in table and name not in groups:
            raise ValueError(f"{path}: field {name} is unknown.")
    for group in sorted(groups):
        _check_group(manifest, group, path)
    for name, kind in table.items():
        if name.endswith("*"):
            continue
        holder: dict[str, Any] = manifest[name.split(".")[0]] if "." in name else manifest
        last = name.split(".")[-1]
        if last not in holder and name.startswith("certificate."):
            if not certified:
                continue
            raise ValueError(
                f"{path}: field {name} is missing; python3 -m surrogates.certificate {path} --renew makes it."
            )
        if last not in holder and name in OPTIONAL:
            continue
        if last not in holder:
            raise ValueError(f"{path}: field {name} is missing.")
        _check_value(holder[last], kind, name, path)
    _check_choice(manifest["strain"], ("finite", "small"), "strain", path)
    _check_choice(manifest["dimension"], (2, 3), "dimension", path)
    _check_choice(manifest["dtype"], DTYPES, "dtype", path)
    for name, unit in UNITS.items():
        _check_choice(manifest["units"][name], (unit,), f"units.{name}", path)
    return manifest


def _check_group(manifest: dict[str, Any], group: str, path: str | Path) -> None:
    if group not in manifest:
        raise ValueError(f"{path}: field {group} is missing.")
    if not isinstance(manifest[group], dict):
        raise ValueError(f"{path}: field {group} must be an object, got {manifest[group]!r}.")
    for name, value in manifest[group].items():
        if f"{group}.{name}" not in FIELDS:
            if f"{group}.*" not in FIELDS:
                raise ValueError(f"{path}: field {group}.{name} is unknown.")
            _check_value(value, FIELDS[f"{group}.*"], f"{group}.{name}", path)


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_value(value: object, kind: str, name: str, path: str | Path) -> None:
    if kind.endswith("?") and value is None:
        return
    number = _is_number(value)
    fits = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": number,
        "positive": number and value > 0,  # type: ignore[operator]
        "text": isinstance(value, str),
        "flag": isinstance(value, bool),
        "list": isinstance(value, list),
        "object": isinstance(value, dict),
        "scalar": number or isinstance(value, (bool, str)),
        "any": True,
    }
    kind = kind.rstrip("?")
    if not fits[kind]:
        article = "an" if kind[0] in "aeiou" else "a"
        words = {"positive": "positive number", "scalar": "number, flag or text"}.get(kind, kind)
        raise ValueError(f"{path}: field {name} must be {article} {words}, got {_short(value)}.")


def _short(value: object) -> str:
    """A value in a message, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "an integer of more than 300 digits"  # Python does not write it out
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + " ..."


def _check_choice(value: object, choices: tuple[object, ...], name: str, path: str | Path) -> None:
    if value not in choices:
        raise ValueError(f"{path}: field {name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _state(state: dict[str, Any], path: str | Path) -> StateLayout:
    size, end, found = state["size"], 0, []
    if size < 0:
        raise ValueError(f"{path}: field state.size must not be negative, got {size}.")
    for entry in state["fields"]:
        whole = isinstance(entry, dict) and set(entry) == {"name", "offset", "shape"} and isinstance(entry["name"], str)
        if not whole or not isinstance(entry["shape"], list) or not all(
            _is_count(number) for number in [entry["offset"], *entry["shape"]]
        ):
            raise ValueError(f"{path}: field state.fields must list name, offset and shape, got {_short(entry)}.")
        if entry["offset"] < end or entry["offset"] + math.prod(entry["shape"]) > size:
            raise ValueError(f"{path}: field state.fields: {entry['name']} does not fit in {size} numbers.")
        end = entry["offset"] + math.prod(entry["shape"])
        found.append(StateField(entry["name"], entry["offset"], tuple(entry["shape"])))
    return StateLayout(size, tuple(found))


def _observables(observe: list[Any], schema: int, path: str | Path) -> tuple[Observable, ...]:
    found: list[Observable] = []
    for entry in observe:
        if schema == 1:
            if not isinstance(entry, str):
                raise ValueError(f"{path}: field observe must list names, got {_short(entry)}.")
            found.append(observable_of(entry))
            continue
        known = {each.name for each in fields(Observable)}
        if not isinstance(entry, dict) or not {"name", "quantity"} <= set(entry) <= known:
            raise ValueError(f"{path}: field observe must list objects with name and quantity, got {_short(entry)}.")
        _check_value(entry["name"], "text", "observe.name", path)
        _check_choice(entry["quantity"], QUANTITIES, "observe.quantity", path)
        places = {name: entry.get(name) for name in ("index", "component")}
        wanted = {"bar_force": (True, False), "internal_variable": (True, False), "node_displacement": (True, True)}
        if tuple(_is_count(value) for value in places.values()) != wanted.get(entry["quantity"], (False, False)):
            raise ValueError(f"{path}: field observe: index and component do not fit in {_short(entry)}.")
        found.append(Observable(entry["name"], entry["quantity"], **places))
    if len({entry.name for entry in found}) < len(found):
        raise ValueError(f"{path}: field observe lists a name twice.")
    return tuple(found)


def _microstructure(entry: object, d: int, at: str, path: str | Path) -> Microstructure:
    def refuse(what: str) -> ValueError:
        return ValueError(f"{path}: field {at}: {what} does not fit.")

    def row(values: object, size: int) -> bool:
        return isinstance(values, list) and len(values) == size and all(_is_number(value) for value in values)

    cell, bar = (entry.get(name) if isinstance(entry, dict) else None for name in ("cell", "bar"))
    for name, part, kind in (("cell", cell, LatticeCell), ("bar", bar, BarLaw)):
        if not isinstance(part, dict) or set(part) != {entry.name for entry in fields(kind)}:
            raise refuse(name)
    assert isinstance(cell, dict) and isinstance(bar, dict)
    for name in ("modulus", "hardening", "strength"):
        if not _is_number(bar[name]):
            raise refuse(f"bar.{name}")
    nodes, bars = cell["nodes"], cell["bars"]
    if not isinstance(nodes, list) or not all(row(node, d) for node in nodes):
        raise refuse("cell.nodes")
    if not isinstance(bars, list) or not all(
        row(ends, 2) and all(_is_count(end) and end < len(nodes) for end in ends) for ends in bars
    ):
        raise refuse("cell.bars")
    if not row(cell["box"], d):
        raise refuse("cell.box")
    if not isinstance(cell["name"], str) or not _is_number(cell["perturbation"]) or not _is_number(cell["seed"]):
        raise refuse("cell")
    return Microstructure(
        LatticeCell(
            cell["name"], cell["perturbation"], cell["seed"], tuple(tuple(node) for node in nodes),
            tuple((ends[0], ends[1]) for ends in bars), tuple(cell["box"]),
        ),
        BarLaw(**bar),
    )  # fmt: skip
