"""Data set: read what ``micro.generate`` wrote, whole or not at all.

``python3 -m micro.data.dataset DIR`` checks a set and prints a summary of its content.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from micro.data.cli import Parser, write_summary
from micro.data.manifest import block_count, fields_of, read_blocks, read_manifest, shard_entry, shard_files
from micro.data.shards import OWN_FIELDS, content_hash, is_shard_of, shard_name, shard_number

logger = logging.getLogger(__name__)

# Units and axes of the arrays of a set of strain paths.
PATHS = {
    "U": ("1", ("n", "T", "6")),
    "stress": ("Pa", ("n", "T", "6")),
    "time": ("1", ("n", "T")),
    "duration": ("s", ("n",)),
}


@dataclass(frozen=True)
class Dataset:
    """Strain paths and the stress along them, good samples alone, in the order of their ids.

    Attributes:
        U: right stretch (n, T, 6), order 11, 22, 33, 12, 23, 13.
        stress: Cauchy stress (n, T, 6), Pa, in the frame of U, same order.
        duration: duration of each path (n,), s.
        time: time relative to the duration (n, T), from 0 to 1.
        ids: sample ids (n,).
        meta: the manifest, ``dataset.json``.
        hash: content hash of all samples read, failed ones too.
        failed: reason of each failed sample by id.
    """

    U: np.ndarray
    stress: np.ndarray
    duration: np.ndarray
    time: np.ndarray
    ids: np.ndarray
    meta: dict
    hash: str
    failed: dict[int, str] = field(default_factory=dict)


def check_shards(directory: Path, manifest: dict, allow_partial: bool) -> list[int]:
    """Return the numbers of the shards to read.

    Raises:
        ValueError: the set is not finished, or a shard is missing or superfluous.
    """
    count, there = block_count(manifest), shard_files(directory)
    numbers = sorted(shard_number(name) for name in there)
    extra = [name for name in sorted(there) if not is_shard_of(name, count)]
    if extra:
        raise ValueError(f"{extra[0]} in {directory} is not part of the data set.")
    if not manifest["complete"]:
        if not allow_partial:
            raise ValueError(
                f"{directory} is not finished: {len(there)} of {count} shards are there; "
                "run the command that began it again."
            )
        return numbers
    for number, entry in enumerate(manifest["shards"]):  # as many as there are blocks, `read_manifest` has checked
        if entry["file"] != shard_name(number):
            raise ValueError(f"shards in {directory}/dataset.json must list {shard_name(number)}, got {entry['file']}.")
        if entry["file"] not in there:
            raise ValueError(f"{entry['file']} is missing in {directory}.")
    return numbers


def read_arrays(path: str | Path, *, allow_partial: bool = False) -> tuple[dict[str, np.ndarray], dict, str]:
    """Read every array of a set of any source, strictly.

    Args:
        path: directory of the set.
        allow_partial: read the shards that are there of a set that is not finished.

    Returns:
        Arrays by name, with ``sample``, ``status`` and ``reason``; the manifest; the content hash.

    Raises:
        ValueError: the set is missing, unfinished, mixed, truncated or changed; the sentence names it.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    numbers = check_shards(directory, manifest, allow_partial)
    if not numbers:
        raise ValueError(f"{directory} holds no shard yet.")
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in OWN_FIELDS | fields_of(manifest)}

    def read() -> Iterator[dict[str, np.ndarray]]:
        for number, arrays in read_blocks(directory, manifest, numbers):
            entry = shard_entry(number, arrays, content_hash([arrays]))
            if manifest["complete"] and manifest["shards"][number] != entry:
                raise ValueError(f"{shard_name(number)} is not the shard that dataset.json lists (hash differs).")
            for name, array in arrays.items():
                pieces[name].append(array)
            yield arrays

    digest = content_hash(read())
    if manifest["complete"] and digest != manifest["hash"]:
        raise ValueError(f"hash in {directory}/dataset.json is not that of the content.")
    return {name: np.concatenate(parts) for name, parts in pieces.items()}, manifest, digest


