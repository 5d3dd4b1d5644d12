"""Lists by tag: what they show, and that neither a long history nor a frequent tag beside it costs anything."""

import json

import asyncpg
import pytest

from shared.db import message_list, messages, tags
from shared.db.accept import TEST_STREAM
from shared.db.engine import create_pool
from shared.db.message_list import MessageFilter
from shared.db.messages import DeliveryFilter
from shared.db.tags import tagged_messages
from shared.errors import ValidationFailed
from shared.lifecycle import DeliveryState
from shared.models import Domain

Raw = asyncpg.Connection
HISTORY = 100_000


async def tag(connection: Raw, account_id: int, name: str, *message_ids: int, stream: str = "") -> None:
    await connection.execute(
        "INSERT INTO message_tag (account_id, stream, tag, message_id) SELECT $1, $4, $2, unnest($3::bigint[])",
        account_id,
        name,
        list(message_ids),
        stream,
    )


async def send(connection: Raw, account_id: int, message_id: int, *delivery_ids: int, state: str = "queued") -> None:
    await connection.execute(
        "INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8, tags)"
        " VALUES ($1, $2, 'rest', '<m@example.com>', 'a@example.com', 'example.com', 'Hi', 10, 5, false, '{x}')",
        message_id,
        account_id,
    )
    await connection.execute(
        "INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key, state)"
        " SELECT id, $2, $3, '', 'r' || id || '@b.example', 'b.example', 'r@b.example', $4 FROM unnest($1::bigint[]) id",
        list(delivery_ids),
        message_id,
        account_id,
        state,
    )


async def ids(connection: Raw, account_id: int, *names: str, newest: int = 2**62, limit: int = 10) -> list[int]:
    return (await tagged_messages(connection, account_id, names, newest=newest, limit=limit)).message_ids


async def test_messages_have_to_have_all_the_tags(connection: Raw, domain: Domain, strange_domain: Domain) -> None:
    account_id = domain.account_id
    await tag(connection, account_id, "a", 1, 2, 3, 5, 8, 9)
    await tag(connection, account_id, "b", 2, 3, 4, 9)
    await tag(connection, account_id, "c", 3, 9, 10)
    await tag(connection, strange_domain.account_id, "a", 4, 7)
    assert await ids(connection, account_id, "a") == [9, 8, 5, 3, 2, 1]
    assert await ids(connection, account_id, "a", "b") == [9, 3, 2]
    assert await ids(connection, account_id, "c", "b", "a", "b") == [9, 3]
    assert await ids(connection, account_id, "a", newest=8, limit=2) == [8, 5]
    assert await ids(connection, account_id, "a", "none") == await ids(connection, account_id, "A") == []
    assert await ids(connection, strange_domain.account_id, "a") == [7, 4]


