import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from api.metrics import ApiMetrics
from api.writer import Item, Writer
from integration.api.conftest import HELLO
from integration.api.cut import Cut, CuttablePostgres
from shared.db.accept import AcceptedMessage, NewDelivery, NewMessage
from shared.db.engine import Pool, create_pool
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes, SiteName
from shared.errors import DatabaseUnavailable, Overloaded
from shared.events import Subject
from shared.lifecycle import DeliveryState
from shared.metrics import Metrics
from shared.worker.coalesce import Limits

SITE = SiteName("domain", "example.org")


class Heard:
    """A bell that remembers what was rung."""

    def __init__(self) -> None:
        self.rings: list[tuple[Subject, tuple[str, ...]]] = []

    def ring(self, subject: Subject, *names: str) -> None:
        self.rings.append((subject, names))


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[CuttablePostgres]:
    async with CuttablePostgres(database_url) as postgres:
        yield postgres


@pytest.fixture
async def uncertain(postgres: CuttablePostgres) -> AsyncIterator[Pool]:
    """The pool of a writer, whose connections may be cut."""
    pool = await create_pool(postgres.url, size=2, service="test-writer")
    yield pool
    pool.terminate()


class Post:
    """Makes messages of one account."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._ids, self._lanes = pool, IdBlocks(), Lanes()
        self._account = 0

    async def items(self, count: int, *, recipient: str = "grace@example.org", subject: str = "Hello") -> list[Item]:
        async with self._pool.acquire() as connection:
            if not self._account:
                self._account = await connection.fetchval("INSERT INTO account (name) VALUES ('writer') RETURNING id")
            lane = await self._lanes.find(connection, SITE, self._account)
            ids = await self._ids.take(connection, 2 * count)
        return [
            Item(self._message(ids[2 * n], ids[2 * n + 1], lane, recipient, subject), frozenset({SITE.key}))
            for n in range(count)
        ]

    def _message(self, message_id: int, delivery_id: int, lane: int, recipient: str, subject: str) -> NewMessage:
        delivery = NewDelivery(
            delivery_id, "ada@example.com", None, recipient, "example.org", recipient, recipient, lane
        )
        return NewMessage(
            id=message_id,
            account_id=self._account,
            door="rest",
            credential_id=None,
            message_id=f"<{message_id}@test>",
            sender="ada@example.com",
            sender_domain="example.com",
            subject=subject,
            header_size=3,
            content=b"A: b\r\n\r\nc\r\n",
            smtputf8=False,
            extra=None,
            tags=None,
            deliveries=(delivery,),
        )


@pytest.fixture
def post(pool: Pool) -> Post:
    return Post(pool)


def writer_on(pool: Pool, bell: Heard, **options: float) -> tuple[Writer, Metrics]:
    metrics = Metrics("api")
    return Writer(pool, bell, ApiMetrics(metrics), **options), metrics  # type: ignore[arg-type]  # only patience is given


def settled(message: AcceptedMessage) -> set[int]:
    """Deliveries that were suppressed on the spot."""
    return {delivery.id for delivery in message.deliveries if delivery.state is DeliveryState.SUPPRESSED}


def value_of(metrics: Metrics, name: str) -> float:
    value = metrics.registry.get_sample_value(name)
    assert value is not None, name
    return value


async def count_stored(pool: Pool) -> tuple[int, int, int]:
    row = await pool.fetchrow(
        "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM delivery), (SELECT count(*) FROM delivery_queue)"
    )
    assert row is not None
    return tuple(row)


async def test_what_comes_during_a_commit_shares_the_next_one(pool: Pool, post: Post) -> None:
    bell = Heard()
    writer, metrics = writer_on(pool, bell)
    items = await post.items(50)

    results = await asyncio.gather(*(writer.write(item) for item in items))

    assert [settled(result) for result in results] == [set()] * 50
    assert await count_stored(pool) == (50, 50, 50)
    # The first goes alone or with those that came in the same turn of the loop; the rest are together.
    assert value_of(metrics, "posthouse_api_accept_batch_messages_count") <= 2
    assert value_of(metrics, "posthouse_api_accept_batch_messages_sum") == 50
    assert set(bell.rings) == {(Subject.DELIVERY_DUE, (SITE.key,))}


async def test_fifty_requests_at_once_take_fewer_commits_than_fifty(client: httpx.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/messages", json=HELLO)

    answers = await asyncio.gather(*(client.post("/v1/messages", json=HELLO) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 50
    assert await pool.fetchval("SELECT count(*) FROM message") == 51
    lines = (await client.get("/metrics")).text.splitlines()
    [count] = [line.split()[1] for line in lines if line.startswith("posthouse_api_accept_seconds_count")]
    assert float(count) - 1 < 50
    assert 'posthouse_api_submissions_total{door="rest",result="accepted"} 51.0' in lines


@pytest.mark.parametrize("cut", ["before commit", "after commit"])
async def test_a_connection_lost_around_the_commit_costs_nothing_and_doubles_nothing(
    postgres: CuttablePostgres, uncertain: Pool, pool: Pool, post: Post, cut: Cut
) -> None:
    bell = Heard()
    writer, metrics = writer_on(uncertain, bell)
    items = await post.items(3)
    await pool.execute(
        "INSERT INTO suppression (account_id, key, mox_key, address, manual, reason)"
        " SELECT id, 'gone@example.org', 'gone@example.org', 'gone@example.org', true, '' FROM account WHERE name = 'writer'"
    )
    items += await post.items(1, recipient="gone@example.org")
    postgres.cut = cut

    results = await asyncio.gather(*(writer.write(item) for item in items))

    assert postgres.cuts == 1
    assert [settled(result) for result in results] == [set()] * 3 + [{items[3].message.deliveries[0].id}]
    assert await count_stored(pool) == (4, 4, 3)
    assert value_of(metrics, "posthouse_api_accept_doubtful_total") == 1
    assert {subject for subject, _ in bell.rings} == {Subject.DELIVERY_DUE, Subject.EVENT_RECORDED}


async def test_without_a_database_nothing_is_accepted_and_nobody_waits_for_ever(
    postgres: CuttablePostgres, uncertain: Pool, pool: Pool, post: Post
) -> None:
    bell = Heard()
    writer, _ = writer_on(uncertain, bell, patience=0.3)
    items = await post.items(3)
    postgres.down = True

    results = await asyncio.gather(*(writer.write(item) for item in items), return_exceptions=True)

    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert all("nothing was accepted" in str(result) for result in results)
    postgres.down = False
    assert await count_stored(pool) == (0, 0, 0)
    assert settled(await writer.write(items[0])) == set()
    assert len(bell.rings) == 1


async def test_a_database_that_comes_back_in_time_is_waited_for(
    postgres: CuttablePostgres, uncertain: Pool, pool: Pool, post: Post
) -> None:
    writer, _ = writer_on(uncertain, Heard(), patience=30)
    [item] = await post.items(1)
    postgres.down = True
    waiting = asyncio.create_task(writer.write(item))
    await asyncio.wait({waiting}, timeout=0.3)
    assert not waiting.done()

    postgres.down = False

    assert settled(await waiting) == set()
    assert await count_stored(pool) == (1, 1, 1)


async def test_what_nobody_can_tell_is_said_to_be_unknown(
    postgres: CuttablePostgres, uncertain: Pool, pool: Pool, post: Post
) -> None:
    writer, _ = writer_on(uncertain, Heard(), patience=0.3)
    [item] = await post.items(1)
    postgres.cut, postgres.then_down = "after commit", True

    with pytest.raises(DatabaseUnavailable, match="not known"):
        await writer.write(item)
    assert await count_stored(pool) == (1, 1, 1)


async def test_a_message_that_cannot_be_stored_fails_alone(pool: Pool, post: Post) -> None:
    writer, _ = writer_on(pool, Heard())
    items = [*await post.items(2), *await post.items(1, subject="a\0b"), *await post.items(2)]

    results = await asyncio.gather(*(writer.write(item) for item in items), return_exceptions=True)

    assert [type(result) for result in results] == [
        AcceptedMessage,
        AcceptedMessage,
        asyncpg.CharacterNotInRepertoireError,
        AcceptedMessage,
        AcceptedMessage,
    ]
    assert await count_stored(pool) == (4, 4, 4)


async def test_a_full_queue_turns_away_and_a_drained_one_is_empty(pool: Pool, post: Post) -> None:
    metrics = Metrics("api")
    writer = Writer(pool, Heard(), ApiMetrics(metrics), limits=Limits(items=2, waiting=4))
    items = await post.items(10)

    results = await asyncio.gather(*(writer.write(item) for item in items), return_exceptions=True)
    await writer.drain()

    kinds = [type(result) for result in results]
    assert kinds.count(Overloaded) >= 1
    assert kinds.count(AcceptedMessage) >= 4
    assert await count_stored(pool) == (kinds.count(AcceptedMessage),) * 3
    assert value_of(metrics, "posthouse_api_writer_waiting") == 0
