"""Progress of a data job, on rank 0."""

import logging
import sys
import time
from pathlib import Path

from micro.data.manifest import shard_files

logger = logging.getLogger(__name__)
LOG_PAUSE = 15.0  # s between log lines where stderr is no terminal


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
