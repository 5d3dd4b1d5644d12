import itertools
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import messages
from shared.db.engine import create_pool
from shared.db.messages import DeliveryFilter
from shared.errors import NotFound, ValidationFailed
from shared.lifecycle import DeliveryState
from shared.models import Attempt, Delivery, DeliveryQueue, Domain, Message, MessageBody

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection
NOW = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)


def _message(number: int, account_id: int, **values: object) -> Message:
    plain = {
        "door": "rest",
        "message_id": f"<{number}@example.com>",
        "sender": "a@example.com",
        "sender_domain": "example.com",
    }
    sizes = {"subject": "Grüße", "size": 10, "header_size": 5, "smtputf8": False}
    return Message(id=number, account_id=account_id, **plain, **sizes, **values)


def _delivery(number: int, message_id: int, account_id: int, **values: object) -> Delivery:
    recipient = f"r{number}@b.example"
    return Delivery(
        id=number,
        message_id=message_id,
        account_id=account_id,
        mail_from="a+x@example.com",
        from_id="x",
        recipient=recipient,
        recipient_domain="b.example",
        recipient_key=recipient,
        **values,
    )


async def _store(sessions: Sessions, *rows: object) -> None:
    async with sessions() as session, session.begin():
        session.add_all(rows)


async def test_a_message_is_read_with_its_deliveries_and_their_attempts(
    sessions: Sessions, connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    account_id = domain.account_id
    await _store(
        sessions,
        _message(10, account_id, extra={"order": "42"}, tags=["a", "b"]),
        _delivery(11, 10, account_id),
        DeliveryQueue(delivery_id=11, lane_id=1, due_at=NOW, attempt=2),
        _delivery(
            12,
            10,
            account_id,
            state="failed",
            attempts=1,
            settled_at=NOW,
            code=550,
            enhanced="5.1.1",
            text="no such user",
        ),
        Attempt(delivery_id=11, n=1, worker_id=1, finished_at=NOW, outcome="delayed", code=451),
        Attempt(delivery_id=11, n=2, worker_id=1),
        Attempt(
            delivery_id=12,
            n=1,
            worker_id=1,
            finished_at=NOW,
            outcome="failed",
            code=550,
            host="mx.b.example",
            tls="TLSv1.3",
        ),
    )
    detail = await messages.get_message(connection, account_id, 10)
    assert detail is not None
    message = detail.message
    assert (message.subject, dict(message.extra), message.tags) == ("Grüße", {"order": "42"}, ("a", "b"))
    live, failed = detail.deliveries
    assert (live.delivery.state, live.delivery.attempts, live.delivery.due_at) == (DeliveryState.QUEUED, 2, NOW)
    assert [(a.n, a.outcome, a.code) for a in live.attempts] == [(1, "delayed", 451), (2, None, None)]
    assert (failed.delivery.state, failed.delivery.attempts, failed.delivery.due_at) == (DeliveryState.FAILED, 1, None)
    assert (failed.delivery.code, failed.delivery.enhanced, failed.attempts[0].host) == (550, "5.1.1", "mx.b.example")
    assert await messages.get_delivery(connection, account_id, 12) == failed
    assert await messages.get_message(connection, strange_domain.account_id, 10) is None
    assert await messages.get_delivery(connection, strange_domain.account_id, 12) is None
    with pytest.raises(NotFound):
        await messages.get_message(connection, account_id, 2**63)


async def test_a_message_without_extras_has_none(sessions: Sessions, connection: Raw, domain: Domain) -> None:
    await _store(sessions, _message(10, domain.account_id))
    detail = await messages.get_message(connection, domain.account_id, 10)
    assert detail is not None
    assert (dict(detail.message.extra), detail.message.tags, detail.deliveries) == ({}, (), ())


async def test_the_filter_reads_states_as_the_lifecycle_does(
    sessions: Sessions, connection: Raw, domain: Domain
) -> None:
    account_id = domain.account_id
    rows: list[object] = []
    for number, (hold, claimed, started) in enumerate(itertools.product((False, True), repeat=3), start=1):
        rows += [
            _delivery(number, 900, account_id),
            DeliveryQueue(
                delivery_id=number,
                lane_id=1,
                hold=hold,
                worker_id=1 if claimed else None,
                started_at=NOW if started else None,
            ),
        ]
    settled = [DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.SUPPRESSED, DeliveryState.CANCELED]
    rows += [_delivery(100 + n, 900, account_id, state=state.value) for n, state in enumerate(settled)]
    await _store(sessions, *rows)
    everything = (await messages.list_deliveries(connection, account_id)).items
    assert {view.state for view in everything} == set(DeliveryState)
    for state in DeliveryState:
        page = await messages.list_deliveries(connection, account_id, DeliveryFilter(state=state))
        assert page.items == [view for view in everything if view.state == state]


async def test_deliveries_are_listed_newest_first_by_account_message_and_recipient(
    sessions: Sessions, connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    account_id = domain.account_id
    await _store(
        sessions,
        *(_delivery(number, 900 + number % 2, account_id, state="delivered") for number in range(1, 8)),
        _delivery(50, 900, strange_domain.account_id, state="delivered"),
    )
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await messages.list_deliveries(connection, account_id, cursor=cursor, limit=3)
        seen += [view.id for view in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    of_message = await messages.list_deliveries(connection, account_id, DeliveryFilter(message_id=900))
    assert [view.id for view in of_message.items] == [6, 4, 2]
    of_recipient = await messages.list_deliveries(connection, account_id, DeliveryFilter(recipient="r5@b.example"))
    assert [view.id for view in of_recipient.items] == [5]
    assert (await messages.list_deliveries(connection, 99)).items == []
    for cursor in ("x", "ZXZlbnQuMQ"):
        with pytest.raises(ValidationFailed):
            await messages.list_deliveries(connection, account_id, cursor=cursor)
    with pytest.raises(ValidationFailed):
        await messages.list_deliveries(connection, account_id, limit=201)
    with pytest.raises(ValidationFailed):
        await messages.list_deliveries(connection, account_id, DeliveryFilter(recipient="a\x00b"))
    with pytest.raises(NotFound):
        await messages.list_deliveries(connection, account_id, DeliveryFilter(message_id=2**63))


async def test_a_rare_state_deep_in_the_history_is_reached_by_following_cursors(
    connection: Raw, domain: Domain
) -> None:
    await connection.execute(
        "INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key, state)"
        " SELECT n, n, $1, '', 'r@b.example', 'b.example', 'r@b.example', CASE WHEN n = 1 THEN 'failed' ELSE 'delivered' END"
        " FROM generate_series(1, $2) n",
        domain.account_id,
        2 * messages.SCANNED + 5,
    )
    wanted = DeliveryFilter(state=DeliveryState.FAILED)
    pages = []
    cursor: str | None = None
    while not pages or cursor is not None:
        page = await messages.list_deliveries(connection, domain.account_id, wanted, cursor=cursor)
        pages.append([view.id for view in page.items])
        cursor = page.next_cursor
    assert pages == [[], [], [1]]


async def test_a_body_is_read_in_its_chunks_and_without_a_transaction(
    sessions: Sessions, connection: Raw, domain: Domain
) -> None:
    chunks = [bytes([number]) * 3 for number in range(9)]
    await _store(sessions, *(MessageBody(message_id=10, seq=seq, chunk=chunk) for seq, chunk in enumerate(chunks)))
    read = []
    async for chunk in messages.body(connection, 10):
        assert not connection.is_in_transaction()
        read.append(chunk)
    assert read == chunks
    assert [chunk async for chunk in messages.body(connection, 11)] == []


async def test_report_times_are_part_of_the_record(sessions: Sessions, connection: Raw, domain: Domain) -> None:
    later = NOW + timedelta(hours=1)
    await _store(sessions, _delivery(1, 900, domain.account_id, state="delivered", settled_at=NOW, bounced_at=later))
    detail = await messages.get_delivery(connection, domain.account_id, 1)
    assert detail is not None
    assert (detail.delivery.settled_at, detail.delivery.bounced_at, detail.delivery.complained_at) == (NOW, later, None)


@pytest.mark.parametrize(
    "wanted", [DeliveryFilter(), DeliveryFilter(message_id=3), DeliveryFilter(state=DeliveryState.FAILED)]
)
async def test_the_cost_of_a_page_does_not_grow_with_the_mail_of_others(
    database_url: str, domain: Domain, wanted: DeliveryFilter
) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    async with pool, pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key, state)"
            " SELECT n, n / 3, CASE WHEN n <= 11 THEN $1 ELSE 0 END, '', 'r', 'd', 'r', 'failed' FROM generate_series(1, 100000) n",
            domain.account_id,
        )
        await connection.execute("ANALYZE delivery")
        state = f"'{wanted.state.value}'" if wanted.state else "NULL"
        arguments = f"{domain.account_id}, {2**62}, {messages.SCANNED}, 51, {state}, NULL" + (
            f", {wanted.message_id}" if wanted.message_id else ""
        )
        # EXECUTE, because only that is planned as the pool plans: without knowing the arguments.
        await connection.execute("PREPARE page AS " + messages._list_sql(wanted))
        (top,) = json.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page({arguments})")
        )
    assert top["Plan"]["Actual Rows"] in {3, 11}
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 200


