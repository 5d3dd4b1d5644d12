"""Bring a database to the schema this version of the code needs, and wait for one that is on its way there.

Two processes may call :func:`upgrade` at once: a Postgres advisory lock lets one do the work and the other find it done.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from shared.db.engine import sqlalchemy_url
from shared.errors import ConfigurationError

_LOCK = 0x706F7374  # "post": any constant that nobody else on this database uses
_UNREADY = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.AdminShutdownError,
)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def head() -> str:
    """Return the revision this version of the code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        message = "this installation has no migrations; it is damaged"
        raise ConfigurationError(message)
    return revision


async def upgrade(url: str) -> str:
    """Apply all migrations to the database at ``url`` and return the revision it is at now.

    Raises:
        ConfigurationError: the database is of a newer version than this code.
        OSError, asyncpg.PostgresError: the database cannot be reached or refuses.
    """
    engine = create_async_engine(sqlalchemy_url(url))
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            await connection.commit()
            try:
                await connection.run_sync(_upgrade)
            finally:
                await connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
                await connection.commit()
    finally:
        await engine.dispose()
    return head()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()


async def current(url: str) -> str | None:
    """Return the revision the database at ``url`` is at, None where it has no schema yet."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return revision
    finally:
        await connection.close()


async def wait_until_ready(url: str, *, seconds: float, tell: Callable[[str], None]) -> None:
    """Wait until Postgres answers and carries the schema this code needs.

    Args:
        url: ``postgresql://...``.
        seconds: how long to wait at most.
        tell: receives one line each time the reason for waiting changes.

    Raises:
        ConfigurationError: it did not come up in time, or the schema is of a newer version.
    """
    deadline = time.monotonic() + seconds
    needed, reason = head(), ""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    while True:
        try:
            revision = await current(url)
        except (
            asyncpg.InvalidPasswordError,
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
        ) as error:
            raise ConfigurationError(f"Postgres refuses POSTHOUSE_DATABASE_URL: {error}") from None
        except (*_UNREADY, TimeoutError) as error:
            now = f"Postgres does not answer yet ({type(error).__name__}: {error})"
        else:
            if revision == needed:
                return
            if revision is not None and revision not in known:
                raise ConfigurationError(
                    f"the database is at schema revision {revision}, which this version does not know: run the newer version"
                )
            now = (
                f"the schema is at revision {revision or 'none'}, this version needs {needed}: run `posthouse migrate`"
            )
        if now != reason:
            reason = now
            tell(f"waiting: {reason}")
        if time.monotonic() >= deadline:
            raise ConfigurationError(f"gave up after {seconds:.0f} s: {reason}")
        await asyncio.sleep(0.25)
