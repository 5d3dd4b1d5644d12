"""What the routes work with, and how they change things: one transaction, its ring, and our own caches dropped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from api.auth import Authenticator
from api.budget import ByteBudget
from api.config import Settings
from api.failures import FailureLimiter
from api.jobs import Jobs
from api.metrics import ApiMetrics
from api.submit import Submitter
from shared.db.domains import TxtLookup
from shared.db.engine import Connection, Pool, reachable
from shared.db.routing import Routing
from shared.db.transaction import Bell, session_transaction
from shared.events import Subject
from shared.security.keys import KeyRing
from shared.security.outbound import OutboundPolicy


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one api process."""

    settings: Settings
    pool: Pool
    sessions: async_sessionmaker[AsyncSession]
    bell: Bell
    ring: KeyRing
    authenticator: Authenticator
    login_failures: FailureLimiter
    submitter: Submitter
    routing: Routing
    jobs: Jobs
    resolver: TxtLookup
    outbound: OutboundPolicy
    budget: ByteBudget
    metrics: ApiMetrics

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """Lend a connection for queries on hot tables.

        Raises:
            DatabaseUnavailable: the connection failed.
        """
        async with reachable(), self.pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def look(self) -> AsyncIterator[AsyncSession]:
        """Lend a session for reads of the control plane."""
        async with self.sessions() as session:
            yield session

    @asynccontextmanager
    async def change(self, subject: Subject, name: str) -> AsyncIterator[AsyncSession]:
        """Run a change of the control plane in one transaction; ring ``subject`` for ``name`` once it is committed."""
        async with session_transaction(self.sessions, self.bell) as (session, rings):
            rings.add(subject, name)
            yield session
        if subject is Subject.CONFIG_CHANGED:
            self.authenticator.forget()  # our own process need not wait for its own ring
            self.routing.forget()

    @asynccontextmanager
    async def change_quietly(self) -> AsyncIterator[AsyncSession]:
        """Run a change that nobody keeps a copy of in one transaction."""
        async with session_transaction(self.sessions, self.bell) as (session, _):
            yield session


def context_of(request: Request) -> Context:
    """Return the parts that serve a request."""
    context: Context = request.app.state.context
    return context


async def _context(request: Request) -> Context:
    # Async though it waits for nothing: FastAPI would run it in a thread otherwise.
    return context_of(request)


InContext = Annotated[Context, Depends(_context)]
