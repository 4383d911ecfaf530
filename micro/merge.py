"""One data set of several: ``python3 -m micro.merge A B ... --output C``.

The sets must have the same source, parameters, tolerances, arrays and code, and different seeds; device, threads, block
and number of samples may differ. The merged set is a set like any other, with its content hash. Its samples are
numbered from 0 in the order of the sets. The arrays ``source_set`` and ``source_sample`` say for each of them the set,
by its content hash, and the id there; the manifest lists the sets with seed, samples, hash and command. Failed samples
stay, with their reasons. A merged set may be merged again: its sets are then listed one by one.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from micro.data.cli import Parser, check_disk, write_summary
from micro.data.job import close_set
from micro.data.manifest import (
    block_count,
    describe_fields,
    fields_of,
    parameter_hash,
    read_blocks,
    read_manifest,
    write_manifest,
)
from micro.data.provenance import environment_record
from micro.data.shards import shard_name, write_shard
from micro.data.source import Field

#: Arrays that a merged set has besides.
ORIGIN = ("source_set", "source_sample")
#: What sets must have in common.
COMMON = ("schema", "source", "parameters", "tolerances", "arrays")


@dataclass(frozen=True)
class Part:
    """A set that is merged.

    Attributes:
        directory: where it is.
        manifest: its manifest.
        origins: entries of the sets that it consists of: itself, or those of which it was merged.
    """

    directory: Path
    manifest: dict
    origins: list[dict]

    @property
    def common(self) -> dict:
        """What sets must have in common, without what merging adds."""
        entries = {key: self.manifest[key] for key in COMMON}
        entries["parameters"] = {k: v for k, v in entries["parameters"].items() if k != "merged"}
        entries["arrays"] = {k: v for k, v in entries["arrays"].items() if k not in ORIGIN}
        return entries


def read_part(directory: Path) -> Part:
    """Read the manifest of a set.

    Raises:
        ValueError: it is not a set, or not finished.
    """
    manifest = read_manifest(directory)
    if not manifest["complete"]:
        raise ValueError(f"{directory} is not finished; run the command that began it again.")
    own = {key: manifest[key] for key in ("seed", "samples", "hash", "command", "device", "threads", "block")}
    return Part(directory, manifest, manifest["parameters"].get("merged", [own]))


def check_equal(parts: Sequence[Part]) -> None:
    """Check that sets can be merged.

    Raises:
        ValueError: one sentence names the first entry that differs, or the seed that two sets have in common.
    """
    first = parts[0]
    for other in parts[1:]:
        for key in COMMON:
            a, b = first.common[key], other.common[key]
            if a != b:
                name = key
                if isinstance(a, dict) and isinstance(b, dict):
                    inner = next(k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k))
                    a, b, name = a.get(inner), b.get(inner), f"{key}.{inner}"
                raise ValueError(
                    f"{name} must be the same in all sets, "
                    f"{other.directory} has {b!r:.60}, {first.directory} {a!r:.60}."
                )
        if first.manifest["code"]["hash"] != other.manifest["code"]["hash"]:
            versions = first.manifest["code"]["version"], other.manifest["code"]["version"]
            raise ValueError(
                f"code must be the same in all sets, {other.directory} has {versions[1]}, not {versions[0]}."
            )
    seeds: dict[int, Path] = {}
    for part in parts:
        for origin in part.origins:
            if origin["seed"] in seeds:
                raise ValueError(
                    f"seed must differ, {part.directory} and {seeds[origin['seed']]} both have {origin['seed']}: "
                    "they hold the same samples."
                )
            seeds[origin["seed"]] = part.directory


def merged_manifest(parts: Sequence[Part], output: Path) -> dict:
    """Return the manifest of the merged set, not yet finished."""
    first = parts[0]
    origins = [origin for part in parts for origin in part.origins]
    names = tuple(str(origin["hash"]) for origin in origins)
    fields = {name: field for name, field in fields_of(first.manifest).items() if name not in ORIGIN}
    fields |= {
        "source_set": Field("1", (), "set of the sample, by its content hash", names),
        "source_sample": Field("1", (), "id of the sample in its set"),
    }
    command = ["python3", "-m", "micro.merge", *(str(part.directory) for part in parts), "--output", str(output)]
    manifest = first.manifest | {
        "samples": sum(part.manifest["samples"] for part in parts),
        "parameters": first.common["parameters"] | {"merged": origins},
        "arrays": describe_fields(fields),
        "environment": environment_record(),
        "command": shlex.join(command),
        "complete": False, "hash": None, "failed": None, "shards": [],
    }  # fmt: skip
    return manifest | {"parameter_hash": parameter_hash(manifest)}


def samples_of(parts: Sequence[Part]) -> Iterator[dict[str, np.ndarray]]:
    """Return the shards of all sets one after another, with the origin of each sample; the shards are checked."""
    begun = 0
    for part in parts:
        for _, arrays in read_blocks(part.directory, part.manifest, range(block_count(part.manifest))):
            if "merged" in part.manifest["parameters"]:
                arrays["source_set"] = (arrays["source_set"] + begun).astype(np.int16)
            else:
                arrays["source_set"] = np.full(len(arrays["sample"]), begun, dtype=np.int16)
                arrays["source_sample"] = arrays["sample"].astype(np.float64)
            yield arrays
        begun += len(part.origins)


def rebatch(shards: Iterator[dict[str, np.ndarray]], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Cut samples anew into blocks of `size` and number them from 0."""
    rest: dict[str, np.ndarray] | None = None
    first = 0
    for arrays in shards:
        rest = arrays if rest is None else {name: np.concatenate([rest[name], arrays[name]]) for name in arrays}
        while len(rest["sample"]) >= size:
            block, rest = {k: v[:size] for k, v in rest.items()}, {k: v[size:] for k, v in rest.items()}
            yield block | {"sample": np.arange(first, first + size, dtype=np.int64)}
            first += size
    if rest is not None and len(rest["sample"]):
        yield rest | {"sample": np.arange(first, first + len(rest["sample"]), dtype=np.int64)}


