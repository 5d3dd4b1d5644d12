"""Endpoints: where an account's webhooks go. Each is a site of its own for the queue of calls, with one lane."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import NotFound, ValidationFailed
from shared.events import EventType
from shared.models import Account, Endpoint, Lane, Site
from shared.security.keys import KeyRing
from shared.security.sealing import seal, unseal
from shared.security.webhook_signing import new_secret, parse_secret

SECRET_OVERLAP = timedelta(hours=24)
"""How long calls are signed with the previous secret too after a rotation."""

_CONNECTIONS = 2  # workers that may serve one endpoint at a time; each keeps several calls in flight
_ENDPOINTS_PER_ACCOUNT = 100  # every event is fanned out to all of them
_URL_CHARACTERS = 2048
_DESCRIPTION_CHARACTERS = 1000
_AUTHORIZATION_CHARACTERS = 4096
_LONGEST_OVERLAP = timedelta(days=30)
_CURSOR = "endpoint"


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What a customer says of an endpoint. Whether the URL may be called is the caller's check (``shared.security.outbound``)."""

    url: str
    description: str = ""
    kind: Literal["delivery", "inbound"] = "delivery"
    format: Literal["posthouse", "mox"] = "posthouse"
    events: tuple[str, ...] = ()
    """Values of :class:`EventType`; none: all."""
    delayed: Literal["every", "first", "last"] = "every"
    """Which failed attempts it hears of while others follow: all, the first, or that before the last."""
    authorization: str | None = field(default=None, repr=False)
    """Value of the Authorization header of every call."""
    secret: str | None = field(default=None, repr=False)
    """``whsec_...`` where the customer brings it along; None: a new one."""


async def create_endpoint(
    session: AsyncSession, ring: KeyRing, account_id: int, new: NewEndpoint
) -> tuple[Endpoint, str]:
    """Make an endpoint with its place in the queue of calls; return its row and its signing secret.

    Raises:
        NotFound: there is no such account.
        ValidationFailed: a field has no usable form, or the account has 100 endpoints already.
    """
    _check(new)
    # The account's row is locked, so that two at once cannot both be the hundredth.
    if await session.get(Account, inputs.row_id(account_id, "account"), with_for_update={"key_share": True}) is None:
        raise NotFound(f"there is no account {account_id}")
    count = select(func.count()).where(col(Endpoint.account_id) == account_id, col(Endpoint.deleted_at).is_(None))
    if (await session.scalar(count) or 0) >= _ENDPOINTS_PER_ACCOUNT:
        raise ValidationFailed(f"an account has at most {_ENDPOINTS_PER_ACCOUNT} endpoints; delete one first")
    secret = new.secret if new.secret is not None else new_secret()
    # The id comes first: the sealed values and the site are bound to it.
    sequence = func.pg_get_serial_sequence("endpoint", "id")
    endpoint_id = int((await session.execute(select(func.nextval(sequence)))).scalar_one())
    site = Site(queue="call", name=str(endpoint_id), conn_limit=_CONNECTIONS)
    session.add(site)
    await session.flush()
    lane = Lane(site_id=site.id, account_id=account_id)
    session.add(lane)
    await session.flush()
    row = Endpoint(
        id=endpoint_id,
        account_id=account_id,
        lane_id=lane.id,
        url=new.url,
        description=new.description,
        kind=new.kind,
        format=new.format,
        events=list(new.events),
        delayed=new.delayed,
        secret_sealed=seal(ring, secret.encode(), context=_secret_context(endpoint_id)),
        authorization_sealed=_sealed_authorization(ring, endpoint_id, new.authorization),
    )
    session.add(row)
    await session.flush()
    return row, secret


