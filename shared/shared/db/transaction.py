"""The one place that commits.

A state change and its event share a transaction; whoever should look at them is rung after the commit, never before: a ring
that came first could wake a reader that finds nothing. Rings may be lost, so nothing is undone when one fails.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db.engine import Connection, Pool
from shared.events import Subject


class Bell(Protocol):
    """What can be rung after a commit; ``shared.bus`` has the real one."""

    def ring(self, subject: Subject, *names: str) -> None:
        """Say on ``subject`` that there is something new about ``names``; returns at once, never raises."""


class NoBell:
    """A bell for processes without a bus: everyone finds the work by polling."""

    def ring(self, subject: Subject, *names: str) -> None:
        """Do nothing."""


class Rings:
    """What to ring once the transaction has committed."""

    def __init__(self) -> None:
        self._wanted: dict[Subject, set[str]] = {}

    def add(self, subject: Subject, *names: str) -> None:
        """Ring ``subject`` for ``names`` after the commit."""
        self._wanted.setdefault(subject, set()).update(names)

    def ring(self, bell: Bell) -> None:
        """Ring everything that was asked for."""
        for subject, names in self._wanted.items():
            bell.ring(subject, *sorted(names))


@asynccontextmanager
async def transaction(pool: Pool, bell: Bell) -> AsyncIterator[tuple[Connection, Rings]]:
    """Run the block in one transaction on a connection of the pool; commit, then ring."""
    rings = Rings()
    async with pool.acquire() as connection, connection.transaction():
        yield connection, rings
    rings.ring(bell)


@asynccontextmanager
async def session_transaction(
    sessions: async_sessionmaker[AsyncSession], bell: Bell
) -> AsyncIterator[tuple[AsyncSession, Rings]]:
    """Run the block in one transaction of a control-plane session; commit, then ring."""
    rings = Rings()
    async with sessions() as session, session.begin():
        yield session, rings
    rings.ring(bell)
