"""A server's certificate that is read again when its files change, so that a renewal needs no restart."""

import asyncio
import ssl
from pathlib import Path

import structlog

from shared.errors import ConfigurationError

LOOK_EVERY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class Certificate:
    """A TLS context for servers, kept in step with two PEM files.

    A context that has loaded a new chain presents it in the next handshake; sessions that stand keep theirs.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """Load the files.

        Raises:
            ConfigurationError: they cannot be read or do not fit each other; names the settings.
        """
        self._chain, self._key = chain, key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._seen = self._state()
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"POSTHOUSE_TLS_CERT_FILE and POSTHOUSE_TLS_KEY_FILE cannot be used: {error}"
            ) from None

    def refresh(self) -> bool:
        """Load the files again where they have changed; True where that worked. Files that do not fit leave the old ones in use."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            # A chain without its key would leave the context in pieces: both are tried on another one first.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self._chain, self._key)
            self._load()
        except (OSError, ssl.SSLError) as error:
            _log.error(
                "certificate_not_reloaded", file=str(self._chain), problem=str(error), now="the old one stays in use"
            )
            return False
        _log.info("certificate_reloaded", file=str(self._chain))
        return True

    async def watch(self, stop: asyncio.Event, *, seconds: float = LOOK_EVERY_SECONDS) -> None:
        """Look for changes until ``stop`` is set."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await stop.wait()
            except TimeoutError:
                await asyncio.to_thread(self.refresh)

    def _load(self) -> None:
        self.context.load_cert_chain(self._chain, self._key)

    def _state(self) -> tuple[object, ...]:
        return tuple(_stamp(file) for file in (self._chain, self._key))


def certificate(chain: Path | None, key: Path | None) -> Certificate | None:
    """Return the certificate of two settings that go together, None where both are unset.

    Raises:
        ConfigurationError: only one is set, or the files cannot be used.
    """
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise ConfigurationError("POSTHOUSE_TLS_CERT_FILE and POSTHOUSE_TLS_KEY_FILE go together: set both or neither")
    return Certificate(chain, key)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()  # follows links: Kubernetes swaps the folder that a mounted secret's files lead to
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