def _check(new: NewEndpoint) -> None:
    inputs.text(new.url, field="url", longest=_URL_CHARACTERS, empty=False)
    inputs.text(new.description, field="description", longest=_DESCRIPTION_CHARACTERS)
    unknown = [event for event in new.events if event not in set(EventType)]
    if unknown or len(set(new.events)) != len(new.events):
        known = ", ".join(EventType)
        raise ValidationFailed(f"events are each at most once one of: {known}", field="events")
    if new.format == "mox" and new.delayed != "every":
        raise ValidationFailed("an endpoint of format mox hears of every delay; leave delayed out", field="delayed")
    if new.authorization is not None:
        # RFC 9110 5.5: a field value is visible ASCII with spaces inside; anything else could end the header.
        value = new.authorization
        printable = all("\x20" <= character <= "\x7e" for character in value)
        if not value or len(value) > _AUTHORIZATION_CHARACTERS or not printable or value != value.strip():
            raise ValidationFailed(
                f"authorization is 1 to {_AUTHORIZATION_CHARACTERS} printable ASCII characters", field="authorization"
            )
    if new.secret is not None:
        parse_secret(new.secret)


def _secret_context(endpoint_id: int) -> str:
    return f"endpoint.secret:{endpoint_id}"


def _authorization_context(endpoint_id: int) -> str:
    return f"endpoint.authorization:{endpoint_id}"


def _sealed_authorization(ring: KeyRing, endpoint_id: int, value: str | None) -> str | None:
    return None if value is None else seal(ring, value.encode(), context=_authorization_context(endpoint_id))


async def upsert_by_url(
    session: AsyncSession, ring: KeyRing, account_id: int, new: NewEndpoint
) -> tuple[Endpoint, str]:
    """Register an endpoint, or bring the account's one of this kind and URL up to date; its secret stays unless one is given.

    Raises:
        As :func:`create_endpoint`; SecretUnreadable: the stored secret was sealed with a key that is no longer configured.
    """
    _check(new)
    query = select(Endpoint).where(
        col(Endpoint.account_id) == account_id,
        col(Endpoint.url) == new.url,
        col(Endpoint.kind) == new.kind,
        col(Endpoint.deleted_at).is_(None),
    )
    row = await session.scalar(query.order_by(col(Endpoint.id)).limit(1).with_for_update())
    if row is None:
        return await create_endpoint(session, ring, account_id, new)
    row.format, row.events, row.delayed, row.disabled_at = new.format, list(new.events), new.delayed, None
    row.description = new.description or row.description
    row.authorization_sealed = _sealed_authorization(ring, row.id, new.authorization)
    if new.secret is None:
        secret = unseal(ring, row.secret_sealed, context=_secret_context(row.id)).decode()
    else:
        secret = new.secret
        row.secret_sealed = seal(ring, secret.encode(), context=_secret_context(row.id))
    await session.flush()
    return row, secret


