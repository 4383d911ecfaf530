"""Data job: the blocks of a data set, distributed among ranks; the job may be killed at any moment.

A block is a fixed range of sample ids, solved alone and written as one shard, whole or not at all. A rank takes a block
by creating a claim, a file that only one rank can create, so that no rank has to distribute work. Claims are kept in
a directory of this run alone, so that those of a killed run have no effect.
"""

import fcntl
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from micro.data.cli import check_disk
from micro.data.manifest import (
    FILE,
    block_count,
    block_ids,
    fields_of,
    first_difference,
    read_blocks,
    read_manifest,
    shard_entry,
    shard_files,
    write_manifest,
)
from micro.data.ranks import Ranks
from micro.data.shards import content_hash, is_shard_of, shard_name, write_shard
from micro.data.source import Source

logger = logging.getLogger(__name__)
STOP = "stop"
LOG_PAUSE = 15.0  # s between log lines where stderr is no terminal
MOST_SHARDS = 1_000_000  # files in one directory
SHARD_BYTES = 4000  # of a shard without its arrays; measured: 4 to 6 kB


class Lock:
    """Lock that keeps a second job out of a directory; the system releases it when this process ends.

    Args:
        directory: the directory that one job at a time may write to.

    Raises:
        ValueError: another job writes to it.
    """

    def __init__(self, directory: Path) -> None:
        self.file: IO[str] | None = open(directory / ".lock", "a+", encoding="utf-8")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            owner = self.file.read().strip() or "another process"
            self.release()
            raise ValueError(f"output {directory} is in use by another job ({owner}).") from None
        except OSError as error:
            logger.warning("The file system has no locks (%s): do not start a second job on %s.", error, directory)
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.file.flush()

    def release(self) -> None:
        """Let other jobs write to the directory."""
        if self.file is not None:
            self.file.close()
            self.file = None


class Progress:
    """Progress of a job in blocks of all ranks, on rank 0: a bar on a terminal, lines in the log elsewhere.

    Args:
        directory: where the shards appear.
        total: blocks of the finished set.
        todo: blocks that were missing at the start.
        block: samples per block.
    """

    def __init__(self, directory: Path, total: int, todo: int, block: int) -> None:
        self.directory, self.total, self.block = directory, total, block
        self.done = self.begun = total - todo
        self.start, self.last, self.bar = time.monotonic(), 0.0, None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=self.done, unit="block", desc="samples", dynamic_ncols=True)

    def update(self, last: bool = False) -> None:
        """Count the shards that exist."""
        now = time.monotonic()
        if now - self.last < (0.5 if self.bar is not None else LOG_PAUSE) and not last:
            return
        self.last, done = now, min(len(shard_files(self.directory)), self.total)
        if self.bar is not None:
            self.bar.update(done - self.done)
        elif done > self.done:
            rate = (done - self.begun) / max(now - self.start, 1e-9)
            left = f", {(self.total - done) / rate / 60:.1f} min left" if rate > 0 and done < self.total else ""
            logger.info("%d of %d blocks, %.3g samples/s%s", done, self.total, rate * self.block, left)
        self.done = done

    def close(self) -> None:
        """End the bar."""
        self.update(last=True)
        if self.bar is not None:
            self.bar.close()


def check_size(directory: Path, manifest: dict) -> None:
    """Check, before any work, that the shards still to be made fit on the disk.

    Raises:
        ValueError: they do not fit, or there are too many of them; the sentence gives the estimate.
    """
    count = block_count(manifest)
    if count > MOST_SHARDS:
        raise ValueError(
            f"samples {manifest['samples']} in blocks of {manifest['block']} make {count} shards, more than "
            f"{MOST_SHARDS}; take a larger block."
        )
    done = len(shard_files(directory)) if directory.is_dir() else 0
    sample = sum(8.0 * float(np.prod(field.shape, dtype=float)) for field in fields_of(manifest).values())
    samples = max(0, manifest["samples"] - done * manifest["block"])
    check_disk(f"samples {manifest['samples']}", samples * sample + max(0, count - done) * SHARD_BYTES, directory)


