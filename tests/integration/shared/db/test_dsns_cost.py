"""Taking what is owed costs the same however much is owed and however much there was before: shown by pages, never by time."""

import asyncpg

from integration.shared.db.queue_data import Mailroom
from shared.db import dsns, outcomes
from shared.db.engine import PLANS_BY_INDEX, SETTINGS
from shared.db.outcomes import Outcome, Source
from shared.events import EventType

BATCH = 20
# Of mails long gone: their events lie in the same partitions, and what is owed for them comes after ours.
_BEFORE = """
INSERT INTO event (id, account_id, delivery_id, type) SELECT 1000000 + n, 1, 4000000 + n, 'failed' FROM generate_series({first}, {last}) n;
INSERT INTO dsn_pending (event_id) SELECT 1000000 + n FROM generate_series({first}, {last}) n;
INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8)
    SELECT 4000000 + n, 1, 'rest', '', '', '', '', 1, 1, false FROM generate_series({first}, {last}) n;
INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key)
    SELECT 4000000 + n, 4000000 + n, 1, '', '', '', '' FROM generate_series({first}, {last}) n;
INSERT INTO attempt (delivery_id, n, worker_id) SELECT 4000000 + n, 1, 1 FROM generate_series({first}, {last}) n;
"""
_TOUCHED = """
SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0))::bigint FROM pg_statio_user_tables
"""


async def _cost(connection: "asyncpg.Connection[asyncpg.Record]", room: Mailroom) -> int:
    """Return how many pages are touched by taking a batch."""
    ids = await room.accept([f"u{n}@b.test" for n in range(2 * BATCH)])
    async with connection.transaction():
        await outcomes.record(connection, [Outcome(i, Source.OPERATOR, EventType.FAILED) for i in ids])
    async with connection.transaction():
        assert len(await dsns.take(connection, BATCH)) == BATCH  # warms plans and catalogue
    await connection.execute("SELECT pg_stat_force_next_flush()")
    before: int = await connection.fetchval(_TOUCHED)
    async with connection.transaction():
        taken = await dsns.take(connection, BATCH)
    assert [owed.delivery_id for owed in taken] == sorted(ids)[BATCH:]
    await connection.execute("SELECT pg_stat_force_next_flush()")
    after: int = await connection.fetchval(_TOUCHED)
    return after - before


async def test_a_batch_costs_the_same_with_a_backlog_and_a_history(database_url: str) -> None:
    connection = await asyncpg.connect(database_url, server_settings={**SETTINGS, **PLANS_BY_INDEX})
    try:
        room = await Mailroom(connection).open()
        await connection.execute("UPDATE account SET dsn_to_sender = true")
        costs = []
        for first, last in ((1, 2_000), (2_001, 200_000)):
            await connection.execute(_BEFORE.format(first=first, last=last))
            await connection.execute("ANALYZE")
            costs.append(await _cost(connection, room))
    finally:
        await connection.close()
    few, many = costs
    assert few > BATCH
    # An index of many rows is a level or two deeper; a scan would touch thousands of pages more.
    assert many < 2 * few
