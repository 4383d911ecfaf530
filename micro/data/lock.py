"""Lock: one job at a time writes to a directory."""

import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


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
