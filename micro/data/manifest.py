"""Manifest: ``dataset.json``, what a data set is, what made it, and whether it is finished."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from micro.data.files import write_whole
from micro.data.shards import SCHEMA, probe, read_shard, shard_name
from micro.data.source import Field

FILE = "dataset.json"
SHARD = re.compile(r"shard-\d{4,}\.h5")

# What determines the content of a sample, bit for bit. The number of samples does not, so a set may grow.
DECIDES = ("schema", "source", "seed", "block", "device", "threads", "parameters", "tolerances", "arrays")

# The entries of a manifest, or of a part of it, with their types.
ENTRIES: dict[str, tuple[type, ...]] = {
    "schema": (int,), "source": (str,), "seed": (int,), "block": (int,), "device": (str,), "threads": (int,),
    "parameters": (dict,), "tolerances": (dict,), "arrays": (dict,), "samples": (int,), "code": (dict,),
    "environment": (dict,), "command": (str,), "parameter_hash": (str,), "complete": (bool,),
    "hash": (str, type(None)), "failed": (int, type(None)), "shards": (list,),
}  # fmt: skip
CODE: dict[str, tuple[type, ...]] = {"version": (str,), "hash": (str,), "modules": (dict,)}
ARRAY: dict[str, tuple[type, ...]] = {"units": (str,), "shape": (list,), "axes": (str,)}
SHARD_ENTRY: dict[str, tuple[type, ...]] = {
    "file": (str,), "first": (int,), "samples": (int,), "failed": (int,), "hash": (str,),
}  # fmt: skip
WORDS = {int: "an integer", str: "a text", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}


def parameter_hash(manifest: dict) -> str:
    """Hash all that determines the content: parameters, seed, block, device, threads and code."""
    decisive = {key: manifest[key] for key in DECIDES} | {"code": manifest["code"]["hash"]}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def write_manifest(directory: Path, manifest: dict) -> None:
    """Write ``dataset.json`` whole or not at all; OSError where it cannot be written."""
    write_whole(directory / FILE, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def check_entries(path: Path, where: str, found: Any, wanted: dict[str, tuple[type, ...]]) -> None:
    """Check that an object of a manifest has its entries, each of its type.

    Args:
        path: the file, for the sentence.
        where: which object it is, for instance "code"; empty for the manifest itself.
        found: the object.
        wanted: types by name of the entry.

    Raises:
        ValueError: one sentence names the entry that is missing or of another type.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{where} in {path} must be an object, got {found!r:.40}.")
    for name, types in wanted.items():
        full = f"{where}.{name}" if where else name
        if name not in found:
            raise ValueError(f"{full} is missing in {path}.")
        value = found[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            kinds = " or ".join(WORDS[kind] for kind in types)
            raise ValueError(f"{full} in {path} must be {kinds}, got {value!r:.40}.")


def check_manifest(path: Path, manifest: Any) -> None:
    """Check the entries of a manifest and their types.

    Raises:
        ValueError: one sentence names the entry that does not fit.
    """
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"schema in {path} is {found!r:.40}, this reader knows {SCHEMA}.")
    check_entries(path, "", manifest, ENTRIES)
    check_entries(path, "code", manifest["code"], CODE)
    for name in ("samples", "block"):
        if manifest[name] < 1:
            raise ValueError(f"{name} in {path} must be positive, got {manifest[name]}.")
    for name, entry in manifest["arrays"].items():
        check_entries(path, f"arrays.{name}", entry, ARRAY)
        if not all(type(n) is int and n >= 0 for n in entry["shape"]):
            raise ValueError(f"arrays.{name}.shape in {path} must hold integers, got {entry['shape']!r:.40}.")
        if not isinstance(entry.get("names", []), list):
            raise ValueError(f"arrays.{name}.names in {path} must be a list, got {entry['names']!r:.40}.")
    for number, entry in enumerate(manifest["shards"]):
        check_entries(path, f"shards[{number}]", entry, SHARD_ENTRY)
    if manifest["complete"] and len(manifest["shards"]) != block_count(manifest):
        raise ValueError(
            f"shards in {path} must list the {block_count(manifest)} shards of {manifest['samples']} samples, "
            f"it lists {len(manifest['shards'])}."
        )


