"""Sessions and connections to the test's own database, and an account to begin with."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import accounts, domains
from shared.db.engine import create_engine, session_factory
from shared.models import Domain
from shared.security.keys import KeyRing


@pytest.fixture(scope="session")
def ring() -> KeyRing:
    return KeyRing(["s" * 32])


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_engine(database_url, size=6, service="test")
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """One transaction; what raw connections should see must be committed in another."""
    async with sessions() as opened, opened.begin():
        yield opened


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def _owned_domain(sessions: async_sessionmaker[AsyncSession], name: str) -> Domain:
    async with sessions() as session, session.begin():
        account = await accounts.create_account(session, f"owner of {name}")
        row = await domains.create_domain(session, account.id, name, separators=("+", "--"))
        return await domains.mark_verified(session, account.id, row.id)


@pytest.fixture
async def domain(sessions: async_sessionmaker[AsyncSession]) -> Domain:
    """A verified domain, committed, example.com, of an account of its own."""
    return await _owned_domain(sessions, "example.com")


@pytest.fixture
async def strange_domain(sessions: async_sessionmaker[AsyncSession]) -> Domain:
    """A verified domain, committed, stranger.example, of another account."""
    return await _owned_domain(sessions, "stranger.example")