def open_set(directory: Path, manifest: dict) -> tuple[list[int], dict]:
    """Begin a set, or continue the one that is there; rank 0 only.

    Args:
        directory: the set's directory.
        manifest: what the job would make.

    Returns:
        Numbers of the blocks to be made, and the manifest in force.

    Raises:
        ValueError: the directory holds another set; one sentence names the field that differs.
    """
    for stale in [*directory.glob(".*.part"), *directory.glob(".*.part.*"), *directory.glob(".claims-*")]:
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
    if not (directory / FILE).exists():
        if shard_files(directory):
            raise ValueError(f"output {directory} holds shards but no {FILE}; choose another directory.")
        write_manifest(directory, manifest)
        return list(range(block_count(manifest))), manifest
    begun = read_manifest(directory)
    difference = first_difference(begun, manifest)
    if difference:
        raise ValueError(f"{difference[:-1]}; give the same, or another output than {directory}.")
    merged = begun | {key: manifest[key] for key in ("samples", "command")}
    todo = [number for number in range(block_count(merged)) if not is_whole(directory, merged, number)]
    if todo or merged["samples"] != begun["samples"]:
        merged |= {"complete": False, "hash": None, "failed": None, "shards": []}
        write_manifest(directory, merged)
    return todo, merged


def is_whole(directory: Path, manifest: dict, number: int) -> bool:
    """Return whether the shard of a block exists and is complete; a damaged one is deleted, to be made again."""
    path = directory / shard_name(number)
    if not path.exists():
        return False
    try:
        list(read_blocks(directory, manifest, [number]))
    except ValueError as error:
        if "parameter_hash" in str(error):
            raise
        logger.warning("%s It is made again.", error)
        path.unlink()
        return False
    return True


def close_set(directory: Path, manifest: dict) -> dict:
    """Read every shard back, hash the content and mark the set as finished; rank 0 only.

    Returns:
        The finished manifest.

    Raises:
        ValueError: a shard is missing, damaged, of another set, or superfluous.
    """
    entries, count = [], block_count(manifest)
    extra = sorted(name for name in shard_files(directory) if not is_shard_of(name, count))
    if extra:
        raise ValueError(f"{extra[0]} does not belong to the set in {directory}.")

    def read() -> Iterator[dict[str, np.ndarray]]:
        for number, arrays in read_blocks(directory, manifest, range(count)):
            entries.append(shard_entry(number, arrays, content_hash([arrays])))
            yield arrays

    digest = content_hash(read())
    failed = sum(entry["failed"] for entry in entries)
    finished = manifest | {"complete": True, "hash": digest, "failed": failed, "shards": entries}
    write_manifest(directory, finished)
    return finished


def make_block(directory: Path, manifest: dict, source: Source, number: int) -> None:
    """Solve one block and write its shard; a sample that failed is kept, with its reason."""
    wanted, fields = block_ids(manifest, number), fields_of(manifest)
    ids = np.arange(wanted.start, wanted.stop, dtype=np.int64)
    block = source.solve(ids)
    reason = list(block.reason) or [""] * len(ids)
    if set(block.arrays) != set(fields) or len(reason) != len(ids):
        raise RuntimeError(f"source {source.name} must return {', '.join(fields)} and a reason for each sample.")
    arrays: dict[str, np.ndarray] = {"sample": ids}
    for name, field in fields.items():
        array = np.array(block.arrays[name], dtype=np.int16 if field.names else np.float64)
        if array.shape != (len(ids), *field.shape):
            raise RuntimeError(f"{name} must have shape {(len(ids), *field.shape)}, got {array.shape}.")
        finite = np.isfinite(array.reshape(len(ids), -1)).all(axis=1)
        for i in np.flatnonzero(~finite):
            reason[i] = reason[i] or f"{name} is not finite"
            array[i][~np.isfinite(array[i])] = np.nan  # one bit pattern for all that is not finite
        arrays[name] = array
    arrays["status"] = np.array([1 if text else 0 for text in reason], dtype=np.int8)
    arrays["reason"] = np.array(reason, dtype=object)
    write_shard(directory / shard_name(number), arrays, fields, manifest["parameter_hash"])


