import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from shared.db import events
from shared.db.engine import create_pool
from shared.db.events import EventFilter, EventView
from shared.errors import NotFound, ValidationFailed
from shared.events import EventType
from shared.models import Domain

Raw = asyncpg.Connection


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Raw]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def _record(
    connection: Raw, number: int, account_id: int, type_: str = "delivered", delivery_id: int | None = None
) -> None:
    await connection.execute(
        "INSERT INTO event (id, account_id, type, delivery_id) VALUES ($1, $2, $3, $4)",
        number,
        account_id,
        type_,
        delivery_id,
    )


async def _read_all(connection: Raw, account_id: int, wanted: EventFilter | None = None, limit: int = 2) -> list[int]:
    seen: list[EventView] = []
    cursor: str | None = None
    while True:
        page = await events.list_events(connection, account_id, wanted, cursor=cursor, limit=limit)
        seen += page.items
        cursor = page.cursor
        if not page.has_more:
            return [event.id for event in seen]


async def test_events_come_oldest_first_in_pages_for_one_account(
    connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    for number in range(1, 6):
        await _record(connection, number, domain.account_id)
    await _record(connection, 6, strange_domain.account_id)
    assert await _read_all(connection, domain.account_id) == [1, 2, 3, 4, 5]
    assert await _read_all(connection, domain.account_id, limit=5) == [1, 2, 3, 4, 5]
    assert await _read_all(connection, strange_domain.account_id) == [6]


async def test_a_reader_who_is_up_to_date_goes_on_with_the_cursor_it_has(connection: Raw, domain: Domain) -> None:
    nothing = await events.list_events(connection, domain.account_id)
    assert (nothing.items, nothing.has_more) == ([], False)
    await _record(connection, 1, domain.account_id)
    first = await events.list_events(connection, domain.account_id, cursor=nothing.cursor)
    assert [event.id for event in first.items] == [1]
    still = await events.list_events(connection, domain.account_id, cursor=first.cursor)
    assert (still.items, still.cursor) == ([], first.cursor)


async def test_what_a_slow_transaction_commits_late_is_neither_skipped_nor_seen_twice(
    connection: Raw, other: Raw, domain: Domain
) -> None:
    account_id = domain.account_id
    await _record(connection, 1, account_id)
    slow = other.transaction()
    await slow.start()
    await _record(other, 2, account_id)
    await _record(connection, 3, account_id)
    early = await events.list_events(connection, account_id)
    # 3 is committed, but what is still running has its place before it.
    assert [event.id for event in early.items] == [1]
    await slow.commit()
    late = await events.list_events(connection, account_id, cursor=early.cursor)
    assert [event.id for event in late.items] == [2, 3]


async def test_the_order_is_that_of_transactions_not_of_ids(connection: Raw, domain: Domain) -> None:
    for number in (5, 3, 4):
        await _record(connection, number, domain.account_id)
    assert await _read_all(connection, domain.account_id) == [5, 3, 4]


async def test_events_are_filtered_by_type_and_by_delivery(
    connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    account_id = domain.account_id
    for number, (type_, delivery_id) in enumerate(
        [("delayed", 7), ("delivered", 7), ("failed", 8), ("delayed", 8)], start=1
    ):
        await _record(connection, number, account_id, type_, delivery_id)
    assert await _read_all(connection, account_id, EventFilter(types=["delayed"]), limit=1) == [1, 4]
    assert await _read_all(connection, account_id, EventFilter(types=["delayed", "failed"])) == [1, 3, 4]
    assert await _read_all(connection, account_id, EventFilter(delivery_id=7), limit=1) == [1, 2]
    assert await _read_all(connection, account_id, EventFilter(types=["failed"], delivery_id=7)) == []
    assert await _read_all(connection, strange_domain.account_id, EventFilter(delivery_id=7)) == []
    # A filter that matches nothing moves on all the same.
    page = await events.list_events(connection, account_id, EventFilter(types=["bounced"]))
    await _record(connection, 5, account_id, "bounced")
    following = await events.list_events(connection, account_id, EventFilter(types=["bounced"]), cursor=page.cursor)
    assert [event.id for event in following.items] == [5]


async def test_a_rare_type_is_reached_by_following_cursors(connection: Raw, domain: Domain) -> None:
    await connection.execute(
        "INSERT INTO event (id, account_id, type) SELECT n, $1, CASE WHEN n = $2 THEN 'bounced' ELSE 'delivered' END FROM generate_series(1, $2) n",
        domain.account_id,
        events.SCANNED + 5,
    )
    wanted = EventFilter(types=["bounced"])
    first = await events.list_events(connection, domain.account_id, wanted)
    assert (first.items, first.has_more) == ([], True)
    second = await events.list_events(connection, domain.account_id, wanted, cursor=first.cursor)
    assert [event.id for event in second.items] == [events.SCANNED + 5]


async def test_an_event_comes_with_the_recipient_and_the_message_it_is_about(
    connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    account_id = domain.account_id
    await connection.execute(
        "INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8)"
        " VALUES (90, $1, 'rest', '<m@example.com>', 'a@example.com', 'example.com', 'Hi', 1, 1, false)",
        account_id,
    )
    await connection.execute(
        "INSERT INTO delivery (id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key)"
        " VALUES (91, 90, $1, '', 'tok', 'r@b.example', 'b.example', 'r@b.example')",
        account_id,
    )
    await connection.execute(
        "INSERT INTO event (id, account_id, type, delivery_id, attempt, code, enhanced, text, category, suppressing)"
        " VALUES (1, $1, 'failed', 91, 2, 550, '5.1.1', 'no such user', 'recipient', true)",
        account_id,
    )
    await _record(connection, 2, account_id, "received")
    await _record(connection, 3, strange_domain.account_id, "failed", 91)
    about, inbound = (await events.list_events(connection, account_id)).items
    assert (about.type, about.recipient, about.from_id, about.message_id) == (
        EventType.FAILED,
        "r@b.example",
        "tok",
        90,
    )
    assert (about.message_id_header, about.subject) == ("<m@example.com>", "Hi")
    assert (about.attempt, about.code, about.enhanced, about.category) == (2, 550, "5.1.1", "recipient")
    assert about.suppressing
    assert (inbound.recipient, inbound.message_id, inbound.suppressing) == (None, None, False)
    # An event that names a delivery of another account shows nothing of it.
    (strange,) = (await events.list_events(connection, strange_domain.account_id)).items
    assert (strange.recipient, strange.subject) == (None, None)


@pytest.mark.parametrize(
    "cursor", ["x", "ZXZlbnQuMQ", "ZXZlbnQuMS4yLjM", "ZXZlbnQuLTEuMg", "ZXZlbnQuOTk5OTk5OTk5OTk5OTk5OTk5OTkuMQ"]
)
async def test_a_cursor_of_something_else_is_refused(connection: Raw, domain: Domain, cursor: str) -> None:
    with pytest.raises(ValidationFailed) as error:
        await events.list_events(connection, domain.account_id, cursor=cursor)
    assert error.value.field == "cursor"


async def test_bad_filters_are_refused(connection: Raw, domain: Domain) -> None:
    with pytest.raises(ValidationFailed):
        await events.list_events(connection, domain.account_id, EventFilter(types=["opened"]))
    with pytest.raises(ValidationFailed):
        await events.list_events(connection, domain.account_id, limit=0)
    with pytest.raises(NotFound):
        await events.list_events(connection, domain.account_id, EventFilter(delivery_id=2**63))


@pytest.mark.parametrize("wanted", [EventFilter(), EventFilter(delivery_id=3)])
async def test_the_cost_of_a_page_does_not_grow_with_the_events_of_others(
    database_url: str, domain: Domain, wanted: EventFilter
) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    async with pool, pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO event (id, account_id, delivery_id, type)"
            " SELECT n, CASE WHEN n > 99990 OR n IN (9, 10, 11) THEN $1 ELSE 0 END, n / 3, 'delivered' FROM generate_series(1, 100000) n",
            domain.account_id,
        )
        await connection.execute("ANALYZE event")
        arguments = f"{domain.account_id}, '0', 0, {events.SCANNED}, 51, NULL" + (
            f", {wanted.delivery_id}" if wanted.delivery_id else ""
        )
        # EXECUTE, because only that is planned as the pool plans: without knowing the arguments.
        await connection.execute("PREPARE page AS " + events._list_sql(wanted))
        (top,) = json.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page({arguments})")
        )
    assert top["Plan"]["Actual Rows"] in {3, 13}
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 200


async def test_the_events_of_each_stream_are_read_by_themselves(connection: Raw, domain: Domain) -> None:
    await connection.execute(
        "INSERT INTO event (id, account_id, type, stream) SELECT n, $1, 'failed', CASE WHEN n % 50 = 0 THEN 'test' ELSE '' END"
        " FROM generate_series(1, 400) n",
        domain.account_id,
    )
    live = await _read_all(connection, domain.account_id, EventFilter(), limit=40)
    sandbox = await _read_all(connection, domain.account_id, EventFilter(stream="test"), limit=3)
    assert sandbox == list(range(50, 401, 50))
    assert live == [number for number in range(1, 401) if number % 50]
    first = await events.list_events(connection, domain.account_id, EventFilter(stream="test"), limit=3)
    assert [(event.id, event.is_test) for event in first.items] == [(50, True), (100, True), (150, True)]
    assert first.has_more
