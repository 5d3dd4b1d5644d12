"""Accepting costs the same however much was accepted before: shown by pages touched and by scans, never by time."""

from dataclasses import replace

import asyncpg
import pytest

from integration.shared.db.queue_data import Mailroom
from shared.db import accept
from shared.db.accept import AcceptedMessage, NewMessage
from shared.db.engine import PLANS_BY_INDEX, SETTINGS
from shared.db.idempotency import IdempotencyKey

MESSAGES = 50
LIMITED = ("messages_per_day", "first_time_recipients_per_day", "messages_per_second")

# What a busy installation looks like: each number is of rows that were there before.
_BEFORE = """
INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8)
    SELECT {base} + n * 2, {account}, 'rest', '<' || n || '@x>', 'me@ours.test', 'ours.test', '', 1, 1, false FROM generate_series(1, {rows}) n;
INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key)
    SELECT {base} + n * 2 + 1, {base} + n * 2, {account}, '', 'u' || n || '@b.test', 'b.test', 'u' || n || '@b.test' FROM generate_series(1, {rows}) n;
INSERT INTO delivery_queue (delivery_id, lane_id) SELECT {base} + n * 2 + 1, 1 FROM generate_series(1, {rows}) n;
INSERT INTO suppression (account_id, key, mox_key, address, manual, reason, match_by_mox_key)
    SELECT {account}, 's' || n || '@b.test', 's' || n || '@b.test', '', true, '', n % 2 = 0 FROM generate_series(1, {rows}) n;
INSERT INTO hold_rule (account_id, recipient_address) SELECT {account}, 'h' || n || '@b.test' FROM generate_series(1, {rows} / 10) n;
INSERT INTO idempotency (account_id, key, digest, answer) SELECT {account}, 'k' || n, '', '{{}}' FROM generate_series(1, {rows}) n;
INSERT INTO known_recipient (account_id, key) SELECT {account}, 'r' || n || '@b.test' FROM generate_series(1, {rows}) n;
INSERT INTO account_usage SELECT {account}, date_trunc('hour', now()) - n * interval '10 minutes', {rows} / 144, 0 FROM generate_series(1, 144) n
"""
_TOUCHED = """
SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0))::bigint FROM pg_statio_user_tables
"""
_SCANNED = "SELECT relname FROM pg_stat_user_tables WHERE seq_scan > 0 AND n_live_tup > 1000 ORDER BY relname"


async def _messages(room: Mailroom) -> list[NewMessage]:
    messages = await room.messages([f"new{n}@b.test" for n in range(MESSAGES)])
    return [
        replace(message, idempotency=IdempotencyKey(room.account_id, f"new{n}", b"x"), tags=("welcome",))
        for n, message in enumerate(messages)
    ]


async def _cost(database_url: str, rows: int) -> tuple[int, list[str]]:
    """Return how many pages accepting touches where so many rows are there before, and which of their tables it scans."""
    connection = await asyncpg.connect(database_url, server_settings={**SETTINGS, **PLANS_BY_INDEX})
    try:
        room = await Mailroom(connection).open(f"of {rows}")
        limits = ", ".join(f"{name} = 1000000000" for name in LIMITED)
        await connection.execute(f"UPDATE account SET {limits} WHERE id = {room.account_id}")
        base: int = await connection.fetchval("SELECT last_value + 1024 FROM record_id")
        # The ids of the room come after those that are filled in.
        await connection.execute(f"SELECT setval('record_id', {base + rows * 2 // 256 * 256 + 512})")
        await connection.execute("SELECT ensure_partitions()")
        await connection.execute(_BEFORE.format(account=room.account_id, rows=rows, base=base))
        await connection.execute("ANALYZE")
        warm, measured = await _messages(room), await _messages(room)
        measured = [
            replace(m, idempotency=IdempotencyKey(room.account_id, f"measured{n}", b"x"))
            for n, m in enumerate(measured)
        ]
        async with connection.transaction():
            await accept.accept(connection, warm)
        for reset in ("pg_stat_force_next_flush()", "pg_stat_reset()"):
            await connection.execute(f"SELECT {reset}")
        before = await connection.fetchval(_TOUCHED)
        async with connection.transaction():
            results = await accept.accept(connection, measured)
        assert all(isinstance(result, AcceptedMessage) for result in results)
        await connection.execute("SELECT pg_stat_force_next_flush()")
        touched: int = await connection.fetchval(_TOUCHED)
        scanned = [row["relname"] for row in await connection.fetch(_SCANNED)]
    finally:
        await connection.close()
    return touched - before, scanned


@pytest.mark.parametrize("rows", [300_000])
async def test_accepting_touches_as_many_pages_with_many_rows_as_with_few(database_url: str, rows: int) -> None:
    few, _ = await _cost(database_url, 300)
    many, scanned = await _cost(database_url, rows)

    assert scanned == []
    assert few > MESSAGES
    # An index of many rows is a level or two deeper; a scan would touch thousands of pages more.
    assert many < 2 * few