@pytest.mark.parametrize("names", [[str(n) for n in range(21)], ["\x00"], ["\ud800"], ["x" * 1001]])
async def test_tags_that_cannot_be_asked_for(connection: Raw, domain: Domain, names: list[str]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await ids(connection, domain.account_id, *names)
    assert refused.value.field == "tag"


async def test_deliveries_of_tagged_messages_page_by_page(connection: Raw, domain: Domain) -> None:
    account_id = domain.account_id
    await send(connection, account_id, 10, 11, 12, 13, state="delivered")
    await send(connection, account_id, 20, 500)  # its block of ids ended: the delivery is younger than all others
    await send(connection, account_id, 30, 31, 32, state="delivered")
    await send(connection, account_id, 40, 41)
    await tag(connection, account_id, "x", 10, 20, 30)
    for limit in range(1, 8):
        seen: list[int] = []
        cursor: str | None = None
        while not seen or cursor is not None:
            page = await messages.list_deliveries(
                connection, account_id, DeliveryFilter(tags=("x",)), cursor=cursor, limit=limit
            )
            assert len(page.items) <= limit
            seen += [view.id for view in page.items]
            cursor = page.next_cursor
        assert seen == [32, 31, 500, 13, 12, 11], limit

    async def found(**wanted: object) -> list[int]:
        filters = DeliveryFilter(tags=("x",), **wanted)  # type: ignore[arg-type] # passed on
        page = await messages.list_deliveries(connection, account_id, filters)
        assert page.next_cursor is None
        return [view.id for view in page.items]

    assert await found(state=DeliveryState.DELIVERED) == [32, 31, 13, 12, 11]
    assert await found(recipient="r12@b.example") == [12]
    assert await found(message_id=10) == [13, 12, 11]
    assert await found(message_id=40) == []
    with pytest.raises(ValidationFailed):
        await messages.list_deliveries(connection, account_id, DeliveryFilter(tags=("x",)), cursor="ZGVsaXZlcnkuMQ")


async def test_messages_are_listed_newest_first_with_and_without_tags(
    connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    account_id = domain.account_id
    for number in range(1, 8):
        await send(connection, account_id, number)
    await send(connection, strange_domain.account_id, 50)
    await tag(connection, account_id, "x", 2, 4, 6)
    for names, wanted in ((), [7, 6, 5, 4, 3, 2, 1]), (("x",), [6, 4, 2]):
        seen: list[int] = []
        cursor: str | None = None
        while not seen or cursor is not None:
            page = await message_list.list_messages(
                connection, account_id, MessageFilter(names), cursor=cursor, limit=2
            )
            seen += [view.id for view in page.items]
            cursor = page.next_cursor
        assert seen == wanted


async def test_a_sandbox_and_the_rest_of_an_account_see_only_themselves(connection: Raw, domain: Domain) -> None:
    account_id, between = domain.account_id, 30
    await send(connection, account_id, 1, 2)
    for number in range(10, 10 + between):
        await send(connection, account_id, number, 1000 + number)
    await send(connection, account_id, 90, 91)
    await tag(connection, account_id, "x", 1, 90)
    await tag(connection, account_id, "x", *range(10, 10 + between), stream=TEST_STREAM)
    await connection.execute("UPDATE message SET is_test = id BETWEEN 10 AND 89")
    await connection.execute("UPDATE delivery SET stream = 'test' WHERE id >= 1000")
    for names in ((), ("x",)):
        for stream, wanted in (("", [90, 1]), (TEST_STREAM, list(range(9 + between, 9, -1)))):
            seen: list[int] = []
            cursor: str | None = None
            while not seen or cursor is not None:
                page = await message_list.list_messages(
                    connection, account_id, MessageFilter(names, stream), cursor=cursor, limit=4
                )
                assert len(page.items) <= 4
                seen += [view.id for view in page.items]
                cursor = page.next_cursor
            assert seen == wanted, (names, stream)
    in_test = DeliveryFilter(tags=("x",), stream=TEST_STREAM)
    assert len((await messages.list_deliveries(connection, account_id, in_test)).items) == between
    in_earnest = await messages.list_deliveries(connection, account_id, DeliveryFilter(tags=("x",)))
    assert [view.id for view in in_earnest.items] == [91, 2]


@pytest.mark.parametrize("sql", [message_list._MESSAGES_IN_EARNEST, message_list._MESSAGES_IN_TEST])
async def test_a_page_of_messages_costs_the_same_in_a_long_history(database_url: str, domain: Domain, sql: str) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    async with pool, pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8, is_test)"
            " SELECT n, CASE WHEN n % 3 = 0 THEN $1 ELSE 0 END, 'rest', '', '', '', '', 1, 1, false, n < 40 FROM generate_series(1, $2) n",
            domain.account_id,
            HISTORY,
        )
        await connection.execute("ANALYZE message")
        await connection.execute("PREPARE page AS " + sql)
        (top,) = json.loads(
            await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page({domain.account_id}, {2**62}, 51, 51)"
            )
        )
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 150


