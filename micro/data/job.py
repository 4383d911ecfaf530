"""Data job: the blocks of a data set, shared among ranks, safe against a kill at any moment.

A block is a fixed run of sample ids, solved alone and written as one shard in one stroke. A rank takes a block by
creating a claim, a file that only one rank can create, so that no rank has to hand out work. Claims live in a
directory of this run alone: what a killed run left behind claims nothing.
"""

import fcntl
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

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
from micro.data.shards import content_hash, shard_name, write_shard
from micro.data.source import Source

logger = logging.getLogger(__name__)
STOP = "stop"
LOG_PAUSE = 15.0  # s between log lines where stderr is no terminal


class Lock:
    """Keeps a second job out of a directory; the system frees it however this process ends.

    Args:
        directory: what to keep others out of.

    Raises:
        ValueError: another job is in.
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
            logger.warning("The file system has no locks (%s): start no second job on %s.", error, directory)
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.file.flush()

    def release(self) -> None:
        """Let others in."""
        if self.file is not None:
            self.file.close()
            self.file = None


class Progress:
    """Blocks done by all ranks, on rank 0: a bar on a terminal, a log line now and then elsewhere.

    Args:
        directory: where the shards appear.
        total: blocks of the finished set.
        todo: blocks that were missing at the start.
        block: samples a block.
    """

    def __init__(self, directory: Path, total: int, todo: int, block: int) -> None:
        self.directory, self.total, self.block = directory, total, block
        self.done = self.begun = total - todo
        self.start, self.last, self.bar = time.monotonic(), 0.0, None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=self.done, unit="block", desc="samples", dynamic_ncols=True)

    def update(self, last: bool = False) -> None:
        """Count the shards that are there."""
        now = time.monotonic()
        if now - self.last < (0.5 if self.bar is not None else LOG_PAUSE) and not last:
            return
        self.last, done = now, min(len(shard_files(self.directory)), self.total)
        if self.bar is not None:
            self.bar.update(done - self.done)
        elif done > self.done or last:
            rate = (done - self.begun) / max(now - self.start, 1e-9)
            left = f", {(self.total - done) / rate / 60:.1f} min left" if rate > 0 and done < self.total else ""
            logger.info("%d of %d blocks, %.3g samples/s%s", done, self.total, rate * self.block, left)
        self.done = done

    def close(self) -> None:
        """End the bar."""
        self.update(last=True)
        if self.bar is not None:
            self.bar.close()


def open_set(directory: Path, manifest: dict) -> tuple[list[int], dict]:
    """Begin a set, or go on with the one that is there; rank 0 only.

    Args:
        directory: the set's directory.
        manifest: what the job would make.

    Returns:
        Numbers of the blocks to be made, and the manifest in force.

    Raises:
        ValueError: the directory holds another set; one sentence names the field that differs.
    """
    for stale in [*directory.glob(".*.part"), *directory.glob(".claims-*")]:
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
    if not (directory / FILE).exists():
        if shard_files(directory):
            raise ValueError(f"output {directory} holds shards but no {FILE}; choose another directory.")
        write_manifest(directory, manifest)
        return list(range(block_count(manifest))), manifest
    begun = read_manifest(directory)
    difference = first_difference(begun, manifest)
    if difference:
        raise ValueError(f"{difference[:-1]}; give the same or another output than {directory}.")
    merged = begun | {key: manifest[key] for key in ("samples", "command")}
    todo = [number for number in range(block_count(merged)) if not is_whole(directory, merged, number)]
    if todo or merged["samples"] != begun["samples"]:
        merged |= {"complete": False, "hash": None, "failed": None, "shards": []}
        write_manifest(directory, merged)
    return todo, merged


def is_whole(directory: Path, manifest: dict, number: int) -> bool:
    """Tell whether a block's shard is there and whole; a damaged one is taken away, to be made again."""
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
    """Read every shard back, hash the content and call the set finished; rank 0 only.

    Returns:
        The finished manifest.

    Raises:
        ValueError: a shard is missing, damaged, of another set, or one too many.
    """
    entries, count = [], block_count(manifest)
    extra = shard_files(directory) - {shard_name(number) for number in range(count)}
    if extra:
        raise ValueError(f"{min(extra)} does not belong to the set in {directory}.")

    def read() -> Iterator[dict[str, np.ndarray]]:
        for number, arrays in read_blocks(directory, manifest, list(range(count))):
            entries.append(shard_entry(number, arrays, content_hash([arrays])))
            yield arrays

    digest = content_hash(read())
    failed = sum(entry["failed"] for entry in entries)
    finished = manifest | {"complete": True, "hash": digest, "failed": failed, "shards": entries}
    write_manifest(directory, finished)
    return finished