def read_manifest(directory: Path) -> dict:
    """Read ``dataset.json`` and check that it is one.

    Raises:
        ValueError: it is missing, damaged, edited, or of a schema this reader does not know.
    """
    path = directory / FILE
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory.")
    if not path.is_file():
        raise ValueError(f"{directory} is not a data set: it has no {FILE}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not valid JSON.") from None
    check_manifest(path, manifest)
    if parameter_hash(manifest) != manifest["parameter_hash"]:
        raise ValueError(f"parameter_hash in {path} is not that of its parameters: the file was edited.")
    return manifest


def fields_of(manifest: dict) -> dict[str, Field]:
    """Return units and shape of the arrays of a set, by name."""
    return {
        name: Field(
            str(entry["units"]), tuple(int(n) for n in entry["shape"]), str(entry["axes"]),
            tuple(str(word) for word in entry.get("names", ())),
        )
        for name, entry in manifest["arrays"].items()
    }  # fmt: skip


def describe_fields(fields: dict[str, Field]) -> dict[str, dict]:
    """Return the entry ``arrays`` of a manifest, the inverse of `fields_of`."""
    return {
        name: {"units": field.units, "shape": list(field.shape), "axes": field.axes}
        | ({"names": list(field.names)} if field.names else {})
        for name, field in fields.items()
    }


def block_count(manifest: dict) -> int:
    """Return the number of blocks, and of shards, of the finished set."""
    return -(-manifest["samples"] // manifest["block"])


def block_ids(manifest: dict, number: int) -> range:
    """Return the sample ids of a block."""
    first = number * manifest["block"]
    return range(first, min(first + manifest["block"], manifest["samples"]))


def shard_files(directory: Path) -> set[str]:
    """Return the names of all shards in a directory, also of those that do not belong to the set."""
    return {entry.name for entry in os.scandir(directory) if SHARD.fullmatch(entry.name)}


def shard_entry(number: int, arrays: dict[str, np.ndarray], digest: str) -> dict:
    """Return the entry of the manifest for a shard."""
    failed = int(np.count_nonzero(arrays["status"]))
    return {
        "file": shard_name(number), "first": int(arrays["sample"][0]), "samples": len(arrays["sample"]),
        "failed": failed, "hash": digest,
    }  # fmt: skip


def read_blocks(directory: Path, manifest: dict, numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Read blocks of a set one after another, each compared with the manifest."""
    fields = fields_of(manifest)
    probe([directory / shard_name(number) for number in numbers])
    for number in numbers:
        ids = block_ids(manifest, number)
        yield number, read_shard(directory / shard_name(number), fields, manifest["parameter_hash"], ids)


def first_difference(begun: dict, asked: dict) -> str | None:
    """Return one sentence on what prevents a job from continuing a set, None if nothing does.

    Args:
        begun: manifest of the set in the directory.
        asked: manifest of the job that wants to continue it.
    """
    asked = json.loads(json.dumps(asked))  # as it would be read from a file: tuples are lists there
    for key in DECIDES:
        old, new, name = begun[key], asked[key], key
        if isinstance(old, dict) and isinstance(new, dict):
            for inner in sorted(old.keys() | new.keys()):
                if old.get(inner) != new.get(inner):
                    old, new, name = old.get(inner), new.get(inner), f"{key}.{inner}"
                    break
        if old != new:
            return f"{name} is {new!r}, but the set was begun with {old!r}."
    if begun["code"]["hash"] != asked["code"]["hash"]:
        modules, now = begun["code"]["modules"], asked["code"]["modules"]
        changed = [name for name in sorted(modules.keys() | now.keys()) if modules.get(name) != now.get(name)]
        named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more modules" if len(changed) > 3 else "")
        return f"code of {named} is not the code the set was begun with ({begun['code']['version']})."
    if asked["samples"] < begun["samples"]:
        return f"samples is {asked['samples']}, but the set was begun with {begun['samples']} and cannot shrink."
    return None