async def test_a_stream_is_listed_in_full_pages_and_found_without_reading_the_others(
    database_url: str, domain: Domain
) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    live, sandbox = DeliveryFilter(), DeliveryFilter(stream="test")
    async with pool, pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key, stream)"
            " SELECT n, n, $1, '', 'r', 'd', 'r', CASE WHEN n <= 5 OR n > 99000 AND n <= 99900 THEN 'test' ELSE '' END"
            " FROM generate_series(1, 100000) n",
            domain.account_id,
        )
        await connection.execute("ANALYZE delivery")
        newest = await messages.list_deliveries(connection, domain.account_id, live, limit=101)
        assert [view.id for view in newest.items] == [*range(100_000, 99_900, -1), 99_000]
        following = await messages.list_deliveries(connection, domain.account_id, live, cursor=newest.next_cursor)
        assert following.items[0].id == 98_999
        cursor, seen = None, []
        while True:
            page = await messages.list_deliveries(connection, domain.account_id, sandbox, cursor=cursor, limit=200)
            seen += [view.id for view in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == [*range(99_900, 99_000, -1), *range(5, 0, -1)]
        await connection.execute("PREPARE page AS " + messages._list_sql(sandbox))
        (top,) = json.loads(
            await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page({domain.account_id}, 99001, 51, 51, NULL, NULL)"
            )
        )
    assert top["Plan"]["Actual Rows"] == 5
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 100
