"""Connections to Postgres: an asyncpg pool for the hot paths, a SQLAlchemy engine for the control plane.

Both set what the queue's queries were measured with: no JIT, generic plans (a queue's statistics swing between empty and
full; the plan must not), and a limit on how long a transaction may sit idle.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from shared.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's classes are generic for the type checker only
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

SETTINGS = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
}
PLANS_BY_INDEX = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""For the hot paths, where every query goes from few ids to their rows by index. A generic plan does not know that $2 in
LIMIT $2 is small: with a million analysed rows it hashed the whole queue for a claim of fifty, 75 ms instead of 0.9 (ADR 7)."""
CONNECTION_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InvalidAuthorizationSpecificationError,  # 28: a password is being changed
    asyncpg.InsufficientResourcesError,  # 53: too many connections, disk full
    asyncpg.ObjectNotInPrerequisiteStateError,  # 55: the database takes no connections, a lock is not to be had
    asyncpg.OperatorInterventionError,  # 57: shutting down, starting up, canceled
    asyncpg.PostgresSystemError,  # 58
    asyncpg.TransactionRollbackError,  # 40: deadlock, serialization
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is not promoted yet
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,  # the driver's: the connection or the pool is closed
    asyncpg.InternalClientError,  # the driver's, on a connection that broke in mid-operation
)
"""The database cannot do it now, whatever "it" is: wait and try again; whether a commit happened must be looked up.

The driver's complaint about a value that cannot be sent is an InterfaceError too, and a ValueError: catch that one first."""

_CLOSE_SECONDS = 2.0

T = TypeVar("T")


def sqlalchemy_url(url: str) -> str:
    """Return ``postgresql://...`` in SQLAlchemy's spelling with the asyncpg driver."""
    _, separator, rest = url.partition("://")
    return f"postgresql+asyncpg{separator}{rest}"


async def create_pool(url: str, *, size: int, service: str, synchronous_commit: bool = True) -> Pool:
    """Open a pool of at most ``size`` connections.

    Args:
        url: ``postgresql://...``.
        size: connections at most; one is opened at once, so that a wrong URL fails here.
        service: shown in ``pg_stat_activity.application_name``.
        synchronous_commit: False only for what may be lost in a crash of the database: heartbeats, claims, slots.
    """
    settings = {
        **SETTINGS,
        **PLANS_BY_INDEX,
        "application_name": f"posthouse-{service}",
        "synchronous_commit": "on" if synchronous_commit else "off",
    }
    return await asyncpg.create_pool(
        url, min_size=1, max_size=size, server_settings=settings, command_timeout=60, timeout=10
    )


@asynccontextmanager
async def open_pool(url: str, *, size: int, service: str, synchronous_commit: bool = True) -> AsyncIterator[Pool]:
    """Open a pool as :func:`create_pool` does, and close it at the end of the block, by force where that takes too long."""
    pool = await create_pool(url, size=size, service=service, synchronous_commit=synchronous_commit)
    try:
        yield pool
    finally:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await pool.close()
        except CONNECTION_LOST:
            pool.terminate()


def create_engine(url: str, *, size: int, service: str) -> AsyncEngine:
    """Return the engine behind the control plane's sessions; it connects when first used."""
    settings = {**SETTINGS, "application_name": f"posthouse-{service}"}
    return create_async_engine(
        sqlalchemy_url(url),
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"server_settings": settings},
    )


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return a maker of sessions whose rows stay readable after commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def with_fresh_plans(run: Callable[[], Awaitable[T]]) -> T:
    """Run a query, once more where a migration made its cached plan void."""
    try:
        return await run()
    except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
        return await run()


@asynccontextmanager
async def reachable() -> AsyncIterator[None]:
    """Turn a lost connection into :class:`DatabaseUnavailable`, which callers answer with 503 or 451."""
    try:
        yield
    except ValueError:  # a value, not the connection
        raise
    except CONNECTION_LOST as error:
        raise DatabaseUnavailable from error