def claim(claims: Path, number: int) -> bool:
    """Take a block, unless another rank has it."""
    try:
        os.close(os.open(claims / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def work_on_blocks(claims: Path, todo: Sequence[int], work: Callable[[int], None], progress: Progress | None) -> None:
    """Work on blocks while one is free and no rank has asked to stop."""
    for number in todo:
        if (claims / STOP).exists():
            return
        if claim(claims, number):
            work(number)
            if progress is not None:
                progress.update()


def begin(directory: Path, manifest: dict) -> tuple[Lock, list[int], dict, Path]:
    """Check that the set fits, lock its directory and open it; rank 0 only.

    Returns:
        The lock, the numbers of the blocks to be made, the manifest in force, and the directory of the claims.

    Raises:
        ValueError: the output is a file, too small for the set, in use, or holds another set.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"output must be a directory, {directory} is a file.")
    check_size(directory, manifest)
    directory.mkdir(parents=True, exist_ok=True)
    lock = Lock(directory)
    try:
        todo, merged = open_set(directory, manifest)
        claims = directory / f".claims-{uuid.uuid4().hex}"
        claims.mkdir()
    except BaseException:
        lock.release()
        raise
    return lock, todo, merged, claims


def failure(ranks: Ranks, errors: list[tuple[str, str]]) -> BaseException | None:
    """Return the error that all ranks raise after the work, from kind and text of each rank's error (empty for none).

    A bad argument takes precedence over a failure of the machine, and this over a stop by the user.
    """
    for kind in ("ValueError", "OSError", "RuntimeError", STOP):
        found = [text for name, text in errors if name == kind]
        if found and kind == STOP:
            return KeyboardInterrupt()
        if found:
            return {"ValueError": ValueError, "OSError": OSError, "RuntimeError": RuntimeError}[kind](found[0])
    return None


def work_on(
    claims: Path, todo: Sequence[int], work: Callable[[int], None], ranks: Ranks, progress: Progress | None
) -> None:
    """Work on blocks until none is left or a rank fails; collective, and all ranks end in the same way.

    Raises:
        ValueError: the source refuses its parameters for a sample.
        OSError: a file cannot be written.
        RuntimeError: a rank failed; the sentence names it.
        KeyboardInterrupt: the user stopped the job.
    """
    outcome = ("", "")
    try:
        work_on_blocks(claims, todo, work, progress)
    except KeyboardInterrupt:
        outcome = (STOP, STOP)
    except ValueError as caught:
        outcome = ("ValueError", str(caught))
    except OSError as caught:
        outcome = ("OSError", str(caught))
    except Exception as caught:  # any failure must reach the other ranks, or they would wait for ever
        logger.debug("rank %d", ranks.rank, exc_info=True)
        outcome = ("RuntimeError", f"rank {ranks.rank} failed: {type(caught).__name__}: {caught}")
    if outcome[0]:
        with suppress(OSError):  # on a full disk the others fail themselves, or finish their blocks
            (claims / STOP).touch()
    ranks.wait(progress.update if progress is not None else None)
    error = failure(ranks, ranks.allgather(outcome))
    if progress is not None:
        progress.close()
    if error is not None:
        raise error


def run(source: Source, directory: Path, manifest: dict, ranks: Ranks) -> dict:
    """Make a data set, or what is missing of it; collective.

    Args:
        source: what makes the samples, the same on all ranks.
        directory: the set's directory, on a file system that all ranks see.
        manifest: what the set is to be, from rank 0.
        ranks: the processes that work together.

    Returns:
        The finished manifest, on all ranks.

    Raises:
        ValueError: the directory holds another set, is in use or has too little space, or the parameters do not fit.
        KeyboardInterrupt: the user stopped the job; the same command continues it.
        OSError: a file cannot be written, because the disk is full for instance; the same command continues the set.
        RuntimeError: a rank failed; the sentence names it.
    """
    lock: Lock | None = None
    progress: Progress | None = None
    claims: Path | None = None

    def first() -> tuple[list[int], dict, str]:
        nonlocal lock
        lock, todo, merged, folder = begin(directory, manifest)
        return todo, merged, folder.name

    try:
        todo, merged, name = ranks.on_first(first)
        claims = folder = directory / name
        if ranks.rank == 0:
            progress = Progress(directory, block_count(merged), len(todo), merged["block"])
        work_on(folder, todo, lambda number: make_block(directory, merged, source, number), ranks, progress)
        return ranks.on_first(lambda: close_set(directory, merged))
    finally:
        if ranks.rank == 0 and claims is not None:
            shutil.rmtree(claims, ignore_errors=True)
        if lock is not None:
            lock.release()