def good_samples(arrays: dict[str, np.ndarray], path: str | Path) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Leave out the samples that failed, and log how many.

    Args:
        arrays: arrays by name, with ``sample``, ``status`` and ``reason``.
        path: directory of the set.

    Returns:
        The arrays of the good samples; the reason of each failed sample by id.

    Raises:
        ValueError: there is no good sample.
    """
    good = arrays["status"] == 0
    failed = {int(arrays["sample"][i]): str(arrays["reason"][i]) for i in np.flatnonzero(~good)}
    if not good.any():
        raise ValueError(f"{path} has no good sample: all {len(good)} have failed.")
    if failed:
        first = next(iter(failed.items()))
        logger.warning("%d of %d samples failed and are left out, the first is %d: %s", len(failed), len(good), *first)
        arrays = {name: array[good] for name, array in arrays.items()}
    return arrays, failed


def read_dataset(path: str | Path, *, allow_partial: bool = False) -> Dataset:
    """Read a set of strain paths and stresses; failed samples are left out, counted and logged.

    Args:
        path: directory of the set.
        allow_partial: read the shards that are there of a set that is not finished.

    Raises:
        ValueError: the set is missing, unfinished, mixed, truncated, changed, of another kind, or has no good sample.
    """
    arrays, manifest, digest = read_arrays(path, allow_partial=allow_partial)
    for name, (units, axes) in PATHS.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing in {path}: it is not a set of strain paths.")
        if manifest["arrays"][name]["units"] != units:
            raise ValueError(f"{name} in {path} must have units {units!r}, got {manifest['arrays'][name]['units']!r}.")
        if arrays[name].shape[1:] != arrays["U"].shape[1 : len(axes)] or len(axes) != arrays[name].ndim:
            raise ValueError(f"{name} in {path} must have shape ({', '.join(axes)}), got {arrays[name].shape}.")
    if arrays["U"].shape[2] != 6:
        raise ValueError(f"U in {path} must have shape (n, T, 6), got {arrays['U'].shape}.")
    arrays, failed = good_samples(arrays, path)
    return Dataset(
        U=arrays["U"], stress=arrays["stress"], duration=arrays["duration"], time=arrays["time"],
        ids=arrays["sample"], meta=manifest, hash=digest, failed=failed,
    )  # fmt: skip


def summary(path: str | Path, allow_partial: bool = False) -> str:
    """Return a summary of a set, in a few lines, after all checks of the reader."""
    arrays, manifest, digest = read_arrays(path, allow_partial=allow_partial)
    good, finished = arrays["status"] == 0, "finished" if manifest["complete"] else "unfinished"
    lines = [
        f"source    {manifest['source']}, seed {manifest['seed']}, code {manifest['code']['version']}",
        f"samples   {len(good)} of {manifest['samples']}, {int((~good).sum())} failed, {finished}",
        f"hash      {digest}",
        f"command   {manifest['command']}",
    ]
    for name, entry in sorted(manifest["arrays"].items()):
        values = arrays[name][good]
        span = f"{values.min():.4g} to {values.max():.4g}" if values.size else "no good sample"
        lines.append(f"{name:9s} {arrays[name].shape} {entry['units']}: {span}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Check a set from the command line and print its summary; return 2 if it is refused, 1 if the machine fails."""
    parser = Parser(prog="micro.data.dataset", description="Check a data set and print a summary of its content.")
    parser.add_argument("path", type=Path, metavar="DIR", help="directory of the data set")
    parser.add_argument("--allow-partial", action="store_true", help="read the finished shards of an unfinished set")
    try:
        arguments = parser.parse_args(argv)
        text = summary(arguments.path, arguments.allow_partial)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, MemoryError) as error:
        sys.stderr.write(f"The data set cannot be read: {error or 'memory is exhausted'}.\n")
        return 1
    return write_summary(text)


if __name__ == "__main__":
    sys.exit(main())