async def test_a_page_with_a_filter_looks_at_so_many_messages_and_goes_on(connection: Raw, domain: Domain) -> None:
    count = messages.TAGGED_SCANNED + 5
    for number in range(1, count + 1):
        await send(
            connection, domain.account_id, number, 10_000 + number, state="failed" if number == 1 else "delivered"
        )
    await tag(connection, domain.account_id, "x", *range(1, count + 1))
    wanted = DeliveryFilter(tags=("x",), state=DeliveryState.FAILED)
    first = await messages.list_deliveries(connection, domain.account_id, wanted)
    assert first.items == []
    second = await messages.list_deliveries(connection, domain.account_id, wanted, cursor=first.next_cursor)
    assert [view.id for view in second.items] == [10_001]
    assert second.next_cursor is None


async def test_a_walk_over_tags_that_never_meet_stops_and_goes_on(connection: Raw, domain: Domain) -> None:
    account_id, count = domain.account_id, 2 * tags.STEPS
    await tag(connection, account_id, "odd", *range(1, count, 2))
    await tag(connection, account_id, "even", 1, *range(2, count + 1, 2))
    at: int | None = 2**62
    walks = []
    while at is not None:
        walk = await tagged_messages(connection, account_id, ("odd", "even"), newest=at, limit=5)
        walks.append(walk.message_ids)
        at = walk.next_id
    assert walks[0] == []
    assert [found for walk in walks for found in walk] == [1]


async def history(connection: Raw, account_id: int) -> None:
    """Make a long one: everything has the tag ``all``, three messages have ``rare``, all of others have it too."""
    await connection.execute(
        "INSERT INTO message_tag (account_id, stream, tag, message_id) SELECT $1, '', 'all', n FROM generate_series(1, $2) n",
        account_id,
        HISTORY,
    )
    await connection.execute(
        "INSERT INTO message_tag (account_id, stream, tag, message_id) SELECT 0, '', 'rare', n FROM generate_series(1, $1) n",
        HISTORY,
    )
    await tag(connection, account_id, "rare", 5, 50, 500)
    await connection.execute(
        "INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key, state)"
        " SELECT n, n, $1, '', 'r', 'd', 'r', 'failed' FROM generate_series(1, $2) n",
        account_id,
        HISTORY,
    )


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize(
    ("names", "found"), [("{rare}", 3), ("{all,rare}", 3), ("{rare,all}", 3), ("{all}", 51), ("{none,all}", 0)]
)
async def test_a_rare_tag_in_a_long_history_costs_no_scan(
    database_url: str, domain: Domain, names: str, found: int, *, analyzed: bool
) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    async with pool, pool.acquire() as connection:
        await history(connection, domain.account_id)  # type: ignore[arg-type] # a pool's proxy of a connection
        if analyzed:
            await connection.execute("ANALYZE message_tag, delivery")
        # EXECUTE, because only that is planned as the pool plans: without knowing the arguments.
        await connection.execute("PREPARE walk AS " + tags._WALK)
        arguments = f"{domain.account_id}, '{names}', {2**62}, 51, {tags.STEPS}, ''"
        rows = await connection.fetch(f"EXECUTE walk({arguments})")
        (top,) = json.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE walk({arguments})")
        )
    assert sum(row["hit"] for row in rows) == found
    # Some pages of an index, for each tag at each step.
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 50 + 12 * found


@pytest.mark.parametrize("analyzed", [True, False])
async def test_the_deliveries_of_a_page_are_found_by_their_messages(
    database_url: str, domain: Domain, *, analyzed: bool
) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    async with pool, pool.acquire() as connection:
        await history(connection, domain.account_id)  # type: ignore[arg-type] # as above
        if analyzed:
            await connection.execute("ANALYZE message_tag, delivery")
        await connection.execute("PREPARE page AS " + messages._TAGGED)
        arguments = f"{domain.account_id}, '{{5,50,500}}', {2**62}, {2**62}, 51, NULL, NULL, NULL"
        (top,) = json.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page({arguments})")
        )
    assert top["Plan"]["Actual Rows"] == 3
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 100
