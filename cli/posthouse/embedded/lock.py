"""One stack per folder at a time, without process ids: the kernel drops a lock when its holder is gone.

Two locks. ``lock`` is ours alone: whoever holds it runs. ``lock.children`` is handed on to the children, so that it stays
taken until the last one of a killed stack has ended; the next start waits for that.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from posthouse.embedded.process import never, wait_for
from shared.errors import ConfigurationError

CHILDREN_SECONDS = 20.0
"""How long the children of a killed stack may take to end; they drain for 5 s, and Postgres writes a checkpoint."""


class FolderLock:
    """Holds a folder. ``held`` are the descriptors that children keep open."""

    def __init__(self, folder: Path, *, what: str) -> None:
        """Name the folder, which exists, and what runs on it, for messages."""
        self._folder, self._what = folder, what
        self._ours: int | None = None
        self._children: int | None = None

    @property
    def held(self) -> tuple[int, ...]:
        """Descriptors for :attr:`Command.held`; empty while the folder is not held."""
        return () if self._children is None else (self._children,)

    def take(self, *, stopped: Callable[[], bool] = never, seconds: float = CHILDREN_SECONDS) -> None:
        """Take the folder, or return at once where it is ours already.

        Raises:
            ConfigurationError: another process runs on it, or children of an earlier one do not end.
            Interrupted: ``stopped`` said so.
        """
        if self._ours is not None:
            return
        ours = _open(self._folder / "lock")
        if not _try(ours):
            owner = os.pread(ours, 32, 0).decode(errors="replace").strip()
            os.close(ours)
            raise ConfigurationError(
                f"{self._what} runs on {self._folder} already (process {owner or 'unknown'}): stop it, or use another --data-dir"
            )
        os.ftruncate(ours, 0)
        os.pwrite(ours, f"{os.getpid()}\n".encode(), 0)
        self._ours = ours
        children = self._children = _open(self._folder / "lock.children")
        try:
            free = wait_for(lambda: _try(children), seconds=seconds, stopped=stopped)
        except BaseException:
            self.release()
            raise
        if not free:
            self.release()
            raise ConfigurationError(
                f"processes of the last run on {self._folder} have not ended within {seconds:.0f} s: end them and start again"
            )

    def release(self) -> None:
        """Give the folder back; children that still run keep their part."""
        for descriptor in (self._children, self._ours):
            if descriptor is not None:
                os.close(descriptor)
        self._ours = self._children = None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
