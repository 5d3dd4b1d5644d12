"""``posthouse bootstrap``: the first operator's key of an installation, once.

Repeating it is harmless, so that a Kubernetes Job or a compose step may: a database in which an operator's key was ever made
gets no second one. Standard output is the key and nothing else; what there is to say goes to standard error.
"""

import asyncio
import os
import sys
import time

import asyncpg
from sqlalchemy.exc import DBAPIError

from posthouse.migrate import wait_for_postgres
from shared.config import ServiceSettings, load
from shared.db.credentials import bootstrap_operator
from shared.db.engine import CONNECTION_LOST, create_engine, session_factory
from shared.db.migrate import wait_until_ready
from shared.db.transaction import NoBell, session_transaction
from shared.errors import ConfigurationError
from shared.security.keys import KeyRing

_VARIABLE = "POSTHOUSE_DATABASE_URL"


def run_bootstrap() -> None:
    """Make the first operator's key and print it; say so where one was made before.

    Raises:
        ConfigurationError: a setting is missing or wrong, Postgres or the schema did not come up, or the key was not stored.
    """
    settings = load(ServiceSettings)
    ring = KeyRing([key.get_secret_value() for key in settings.secret_key])
    asyncio.run(_bootstrap(settings, ring))


async def _bootstrap(settings: ServiceSettings, ring: KeyRing) -> None:
    url, deadline = settings.database_url, time.monotonic() + settings.startup_wait_seconds
    await wait_for_postgres(url, seconds=settings.startup_wait_seconds, name=_VARIABLE, tell=_note)
    await wait_until_ready(url, seconds=max(0.0, deadline - time.monotonic()), tell=_note)
    engine = create_engine(url, size=1, service="bootstrap")
    printed = False
    try:
        async with session_transaction(session_factory(engine), NoBell()) as (session, _rings):
            key = await bootstrap_operator(session, ring)
            if key is not None:
                # Before the commit: a key that could not be shown must not stay, because this command makes no second one.
                _print_key(key)
                printed = True
    except (*CONNECTION_LOST, asyncpg.PostgresError, DBAPIError) as error:
        reason = getattr(error, "orig", None) or error
        what = "the key printed above was not stored" if printed else "no key was made"
        raise ConfigurationError(f"{_VARIABLE}: {what}: {reason}; run `posthouse bootstrap` again") from None
    finally:
        await engine.dispose()
    if printed:
        _note("this is the first operator's key: store it now, it cannot be shown again")
    else:
        _note("this database has had an operator's key already; nothing was made")


def _print_key(key: str) -> None:
    try:
        sys.stdout.write(key + "\n")
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at its end, and would speak of this again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ConfigurationError(
            f"the key could not be printed ({error.strerror or error}), so none was made: run `posthouse bootstrap` again"
        ) from None


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line talks to people
