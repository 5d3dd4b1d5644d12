"""Makes the demo account of the local stack, and its webhook."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from shared.db.demo import Demo, DemoSecrets, seed_demo
from shared.db.endpoints import NewEndpoint, upsert_by_url
from shared.db.engine import create_engine, session_factory
from shared.db.transaction import NoBell, session_transaction
from shared.models import Endpoint
from shared.security.keys import KeyRing

_MARK = "posthouse local --outgoing-webhook"


@dataclass(frozen=True, slots=True)
class Webhook:
    """The endpoint that ``--outgoing-webhook`` asks for."""

    url: str
    secret: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)


async def seed(database_url: str, secret_key: str, wanted: DemoSecrets, webhook: Webhook | None) -> Demo:
    """Make the demo account, or what of it is missing, and register the webhook.

    Raises:
        ConfigurationError, ValidationFailed: something given does not fit what is there.
    """
    ring = KeyRing([secret_key])
    engine = create_engine(database_url, size=1, service="local")
    try:
        async with session_transaction(session_factory(engine), NoBell()) as (session, _rings):
            demo = await seed_demo(session, ring, wanted)
            if webhook is not None:
                await _register(session, ring, demo.account_id, webhook)
    finally:
        await engine.dispose()
    return demo


async def _register(session: AsyncSession, ring: KeyRing, account_id: int, webhook: Webhook) -> None:
    ours = select(Endpoint).where(
        col(Endpoint.account_id) == account_id,
        col(Endpoint.kind) == "delivery",
        col(Endpoint.deleted_at).is_(None),
    )
    rows = list(await session.scalars(ours.order_by(col(Endpoint.id))))
    if not any(row.url == webhook.url for row in rows):
        # The option moved to another URL: so does its endpoint, with the calls that wait for it.
        for row in rows:
            if row.description == _MARK:
                row.url = webhook.url
                break
        await session.flush()
    new = NewEndpoint(webhook.url, description=_MARK, authorization=webhook.authorization, secret=webhook.secret)
    await upsert_by_url(session, ring, account_id, new)
