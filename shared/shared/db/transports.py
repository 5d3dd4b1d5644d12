"""Transports, as operators keep them: what each kind needs, and what it may not have."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.paging import Page
from shared.db.routing import RELAYS, password_context
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.mail.address import parse_domain
from shared.models import Route, Transport
from shared.security.keys import KeyRing
from shared.security.sealing import seal

MECHANISMS: Final = ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")

_CURSOR = "transport"
_MOST = 1000  # each process keeps all of them in memory
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]{2,45}")
_PRINTABLE = re.compile(r"[\x20-\x7e]{0,256}")
_LONGEST_CREDENTIAL = 255  # octets, as much as a SOCKS proxy can be told (RFC 1929 2)
_PORTS: Final = {"smtp": 25, "submission": 587, "submissions": 465, "socks": 1080}
_RELAY = frozenset({"host", "port", "username", "password", "mechanisms"})
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "direct": frozenset({"ipv4", "ipv6"}),
    "smtp": _RELAY | {"tls"},
    "submission": _RELAY | {"tls"},
    "submissions": _RELAY,  # TLS from the first octet, always verified (RFC 8314 3.3)
    "socks": frozenset({"host", "port", "username", "password", "ehlo_name", "ipv4", "ipv6"}),
    "fail": frozenset({"code", "text"}),
}


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """What an operator says of a transport; None: nothing."""

    host: str | None = None
    port: int | None = None
    tls: str | None = None
    """Of a relay: ``verified`` (the default), ``unverified``, ``none``."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    mechanisms: tuple[str, ...] | None = None
    """SASL mechanisms that may be used; None: all over verified TLS, else those that do not show the password."""
    ehlo_name: str | None = None
    """Of a SOCKS proxy: the name that its address has."""
    ipv4: bool | None = None
    ipv6: bool | None = None
    code: int | None = None
    text: str | None = None


async def create_transport(
    session: AsyncSession, ring: KeyRing, name: str, kind: str, options: TransportOptions
) -> Transport:
    """Make a transport.

    Raises:
        ValidationFailed: a field is missing, malformed, or not one of this kind.
        Conflict: there is one of this name.
    """
    if not _NAME.fullmatch(name):
        raise ValidationFailed("a name is 1 to 63 of a-z, 0-9, dot, hyphen and underscore", field="name")
    if kind not in _FIELDS:
        raise ValidationFailed(f"kind is one of {', '.join(_FIELDS)}", field="kind")
    checked = _checked(kind, options)
    await _only_one_at_a_time(session)
    if (await session.scalar(select(func.count()).select_from(Transport)) or 0) >= _MOST:
        raise ValidationFailed(f"there are {_MOST} transports already; remove one first")
    if await session.scalar(select(col(Transport.id)).where(col(Transport.name) == name)) is not None:
        raise Conflict("there is a transport of this name already", field="name")
    row = Transport(name=name, kind=kind)
    session.add(_with(row, checked))
    await session.flush()
    _seal(ring, row, checked.password)
    await session.flush()
    return row


async def update_transport(
    session: AsyncSession, ring: KeyRing, transport_id: int, changes: Mapping[str, Any]
) -> Transport:
    """Change what is in ``changes``, which are fields of :class:`TransportOptions`; the rest stays.

    Raises:
        NotFound: there is no such transport.
        ValidationFailed: as :func:`create_transport`.
    """
    row = await _get(session, transport_id, lock=True)
    kept = {name: getattr(row, name) for name in _FIELDS[row.kind] - {"password", "mechanisms"}}
    if row.mechanisms:
        kept["mechanisms"] = tuple(row.mechanisms)
    wanted = TransportOptions(**{**kept, **changes})
    keeps_password = "password" not in changes and row.password_sealed is not None and wanted.username is not None
    # What is sealed cannot be checked again; it was when it came.
    checked = _checked(row.kind, replace(wanted, password="-") if keeps_password else wanted)  # noqa: S106 - stands for one
    _with(row, checked)
    if not keeps_password:
        _seal(ring, row, checked.password)
    await session.flush()
    return row


async def get_transport(session: AsyncSession, transport_id: int) -> Transport:
    """Return a transport.

    Raises:
        NotFound: there is no such transport.
    """
    return await _get(session, transport_id, lock=False)


