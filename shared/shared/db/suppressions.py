"""The suppression list: who an account does not send to. Settled failures add to it in ``shared.db.outcomes``; people do here.

Each stream of an account has a list of its own: the empty one, and that of sandbox keys (``TEST_STREAM``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import Conflict, NotFound, TooLarge
from shared.mail.address import Address, mox_key, suppression_key
from shared.models import Account, Suppression

_REASON_CHARACTERS = 1000
_CURSOR = "suppression"

# The same question as in the start gate (shared.db.starts) and at acceptance: an entry matches by our key or by mox's, never by both.
_AMONG = """
SELECT (k.place - 1)::int AS place FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS k (key, mox_key, place)
WHERE EXISTS (SELECT FROM suppression s WHERE s.account_id = $1 AND s.stream = $4 AND s.kind = 'address' AND s.key = k.key
        AND NOT s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now()))
    OR EXISTS (SELECT FROM suppression s WHERE s.account_id = $1 AND s.stream = $4 AND s.mox_key = k.mox_key
        AND s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now()))
"""


@dataclass(frozen=True, slots=True)
class SuppressionOptions:
    """What may be said of a new entry."""

    reason: str = ""
    manual: bool = True
    match_by_mox_key: bool = False
    """Made through the mox webapi: it matches as mox matches, dots and -suffixes ignored."""
    expires_at: datetime | None = None


async def add_suppression(
    session: AsyncSession,
    account_id: int,
    address: Address,
    options: SuppressionOptions | None = None,
    *,
    stream: str = "",
) -> Suppression:
    """Put an address on the list of an account; an entry that has expired is replaced.

    Raises:
        NotFound: there is no such account.
        Conflict: the address is on the list already.
        ValidationFailed: the reason is too long.
    """
    given = options or SuppressionOptions()
    if await session.get(Account, inputs.row_id(account_id, "account")) is None:
        raise NotFound(f"there is no account {account_id}")
    conflict = Conflict("this address is on the suppression list already", field="address")
    if given.match_by_mox_key:
        query = select(col(Suppression.id)).where(_of(account_id, stream, address, by_mox_key=True), _in_force())
        if await session.scalar(query) is not None:
            raise conflict
    values = {
        "account_id": account_id,
        "stream": stream,
        "key": suppression_key(address),
        "mox_key": mox_key(address),
        "match_by_mox_key": given.match_by_mox_key,
        "address": address.unicode_text,
        "manual": given.manual,
        "reason": inputs.text(given.reason, field="reason", longest=_REASON_CHARACTERS),
        "expires_at": given.expires_at,
    }
    forgotten = {
        "code": None,
        "enhanced": None,
        "text": None,
        "delivery_id": None,
        "report_id": None,
        "created_at": func.now(),
    }
    statement = insert(Suppression).values(values)
    statement = statement.on_conflict_do_update(
        index_elements=["account_id", "stream", "kind", "key"],
        set_={**values, **forgotten},
        where=col(Suppression.expires_at) <= func.now(),
    )
    row: Suppression | None = await session.scalar(
        statement.returning(Suppression), execution_options={"populate_existing": True}
    )
    if row is None:
        raise conflict
    return row


async def list_suppressions(
    session: AsyncSession, account_id: int, *, stream: str = "", cursor: str | None = None, limit: int = 50
) -> Page[Suppression]:
    """Return a page of the list of an account, the newest first, without what has expired."""
    size = inputs.page_size(limit)
    query = select(Suppression).where(_in(account_id, stream), _in_force())
    if cursor:
        query = query.where(col(Suppression.id) < paging.decode(_CURSOR, cursor)[0])
    rows = await session.scalars(query.order_by(col(Suppression.id).desc()).limit(size + 1))
    return paging.page(_CURSOR, [(row.id, row) for row in rows], size)


async def all_suppressions(session: AsyncSession, account_id: int, *, most: int, stream: str = "") -> list[Suppression]:
    """Return the whole list of an account in the order of mox's base addresses, without what has expired.

    Raises:
        TooLarge: it has more than ``most`` entries.
    """
    query = select(Suppression).where(_in(account_id, stream), _in_force())
    query = query.where(col(Suppression.kind) == "address").order_by(col(Suppression.mox_key), col(Suppression.id))
    rows = list(await session.scalars(query.limit(most + 1)))
    if len(rows) > most:
        raise TooLarge(f"the suppression list has more than {most} entries; read it in pages")
    return rows


async def get_suppression(
    session: AsyncSession, account_id: int, suppression_id: int, *, stream: str = ""
) -> Suppression:
    """Return one entry of the list of an account.

    Raises:
        NotFound: the list has no such entry.
    """
    number = inputs.row_id(suppression_id, "suppression")
    query = select(Suppression).where(col(Suppression.id) == number, _in(account_id, stream), _in_force())
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no suppression {suppression_id} in this account")
    return row


async def find_suppression(
    session: AsyncSession, account_id: int, address: Address, *, by_mox_key: bool = False, stream: str = ""
) -> Suppression | None:
    """Return the entry that stands for an address.

    Args:
        session: any.
        account_id: whose list.
        address: any spelling of the recipient.
        by_mox_key: ask as the mox webapi does: every entry of the same mox key, however it was made.
        stream: which of its lists.
    """
    query = select(Suppression).where(_of(account_id, stream, address, by_mox_key=by_mox_key), _in_force())
    return await session.scalar(query.order_by(col(Suppression.id)).limit(1))


async def remove_suppression(
    session: AsyncSession, account_id: int, suppression_id: int, *, stream: str = ""
) -> Suppression:
    """Take an entry off the list of an account and return what it was.

    Raises:
        NotFound: the list has no such entry.
    """
    row = await get_suppression(session, account_id, suppression_id, stream=stream)
    await session.delete(row)
    await session.flush()
    return row


async def remove_suppressed_address(
    session: AsyncSession, account_id: int, address: Address, *, by_mox_key: bool = False, stream: str = ""
) -> int:
    """Take every entry that stands for an address off the list (as :func:`find_suppression`) and return how many those were."""
    statement = delete(Suppression).where(_of(account_id, stream, address, by_mox_key=by_mox_key))
    return len((await session.scalars(statement.returning(col(Suppression.id)))).all())


def _in(account_id: int, stream: str) -> ColumnElement[bool]:
    return (col(Suppression.account_id) == account_id) & (col(Suppression.stream) == stream)


def _of(account_id: int, stream: str, address: Address, *, by_mox_key: bool) -> ColumnElement[bool]:
    same: ColumnElement[bool] = col(Suppression.mox_key) == mox_key(address)
    if not by_mox_key:
        same = or_(col(Suppression.key) == suppression_key(address), same & col(Suppression.match_by_mox_key))
    return _in(account_id, stream) & (col(Suppression.kind) == "address") & same


def _in_force() -> ColumnElement[bool]:
    return or_(col(Suppression.expires_at).is_(None), col(Suppression.expires_at) > func.now())


async def suppressed_among(
    connection: Connection, account_id: int, keys: Sequence[tuple[str, str]], *, stream: str = ""
) -> set[int]:
    """Return which of the recipients, by their place in ``keys``, are on the list of an account.

    Args:
        connection: any; one query.
        account_id: whose list.
        keys: ``(suppression_key(address), mox_key(address))`` of each recipient.
        stream: which of its lists.
    """
    rows = await connection.fetch(_AMONG, account_id, [key for key, _ in keys], [mox for _, mox in keys], stream)
    return {row["place"] for row in rows}
