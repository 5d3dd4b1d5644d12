"""Routes, as operators keep them: three kinds of lists, in each the first that matches wins."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.paging import Page
from shared.errors import NotFound, ValidationFailed
from shared.mail.address import parse_domain
from shared.models import Account, Domain, Route, Transport

_CURSOR = "route"
_MOST = 1000  # of one list: each is looked at for every mail
_MOST_DOMAINS = 1000
_MOST_ATTEMPTS = 100
_MOST_POSITION = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What an operator says of a route."""

    transport: str
    account_id: int | None = None
    """Whose list it is in."""
    domain_id: int | None = None
    """Which sender domain's list it is in; neither: that of all."""
    position: int = 0
    """Smaller ones are looked at first; of equal ones the older."""
    sender_domains: Sequence[str] = ()
    """``a.test`` means that domain, ``.a.test`` it and all below; none: from any."""
    recipient_domains: Sequence[str] = ()
    min_attempts: int = 0
    """So many attempts must have been made before."""


async def create_route(session: AsyncSession, options: RouteOptions) -> Route:
    """Make a route.

    Raises:
        ValidationFailed: a field is malformed, or names an account, domain or transport that is not there.
        AddressInvalid: a domain is none.
    """
    checked = await _checked(session, options)
    in_list = (
        col(Route.account_id).is_not_distinct_from(checked.account_id),
        col(Route.domain_id).is_not_distinct_from(checked.domain_id),
    )
    if (await session.scalar(select(func.count()).select_from(Route).where(*in_list)) or 0) >= _MOST:
        raise ValidationFailed(f"this list has {_MOST} routes already; remove one first")
    row = Route(**asdict(checked))
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def update_route(session: AsyncSession, route_id: int, changes: Mapping[str, Any]) -> Route:
    """Change what is in ``changes``, which are fields of :class:`RouteOptions`; its list stays what it is.

    Raises:
        NotFound: there is no such route.
        ValidationFailed, AddressInvalid: as :func:`create_route`.
    """
    row = await _get(session, route_id, lock=True)
    kept = RouteOptions(**{name: getattr(row, name) for name in RouteOptions.__dataclass_fields__})
    checked = await _checked(session, replace(kept, **changes))
    for name, value in asdict(checked).items():
        setattr(row, name, value)
    await session.flush()
    return row


async def get_route(session: AsyncSession, route_id: int) -> Route:
    """Return a route.

    Raises:
        NotFound: there is no such route.
    """
    return await _get(session, route_id, lock=False)


async def list_routes(session: AsyncSession, *, cursor: str | None = None, limit: int = 50) -> Page[Route]:
    """Return a page of all routes, the oldest first."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    query = select(Route).where(col(Route.id) > after).order_by(col(Route.id)).limit(size + 1)
    return paging.page(_CURSOR, [(row.id, row) for row in await session.scalars(query)], size)


async def delete_route(session: AsyncSession, route_id: int) -> None:
    """Remove a route.

    Raises:
        NotFound: there is no such route.
    """
    row = await _get(session, route_id, lock=True)
    await session.execute(delete(Route).where(col(Route.id) == row.id))


async def _get(session: AsyncSession, route_id: int, *, lock: bool) -> Route:
    row = await session.get(Route, inputs.row_id(route_id, "route"), with_for_update=lock or None)
    if row is None:
        raise NotFound(f"there is no route {route_id}")
    return row


async def _checked(session: AsyncSession, options: RouteOptions) -> RouteOptions:
    # Whoever removes a transport waits for us, or we see that it is gone.
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("posthouse.routing"))))
    if options.account_id is not None and options.domain_id is not None:
        raise ValidationFailed(
            "a route is in the list of an account or of a sender domain, not of both", field="domain_id"
        )
    for field, model, row_id in (
        ("account_id", Account, options.account_id),
        ("domain_id", Domain, options.domain_id),
    ):
        if row_id is not None and (row_id > 2**63 - 1 or await session.get(model, row_id) is None):
            raise ValidationFailed(f"there is no {field.removesuffix('_id')} {row_id}", field=field)
    if await session.scalar(select(col(Transport.id)).where(col(Transport.name) == options.transport)) is None:
        raise ValidationFailed("there is no transport of this name; create it first", field="transport")
    if not -_MOST_POSITION <= options.position <= _MOST_POSITION:
        raise ValidationFailed("position has 32 bits", field="position")
    if not 0 <= options.min_attempts <= _MOST_ATTEMPTS:
        raise ValidationFailed(f"min_attempts is between 0 and {_MOST_ATTEMPTS}", field="min_attempts")
    return replace(
        options,
        sender_domains=_domains(options.sender_domains, "sender_domains"),
        recipient_domains=_domains(options.recipient_domains, "recipient_domains"),
    )


def _domains(given: Sequence[str], field: str) -> list[str]:
    if len(given) > _MOST_DOMAINS:
        raise ValidationFailed(f"{field} has at most {_MOST_DOMAINS} entries", field=field)
    read = [
        entry[: entry.startswith(".")] + parse_domain(entry.removeprefix("."), field=f"{field}[{place}]")
        for place, entry in enumerate(given)
    ]
    return list(dict.fromkeys(read))
