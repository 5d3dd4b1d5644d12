"""``posthouse migrate``, and waiting for a Postgres that is still starting."""

import asyncio
import os
import sys
import time
from urllib.parse import urlsplit

import asyncpg

from posthouse.embedded.process import Tell
from posthouse.settings import MigrateSettings
from shared.db.engine import CONNECTION_LOST
from shared.db.migrate import current, upgrade
from shared.errors import ConfigurationError

_PAUSE_SECONDS = 0.5


async def wait_for_postgres(url: str, *, seconds: float, name: str, tell: Tell) -> None:
    """Wait until a database answers, whatever its schema.

    Args:
        url: ``postgresql://...``.
        seconds: how long to wait at most.
        name: the option or variable the URL came from, for messages.
        tell: receives one line when waiting begins or its reason changes.

    Raises:
        ConfigurationError: it refuses us, does not exist, or did not come up in time.
    """
    deadline, told = time.monotonic() + seconds, ""
    place = _place(url)
    while True:
        try:
            await current(url)
        except (
            ValueError,
            OverflowError,
        ) as error:  # first: asyncpg's own error for a bad URL is a lost connection too
            raise ConfigurationError(f"{name} is not a usable database URL: {error}") from None
        except CONNECTION_LOST as error:
            reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        except asyncpg.PostgresError as error:
            raise ConfigurationError(f"{name}: Postgres at {place} refuses: {error}") from None
        else:
            return
        if time.monotonic() >= deadline:
            raise ConfigurationError(
                f"{name}: Postgres at {place} does not answer after {seconds:.0f} s ({reason}): is it running?"
            )
        if reason != told:
            told = reason
            tell(f"waiting for Postgres at {place} ({reason})")
        await asyncio.sleep(_PAUSE_SECONDS)


def _place(url: str) -> str:
    """Return where a URL leads, without its password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an unreadable URL"
    return f"{parts.hostname or 'the socket of its host parameter'}{port}{parts.path}"


def run_migrate(settings: MigrateSettings) -> None:
    """Apply all migrations and print the revision.

    Raises:
        ConfigurationError: no database is named, or it cannot be used.
    """
    url = settings.database_url
    if not url:
        raise ConfigurationError(
            "name the database: set POSTHOUSE_DATABASE_URL, or give --database-url postgresql://..."
        )
    name = "POSTHOUSE_DATABASE_URL / --database-url"

    async def work() -> str:
        await wait_for_postgres(url, seconds=settings.wait, name=name, tell=say)
        return await upgrade(url)

    try:
        revision = asyncio.run(work())
    except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
        raise ConfigurationError(f"{name}: the migration was not applied: {error}") from None
    say(f"the schema is at revision {revision}")


def say(line: str) -> None:
    """Print one line at once; a reader that has gone away is no reason to stop."""
    try:
        print(line, flush=True)  # noqa: T201 - the command line talks to people
    except BrokenPipeError:
        # Python flushes once more at its end, and would exit with 120 then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