async def list_endpoints(
    session: AsyncSession, account_id: int, *, cursor: str | None = None, limit: int = 50
) -> Page[Endpoint]:
    """Return a page of the endpoints of an account, the oldest first, without deleted ones."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    query = select(Endpoint).where(
        col(Endpoint.account_id) == account_id, col(Endpoint.deleted_at).is_(None), col(Endpoint.id) > after
    )
    rows = await session.scalars(query.order_by(col(Endpoint.id)).limit(size + 1))
    return paging.page(_CURSOR, [(row.id, row) for row in rows], size)


async def get_endpoint(session: AsyncSession, account_id: int, endpoint_id: int) -> Endpoint:
    """Return an endpoint of an account.

    Raises:
        NotFound: the account has no such endpoint, or has deleted it.
    """
    return await _get(session, account_id, endpoint_id, lock=False)


async def _get(session: AsyncSession, account_id: int, endpoint_id: int, *, lock: bool) -> Endpoint:
    query = select(Endpoint).where(
        col(Endpoint.id) == inputs.row_id(endpoint_id, "endpoint"),
        col(Endpoint.account_id) == account_id,
        col(Endpoint.deleted_at).is_(None),
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no endpoint {endpoint_id} in this account")
    return row


async def delete_endpoint(session: AsyncSession, account_id: int, endpoint_id: int) -> None:
    """Delete an endpoint: it gets no further calls; the row stays for the calls that name it, without its secrets' use.

    Raises:
        NotFound: the account has no such endpoint, or has deleted it before.
    """
    row = await _get(session, account_id, endpoint_id, lock=True)
    await session.execute(update(Endpoint).where(col(Endpoint.id) == row.id).values(deleted_at=func.now()))
    await session.refresh(row)


async def rotate_secret(
    session: AsyncSession,
    ring: KeyRing,
    account_id: int,
    endpoint_id: int,
    *,
    overlap: timedelta = SECRET_OVERLAP,
    secret: str | None = None,
) -> tuple[Endpoint, str]:
    """Give an endpoint another signing secret and return it; calls are signed with both until the overlap has passed.

    Args:
        session: the caller's transaction.
        ring: seals the new secret.
        account_id: whose endpoint it is.
        endpoint_id: which.
        overlap: up to 30 days; zero ends the previous secret at once.
        secret: ``whsec_...`` where the customer brings it along; None: a new one.

    Raises:
        NotFound: the account has no such endpoint.
        ValidationFailed: the overlap is out of range, or the given secret has no usable form.
    """
    if not timedelta(0) <= overlap <= _LONGEST_OVERLAP:
        raise ValidationFailed(f"the overlap is between 0 and {_LONGEST_OVERLAP.days} days", field="overlap_seconds")
    if secret is None:
        secret = new_secret()
    else:
        parse_secret(secret)
    row = await _get(session, account_id, endpoint_id, lock=True)
    statement = (
        update(Endpoint)
        .where(col(Endpoint.id) == row.id)
        .values(
            previous_secret_sealed=row.secret_sealed if overlap else None,
            previous_secret_until=func.now() + overlap if overlap else None,
            secret_sealed=seal(ring, secret.encode(), context=_secret_context(row.id)),
        )
    )
    await session.execute(statement)
    await session.refresh(row)
    return row, secret


@dataclass(frozen=True, slots=True)
class CallTarget:
    """What a call needs to know of its endpoint."""

    id: int
    account_id: int
    url: str
    kind: str
    format: str
    disabled: bool
    """Disabled or deleted: nothing may be sent to it now."""
    deleted_at: datetime | None
    secret_sealed: str = field(repr=False)
    previous_secret_sealed: str | None = field(repr=False)
    """None once the overlap has passed."""
    authorization_sealed: str | None = field(repr=False)

    def secrets(self, ring: KeyRing) -> tuple[bytes, ...]:
        """Return the keys to sign with, the current one first.

        Raises:
            SecretUnreadable: sealed with a key that is no longer configured.
        """
        sealed = [s for s in (self.secret_sealed, self.previous_secret_sealed) if s is not None]
        return tuple(parse_secret(unseal(ring, s, context=_secret_context(self.id)).decode()) for s in sealed)

    def authorization(self, ring: KeyRing) -> str | None:
        """Return the value of the Authorization header, None where there is to be none.

        Raises:
            SecretUnreadable: sealed with a key that is no longer configured.
        """
        if self.authorization_sealed is None:
            return None
        return unseal(ring, self.authorization_sealed, context=_authorization_context(self.id)).decode()


_FOR_CALLS = """
SELECT e.id, e.account_id, e.url, e.kind, e.format, e.deleted_at, e.secret_sealed, e.authorization_sealed,
    coalesce(e.disabled_at, e.deleted_at) IS NOT NULL AS disabled,
    CASE WHEN e.previous_secret_until > now() THEN e.previous_secret_sealed END AS previous_secret_sealed
FROM endpoint e WHERE e.id = ANY ($1::bigint[])
"""


async def for_calls(connection: Connection, endpoint_ids: Sequence[int]) -> dict[int, CallTarget]:
    """Return what calls need of these endpoints, by id; one that was removed with its account is missing."""
    rows = await connection.fetch(_FOR_CALLS, list(set(endpoint_ids)))
    return {row["id"]: CallTarget(**dict(row)) for row in rows}