def make_block(directory: Path, manifest: dict, source: Source, number: int) -> None:
    """Solve one block and write its shard; a sample that failed is kept, with its reason."""
    ids, fields = block_ids(manifest, number), fields_of(manifest)
    block = source.solve(ids)
    reason = list(block.reason) or [""] * len(ids)
    if set(block.arrays) != set(fields) or len(reason) != len(ids):
        raise RuntimeError(f"source {source.name} must return {', '.join(fields)} and a reason for each sample.")
    arrays: dict[str, np.ndarray] = {"sample": ids}
    for name, field in fields.items():
        array = np.array(block.arrays[name], dtype=np.float64)
        if array.shape != (len(ids), *field.shape):
            raise RuntimeError(f"{name} must have shape {(len(ids), *field.shape)}, got {array.shape}.")
        finite = np.isfinite(array.reshape(len(ids), -1)).all(axis=1)
        for i in np.flatnonzero(~finite):
            reason[i] = reason[i] or f"{name} is not finite"
            array[i][~np.isfinite(array[i])] = np.nan  # one bit pattern for all that is no number
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


def share(claims: Path, todo: list[int], work: Callable[[int], None], progress: Progress | None) -> None:
    """Work on blocks as long as one is free and no rank has asked to stop."""
    for number in todo:
        if (claims / STOP).exists():
            return
        if claim(claims, number):
            work(number)
            if progress is not None:
                progress.update()


def run(source: Source, directory: Path, manifest: dict, ranks: Ranks) -> dict:
    """Make a data set, or what is missing of it; collective.

    Args:
        source: what makes the samples, the same on all ranks.
        directory: the set's directory, on a file system that all ranks see.
        manifest: what the set is to be, from rank 0.
        ranks: the processes that share the work.

    Returns:
        The finished manifest, on all ranks.

    Raises:
        ValueError: the directory holds another set or is in use.
        KeyboardInterrupt: the user stopped the job; the same command goes on with it.
        RuntimeError: a rank failed; the sentence names it.
    """
    lock: Lock | None = None
    progress: Progress | None = None
    error = ""

    def begin() -> tuple[list[int], dict, str]:
        nonlocal lock
        if directory.exists() and not directory.is_dir():
            raise ValueError(f"output must be a directory, {directory} is a file.")
        directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(directory)
        todo, merged = open_set(directory, manifest)
        claims = f".claims-{uuid.uuid4().hex}"
        (directory / claims).mkdir()
        return todo, merged, claims

    def end() -> dict:
        shutil.rmtree(claims, ignore_errors=True)
        return close_set(directory, manifest)

    try:
        todo, manifest, name = ranks.on_first(begin)
        claims = directory / name
        if ranks.rank == 0:
            progress = Progress(directory, block_count(manifest), len(todo), manifest["block"])
        try:
            share(claims, todo, lambda number: make_block(directory, manifest, source, number), progress)
        except KeyboardInterrupt:
            error = STOP
        except Exception as caught:  # any failure here must reach the other ranks, or they wait for ever
            logger.debug("rank %d", ranks.rank, exc_info=True)
            error = f"rank {ranks.rank} failed: {type(caught).__name__}: {caught}"
        if error:
            (claims / STOP).touch()
        ranks.wait(progress.update if progress is not None else None)
        errors = [text for text in ranks.allgather(error) if text]
        if progress is not None:
            progress.close()
        if errors:
            if ranks.rank == 0:
                shutil.rmtree(claims, ignore_errors=True)
            failures = [text for text in errors if text != STOP]
            raise RuntimeError(failures[0]) if failures else KeyboardInterrupt
        return ranks.on_first(end)
    finally:
        if lock is not None:
            lock.release()
