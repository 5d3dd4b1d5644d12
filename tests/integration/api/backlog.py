"""Live deliveries by the thousand, written as acceptance writes them, and what is asked about them."""

from datetime import timedelta
from typing import Any

from shared.db.engine import Pool
from shared.db.lanes import Lanes, SiteName

_FILL = """
WITH ids AS (
    SELECT n, $1::bigint + 2 * n AS message_id, $1::bigint + 2 * n + 1 AS delivery_id FROM generate_series(0, $2::integer - 1) n
), messages AS (
    INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8, tags)
    SELECT message_id, $3, 'rest', '<' || message_id || '@posthouse.test>', $4, split_part($4, '@', 2), 'hi', 20, 13, false, $5::text[] FROM ids
), bodies AS (
    INSERT INTO message_body (message_id, seq, bytes) SELECT message_id, 0, convert_to(E'Subject: hi\\r\\n\\r\\nbody\\r\\n', 'UTF8') FROM ids
), deliveries AS (
    INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key)
    SELECT delivery_id, message_id, $3, $4, 'u' || n || '@' || $6, $6, 'u' || n || '@' || $6 FROM ids
)
INSERT INTO delivery_queue (delivery_id, lane_id, due_at) SELECT delivery_id, $7, now() + $8::interval FROM ids
"""


async def fill(pool: Pool, account_id: int, rows: int, **options: Any) -> list[int]:
    """Store so many deliveries of an account at once, due in an hour; return their ids in order."""
    domain = options.get("domain", "example.org")
    async with pool.acquire() as connection:
        lane_id = await Lanes().find(connection, SiteName("domain", domain), account_id)
        first = await connection.fetchval(
            "SELECT max(nextval('record_id')) - 256 * $1::integer FROM generate_series(0, $1::integer)",
            rows * 2 // 256 + 1,
        )
        await connection.execute(
            _FILL,
            first,
            rows,
            account_id,
            options.get("sender", "demo@posthouse.test"),
            options.get("tags"),
            domain,
            lane_id,
            options.get("due_in") or timedelta(hours=1),
        )
    return [first + 2 * n + 1 for n in range(rows)]


async def held(pool: Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM delivery_queue WHERE hold")
    return count


async def states(pool: Pool, *ids: int) -> list[str]:
    """Return whether each is held or queued, or how it was settled."""
    found = []
    for one in ids:
        hold = await pool.fetchval("SELECT hold FROM delivery_queue WHERE delivery_id = $1", one)
        settled = await pool.fetchval("SELECT state FROM delivery WHERE id = $1", one)
        found.append(settled if hold is None else "held" if hold else "queued")
    return found