async def list_transports(session: AsyncSession, *, cursor: str | None = None, limit: int = 50) -> Page[Transport]:
    """Return a page of all transports, the oldest first."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    query = select(Transport).where(col(Transport.id) > after).order_by(col(Transport.id)).limit(size + 1)
    return paging.page(_CURSOR, [(row.id, row) for row in await session.scalars(query)], size)


async def delete_transport(session: AsyncSession, transport_id: int) -> None:
    """Remove a transport.

    Raises:
        NotFound: there is no such transport.
        Conflict: a route names it.
    """
    await _only_one_at_a_time(session)
    row = await _get(session, transport_id, lock=True)
    route = await session.scalar(select(col(Route.id)).where(col(Route.transport) == row.name).limit(1))
    if route is not None:
        raise Conflict(f"route {route} names this transport: its mail would wait; change or remove the route first")
    await session.execute(delete(Transport).where(col(Transport.id) == row.id))


async def _only_one_at_a_time(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("posthouse.routing"))))


async def _get(session: AsyncSession, transport_id: int, *, lock: bool) -> Transport:
    row = await session.get(Transport, inputs.row_id(transport_id, "transport"), with_for_update=lock or None)
    if row is None:
        raise NotFound(f"there is no transport {transport_id}")
    return row


def _with(row: Transport, options: TransportOptions) -> Transport:
    for name, value in asdict(options).items():
        if name == "mechanisms":
            row.mechanisms = list(value or ())
        elif name in {"ipv4", "ipv6"}:
            setattr(row, name, value is not False)
        elif name != "password":
            setattr(row, name, value)
    return row


def _seal(ring: KeyRing, row: Transport, password: str | None) -> None:
    sealed = None if password is None else seal(ring, password.encode(), context=password_context(row.id))
    row.password_sealed = sealed


def _checked(kind: str, options: TransportOptions) -> TransportOptions:
    """Return the options with the defaults of their kind."""
    for name, value in asdict(options).items():
        if value is not None and name not in _FIELDS[kind]:
            raise ValidationFailed(f"a transport of kind {kind} has no {name}; leave it out", field=name)
    if "host" in _FIELDS[kind]:
        options = _checked_host(kind, options)
        _check_login(options)
    if kind in RELAYS:
        options = replace(options, tls=options.tls or "verified")
        if options.tls not in {"verified", "unverified", "none"}:
            raise ValidationFailed("tls is one of verified, unverified, none", field="tls")
        _check_mechanisms(options)
    if kind == "socks":
        if options.ehlo_name is None:
            raise ValidationFailed("a SOCKS transport needs the name that the proxy's address has", field="ehlo_name")
        options = replace(options, ehlo_name=parse_domain(options.ehlo_name, field="ehlo_name"))
    if options.ipv4 is False and options.ipv6 is False:
        raise ValidationFailed("a transport uses IPv4 or IPv6, or both", field="ipv6")
    return _checked_failure(options) if kind == "fail" else options


def _checked_host(kind: str, options: TransportOptions) -> TransportOptions:
    if options.host is None or not _HOST.fullmatch(options.host):
        raise ValidationFailed(f"a transport of kind {kind} needs a host: a name or an address", field="host")
    port = _PORTS[kind] if options.port is None else options.port
    if not 0 < port < 65536:
        raise ValidationFailed("port is between 1 and 65535", field="port")
    return replace(options, host=options.host.lower(), port=port)


def _check_login(options: TransportOptions) -> None:
    if (options.username is None) != (options.password is None):
        raise ValidationFailed("username and password belong together", field="password")
    for name, value in (("username", options.username), ("password", options.password)):
        if value is None:
            continue
        if (
            any(unicodedata.category(letter) in {"Cc", "Cs", "Co"} for letter in value)
            or not 0 < len(value.encode()) <= _LONGEST_CREDENTIAL
        ):
            raise ValidationFailed(
                f"{name} has 1 to {_LONGEST_CREDENTIAL} octets and no control characters", field=name
            )


def _check_mechanisms(options: TransportOptions) -> None:
    wanted = options.mechanisms
    if wanted is None:
        return
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(MECHANISMS):
        raise ValidationFailed(f"mechanisms are each at most once of {', '.join(MECHANISMS)}", field="mechanisms")


def _checked_failure(options: TransportOptions) -> TransportOptions:
    code = 554 if options.code is None else options.code
    if not 400 <= code < 600:
        raise ValidationFailed("code is a refusal, 400 to 599", field="code")
    text = "mail that takes this way is refused" if options.text is None else options.text
    if not _PRINTABLE.fullmatch(text):
        raise ValidationFailed("text has at most 256 printable ASCII characters", field="text")
    return replace(options, code=code, text=text)