def merge(sets: Sequence[str | Path], output: str | Path) -> dict:
    """Merge data sets into a new one.

    Args:
        sets: directories of at least two finished sets.
        output: directory of the merged set, new or empty.

    Returns:
        The manifest of the merged set.

    Raises:
        ValueError: the sets do not fit together, one is damaged, or the output is not empty.
        OSError: a file cannot be written.
    """
    directory = Path(output)
    if len(sets) < 2:
        raise ValueError(f"merge needs at least two sets, got {len(sets)}.")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"output must be a new or empty directory, {directory} is not.")
    parts = [read_part(Path(path)) for path in sets]
    check_equal(parts)
    manifest = merged_manifest(parts, directory)
    size = sum(file.stat().st_size for part in parts for file in part.directory.glob("shard-*.h5"))
    check_disk("the merged samples", size, directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_manifest(directory, manifest)
    fields = fields_of(manifest)
    for number, arrays in enumerate(rebatch(samples_of(parts), manifest["block"])):
        write_shard(directory / shard_name(number), arrays, fields, manifest["parameter_hash"])
    return close_set(directory, manifest)


def main(argv: Sequence[str] | None = None) -> int:
    """Merge sets from the command line; return 2 if they are refused, 1 if the machine fails."""
    parser = Parser(prog="micro.merge", description=(__doc__ or "").split("\n\n", 1)[1])
    parser.add_argument("sets", nargs="+", type=Path, metavar="DATA", help="directories of the data sets")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="directory of the merged set")
    try:
        arguments = parser.parse_args(argv)
        manifest = merge(arguments.sets, arguments.output)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, MemoryError) as error:
        sys.stderr.write(f"The sets cannot be merged: {error or 'memory is exhausted'}.\n")
        return 1
    return write_summary(f"{manifest['samples']} samples, {manifest['failed']} failed, hash {manifest['hash']}")


if __name__ == "__main__":
    sys.exit(main())
