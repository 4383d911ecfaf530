"""Manifest: ``dataset.json``, what a data set is, what made it, and whether it is finished."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from micro.data.shards import SCHEMA, part_name, publish, read_shard, shard_name
from micro.data.source import Field

FILE = "dataset.json"
SHARD = re.compile(r"shard-\d{4,}\.h5")

# What decides the content of a sample, bit for bit; the number of samples does not, so a set may grow.
DECIDES = ("schema", "source", "seed", "block", "device", "threads", "parameters", "tolerances", "arrays")
KEYS = (*DECIDES, "samples", "code", "environment", "command", "parameter_hash", "complete", "hash", "failed", "shards")


def parameter_hash(manifest: dict) -> str:
    """Hash all that decides the content: parameters, seed, block, device, threads and code."""
    decisive = {key: manifest[key] for key in DECIDES} | {"code": manifest["code"]["hash"]}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def write_manifest(directory: Path, manifest: dict) -> None:
    """Write ``dataset.json`` in one stroke."""
    path = directory / FILE
    part = part_name(path)
    try:
        part.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_manifest(directory: Path) -> dict:
    """Read ``dataset.json`` and check that it is one.

    Raises:
        ValueError: it is missing, damaged, or of a schema this reader does not know.
    """
    path = directory / FILE
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory.")
    if not path.is_file():
        raise ValueError(f"{directory} is not a data set: it has no {FILE}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not valid JSON.") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"schema in {path} is {found}, this reader knows {SCHEMA}.")
    for key in KEYS:
        if key not in manifest:
            raise ValueError(f"{key} is missing in {path}.")
    for key in ("samples", "block"):
        if not isinstance(manifest[key], int) or manifest[key] < 1:
            raise ValueError(f"{key} in {path} must be a positive integer, got {manifest[key]!r}.")
    try:
        fields_of(manifest)
        computed = parameter_hash(manifest)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"arrays or code in {path} is malformed.") from None
    if computed != manifest["parameter_hash"]:
        raise ValueError(f"parameter_hash in {path} is not that of its parameters: the file was edited.")
    return manifest


def fields_of(manifest: dict) -> dict[str, Field]:
    """Return what the arrays of a set are, by name."""
    return {
        name: Field(str(entry["units"]), tuple(int(n) for n in entry["shape"]), str(entry["axes"]))
        for name, entry in manifest["arrays"].items()
    }


def block_count(manifest: dict) -> int:
    """Return the number of blocks, and of shards, of the finished set."""
    return -(-manifest["samples"] // manifest["block"])


def block_ids(manifest: dict, number: int) -> np.ndarray:
    """Return the sample ids of a block (s,)."""
    first = number * manifest["block"]
    return np.arange(first, min(first + manifest["block"], manifest["samples"]), dtype=np.int64)


def shard_files(directory: Path) -> set[str]:
    """Name the shards in a directory, wanted or not."""
    return {entry.name for entry in os.scandir(directory) if SHARD.fullmatch(entry.name)}


def shard_entry(number: int, arrays: dict[str, np.ndarray], digest: str) -> dict:
    """Return what the manifest says of a shard."""
    failed = int(np.count_nonzero(arrays["status"]))
    return {
        "file": shard_name(number), "first": int(arrays["sample"][0]), "samples": len(arrays["sample"]),
        "failed": failed, "hash": digest,
    }  # fmt: skip


def read_blocks(directory: Path, manifest: dict, numbers: list[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Read blocks of a set one after another, each held to the manifest."""
    fields = fields_of(manifest)
    for number in numbers:
        ids = block_ids(manifest, number)
        yield number, read_shard(directory / shard_name(number), fields, manifest["parameter_hash"], ids)


def first_difference(begun: dict, asked: dict) -> str | None:
    """Say in one sentence what keeps a job from going on with a set, None where nothing does.

    Args:
        begun: manifest of the set in the directory.
        asked: manifest of the job that wants to go on with it.
    """
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
        return f"code of {', '.join(changed)} is not the code the set was begun with ({begun['code']['version']})."
    if asked["samples"] < begun["samples"]:
        return f"samples is {asked['samples']}, but the set was begun with {begun['samples']} and cannot shrink."
    return None
