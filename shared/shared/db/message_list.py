"""The messages of an account as a list, of one stream and by tag. Nothing here writes."""

from dataclasses import dataclass

from shared.db import inputs, paging
from shared.db.accept import TEST_STREAM
from shared.db.engine import Connection
from shared.db.messages import MESSAGE, SCANNED, MessageView, message_view
from shared.db.paging import Page
from shared.db.tags import tagged_messages

_CURSOR = "message"
_NEWEST = 2**63 - 1


# As for deliveries: only message_account can serve it, and message_test what a sandbox handed in.
_MESSAGES = """
WITH scanned AS MATERIALIZED (
    SELECT id, is_test FROM message WHERE {which} account_id >= $1 AND (account_id, id) < ($1, $2) ORDER BY account_id DESC, id DESC LIMIT $3
)
SELECT (SELECT min(id) FROM scanned) AS last_id, (SELECT count(*) FROM scanned) AS scanned, ARRAY(
    SELECT id FROM scanned WHERE is_test = {is_test} ORDER BY id DESC LIMIT $4
) AS ids
"""
_MESSAGES_IN_EARNEST = _MESSAGES.format(which="", is_test="false")
_MESSAGES_IN_TEST = _MESSAGES.format(which="is_test AND", is_test="true")
_MESSAGES_OF_IDS = MESSAGE + "WHERE account_id = $1 AND id = ANY ($2::bigint[]) ORDER BY id DESC"


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages to list."""

    tags: tuple[str, ...] = ()
    """They have all of them."""
    stream: str = ""
    """Empty, or TEST_STREAM: nobody sees both."""


async def list_messages(
    connection: Connection, account_id: int, wanted: MessageFilter, *, cursor: str | None = None, limit: int = 50
) -> Page[MessageView]:
    """Return a page of the messages of a stream that have all of some tags, the newest first.

    A page may be short, or empty, and still have a next one.

    Raises:
        ValidationFailed: cursor, limit or tags are not usable.
    """
    size = inputs.page_size(limit)
    before = paging.decode(_CURSOR, cursor)[0] if cursor else _NEWEST
    if wanted.tags:
        tagged = await tagged_messages(
            connection, account_id, wanted.tags, stream=wanted.stream, newest=before - 1, limit=size
        )
        ids, next_before = tagged.message_ids, None if tagged.next_id is None else tagged.next_id + 1
    else:
        ids, next_before = await _newest(connection, account_id, wanted.stream, before, size)
    views = [message_view(row) for row in await connection.fetch(_MESSAGES_OF_IDS, account_id, ids)]
    return Page(views, None if next_before is None else paging.encode(_CURSOR, next_before))


async def _newest(
    connection: Connection, account_id: int, stream: str, before: int, size: int
) -> tuple[list[int], int | None]:
    """Return messages of a stream, and what the next ones are older than; None: there are no more."""
    sql = _MESSAGES_IN_TEST if stream == TEST_STREAM else _MESSAGES_IN_EARNEST
    scanned = size + 1
    (row,) = await connection.fetch(sql, account_id, before, scanned, size + 1)
    if len(row["ids"]) <= size and row["scanned"] == scanned:  # those of a sandbox lie between the others
        scanned = SCANNED
        (row,) = await connection.fetch(sql, account_id, before, scanned, size + 1)
    ids: list[int] = row["ids"]
    if len(ids) > size:
        return ids[:size], ids[size - 1]
    return ids, row["last_id"] if row["scanned"] == scanned else None
