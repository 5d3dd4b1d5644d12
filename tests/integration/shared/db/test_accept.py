"""What may refuse a message alone, inside the accepting transaction: its key, its from_id, the budget of its account; and what holds it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from integration.shared.db.queue_data import Mailroom
from shared.db import accept, client_from_ids, idempotency, usage
from shared.db.accept import AcceptedMessage, NewMessage, Result
from shared.db.idempotency import IdempotencyKey
from shared.errors import (
    FromIdTaken,
    IdempotencyConflict,
    MessageLimitReached,
    PosthouseError,
    RateLimited,
    RecipientLimitReached,
)
from shared.lifecycle import DeliveryState
from shared.mail.address import parse

Connection = asyncpg.Connection


@pytest.fixture
async def room(connection: Connection) -> Mailroom:
    return await Mailroom(connection).open()


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def take(connection: Connection, *messages: NewMessage) -> list[Result]:
    async with connection.transaction():
        return await accept.accept(connection, messages)


def ids(results: list[Result]) -> list[int | str]:
    """Return the id of each message that was accepted, or the code of its refusal."""
    return [result.code if isinstance(result, PosthouseError) else result.id for result in results]


class Keyed:
    """Messages with idempotency keys."""

    def __init__(self, room: Mailroom) -> None:
        self.room = room

    async def message(self, key: str, digest: bytes = b"one", recipient: str = "grace@example.org") -> NewMessage:
        [message] = await self.room.messages([recipient])
        return replace(message, idempotency=IdempotencyKey(self.room.account_id, key, digest))


@pytest.fixture
def keyed(room: Mailroom) -> Keyed:
    return Keyed(room)


async def count(connection: Connection, table: str) -> int:
    found: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_the_second_of_a_key_gets_the_answer_of_the_first(connection: Connection, keyed: Keyed) -> None:
    first, again, other = await keyed.message("k"), await keyed.message("k"), await keyed.message("k", b"two")

    assert ids(await take(connection, first)) == [first.id]
    [repeated] = await take(connection, again)
    [refused] = await take(connection, other)

    assert isinstance(repeated, AcceptedMessage)
    assert repeated.replayed
    assert (repeated.id, repeated.message_id) == (first.id, first.message_id)
    assert [d.id for d in repeated.deliveries] == [first.deliveries[0].id]
    assert isinstance(refused, IdempotencyConflict)
    assert (await count(connection, "message"), await count(connection, "delivery_queue")) == (1, 1)


async def test_a_message_that_was_stored_unheard_is_no_repeat_of_itself(connection: Connection, keyed: Keyed) -> None:
    first = await keyed.message("k")
    [accepted] = await take(connection, first)
    assert await take(connection, first) == [accepted]  # as the writer does it that lost the connection in the commit
    assert await count(connection, "message") == 1


async def test_repeats_within_one_batch_are_found_too(connection: Connection, keyed: Keyed) -> None:
    first, again, other = await keyed.message("k"), await keyed.message("k"), await keyed.message("k", b"two")
    [unkeyed] = await keyed.room.messages(["ada@example.org"])

    results = await take(connection, first, again, unkeyed, other)

    assert ids(results) == [first.id, first.id, unkeyed.id, "idempotency_conflict"]
    assert await count(connection, "message") == 2


async def test_a_concurrent_second_waits_for_the_first(
    connection: Connection, second: Connection, keyed: Keyed
) -> None:
    first, again = await keyed.message("k"), await keyed.message("k")
    transaction = connection.transaction()
    await transaction.start()
    await accept.accept(connection, [first])

    waiting = asyncio.create_task(take(second, again))
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()
    await transaction.commit()

    assert ids(await waiting) == [first.id]
    assert await count(connection, "message") == 1


async def test_the_key_of_a_submission_that_was_rolled_back_is_free(
    connection: Connection, second: Connection, keyed: Keyed
) -> None:
    first, again = await keyed.message("k"), await keyed.message("k")
    transaction = connection.transaction()
    await transaction.start()
    await accept.accept(connection, [first])
    waiting = asyncio.create_task(take(second, again))
    await asyncio.wait({waiting}, timeout=0.1)
    await transaction.rollback()

    assert ids(await waiting) == [again.id]


async def test_replicas_with_the_same_keys_in_other_orders_do_not_deadlock(
    connection: Connection, second: Connection, keyed: Keyed
) -> None:
    names = [f"k{n}" for n in range(40)]
    here = [await keyed.message(name) for name in names]
    there = [await keyed.message(name) for name in reversed(names)]

    of_here, of_there = await asyncio.gather(take(connection, *here), take(second, *there))

    assert ids(of_here) == list(reversed(ids(of_there)))
    assert await count(connection, "message") == 40


async def test_a_key_is_free_again_after_a_day_and_its_row_is_swept(connection: Connection, keyed: Keyed) -> None:
    first, later, last = [await keyed.message("k") for _ in range(3)]
    await take(connection, first)
    await connection.execute("UPDATE idempotency SET created_at = now() - interval '23 hours 59 minutes'")
    assert ids(await take(connection, later)) == [first.id]
    await connection.execute("UPDATE idempotency SET created_at = now() - interval '24 hours'")

    assert ids(await take(connection, last)) == [last.id]
    assert await idempotency.sweep(connection, limit=10) == 0
    await connection.execute("UPDATE idempotency SET created_at = now() - interval '26 hours'")
    assert await idempotency.sweep(connection, limit=10) == 1


async def test_keys_of_two_accounts_have_nothing_to_do_with_each_other(connection: Connection, keyed: Keyed) -> None:
    other = Keyed(await Mailroom(connection).open("other"))
    first, theirs = await keyed.message("k"), await other.message("k", b"two")

    assert ids(await take(connection, first, theirs)) == [first.id, theirs.id]


async def test_a_from_id_that_a_client_chose_is_unique_while_its_delivery_is_kept(
    connection: Connection, room: Mailroom
) -> None:
    async def chosen(token: str) -> NewMessage:
        [message] = await room.messages(["grace@example.org"])
        delivery = replace(
            message.deliveries[0], mail_from=f"Me+{token}@ours.test", from_id=token, client_chose_from_id=True
        )
        return replace(message, deliveries=(delivery,))

    first, same, folded, twin, another = [await chosen(t) for t in ("abc", "abc", "ABC", "x", "x")]

    assert ids(await take(connection, first)) == [first.id]
    assert ids(await take(connection, same, folded, twin, another)) == ["from_id_taken"] * 2 + [
        twin.id,
        "from_id_taken",
    ]
    assert await client_from_ids.find(connection, room.account_id, parse("mE+Abc@ours.test")) == first.deliveries[0].id
    for stranger in ("you+abc@ours.test", "me+abc@theirs.test", "me+abcd@ours.test", "abc@ours.test", "me@ours.test"):
        assert await client_from_ids.find(connection, room.account_id, parse(stranger)) is None
    assert await client_from_ids.find(connection, room.account_id + 1, parse("me+abc@ours.test")) is None
    await connection.execute("UPDATE delivery SET keep_until = now() WHERE id = $1", first.deliveries[0].id)
    assert ids(await take(connection, same)) == [same.id]
    assert isinstance((await take(connection, folded))[0], FromIdTaken)


async def limited(connection: Connection, room: Mailroom, **limits: int) -> Mailroom:
    assignments = ", ".join(f"{name} = {value}" for name, value in limits.items())
    await connection.execute(f"UPDATE account SET {assignments} WHERE id = $1", room.account_id)
    return room


def retry_after(result: Result) -> object:
    assert isinstance(result, PosthouseError)
    return result.facts.get("retry_after")


async def test_recipients_a_day_are_counted_and_what_was_refused_is_not(connection: Connection, room: Mailroom) -> None:
    await limited(connection, room, messages_per_day=3)
    messages = await room.messages([f"r{n}@example.org" for n in range(5)])

    assert ids(await take(connection, *messages[:2])) == [m.id for m in messages[:2]]
    results = await take(connection, *messages[2:])

    assert ids(results) == [messages[2].id, "message_limit_reached", "message_limit_reached"]
    assert isinstance(results[1], MessageLimitReached)
    wait = retry_after(results[1])
    assert isinstance(wait, int)
    assert timedelta(hours=24) <= timedelta(seconds=wait) <= timedelta(hours=24, minutes=10)
    assert (await count(connection, "message"), await count(connection, "delivery")) == (3, 3)
    await connection.execute("UPDATE account_usage SET begins_at = begins_at - interval '24 hours 10 minutes'")
    assert ids(await take(connection, messages[3])) == [messages[3].id]


async def test_a_wait_ends_when_enough_of_the_day_is_over(connection: Connection, room: Mailroom) -> None:
    await limited(connection, room, messages_per_day=5)
    moment: datetime = await connection.fetchval("SELECT date_trunc('hour', now())")
    await connection.executemany(
        "INSERT INTO account_usage VALUES ($1, $2, $3, 0)",
        [(room.account_id, moment - timedelta(hours=20), 2), (room.account_id, moment - timedelta(hours=2), 3)],
    )
    [one] = await room.messages(["a@example.org"])
    four = replace(one, deliveries=tuple(replace(one.deliveries[0], id=one.deliveries[0].id) for _ in range(4)))
    six = replace(one, deliveries=one.deliveries * 6)

    waits = [retry_after((await take(connection, message))[0]) for message in (one, four, six)]

    now: datetime = await connection.fetchval("SELECT now()")
    for wait, hours in zip(waits[:2], (20, 2), strict=True):
        assert isinstance(wait, int)
        ends = moment - timedelta(hours=hours) + timedelta(hours=24, minutes=10)
        assert abs((now + timedelta(seconds=wait) - ends).total_seconds()) < 5
    assert waits[2] is None


async def test_recipients_that_an_account_never_wrote_to_are_counted_apart(
    connection: Connection, room: Mailroom
) -> None:
    [known] = await room.messages(["old@example.org"])
    await take(connection, known)
    await limited(connection, room, first_time_recipients_per_day=2)
    await usage.meet_all(connection, room.account_id)
    again, one, two, three, one_again = await room.messages(
        [f"{name}@example.org" for name in ("old", "one", "two", "three", "one")]
    )

    results = await take(connection, again, one, two, three, one_again)

    assert ids(results) == [again.id, one.id, two.id, "recipient_limit_reached", one_again.id]
    assert isinstance(results[3], RecipientLimitReached)
    assert isinstance(retry_after(results[3]), int)


async def test_a_rate_lets_a_burst_of_a_second_pass_and_then_paces(connection: Connection, room: Mailroom) -> None:
    await limited(connection, room, messages_per_second=2)
    messages = await room.messages([f"r{n}@example.org" for n in range(4)])

    results = await take(connection, *messages[:3])

    assert ids(results) == [messages[0].id, messages[1].id, "rate_limited"]
    assert isinstance(results[2], RateLimited)
    assert retry_after(results[2]) == 1
    await connection.execute("UPDATE account_usage SET paid_until = paid_until - interval '1 second'")
    assert ids(await take(connection, messages[3])) == [messages[3].id]


async def test_two_replicas_share_one_budget(connection: Connection, second: Connection, room: Mailroom) -> None:
    await limited(connection, room, messages_per_day=30)
    batches = [await room.messages([f"r{b}.{n}@example.org" for n in range(10)]) for b in range(6)]

    async def spend(on: Connection, mine: list[list[NewMessage]]) -> list[Result]:
        return [result for batch in mine for result in await take(on, *batch)]

    here, there = await asyncio.gather(spend(connection, batches[:3]), spend(second, batches[3:]))

    assert sum(isinstance(result, AcceptedMessage) for result in (*here, *there)) == 30
    assert await count(connection, "delivery") == 30


async def test_the_key_of_what_a_limit_refused_is_free(connection: Connection, keyed: Keyed) -> None:
    await limited(connection, keyed.room, messages_per_day=1)
    first, refused = await keyed.message("a"), await keyed.message("b")
    assert ids(await take(connection, first, refused)) == [first.id, "message_limit_reached"]
    await connection.execute("UPDATE account SET messages_per_day = NULL")

    assert ids(await take(connection, await keyed.message("b", b"two")))[0] != "idempotency_conflict"


async def test_sandbox_mail_counts_for_no_limit(connection: Connection, room: Mailroom) -> None:
    await limited(connection, room, messages_per_day=1)
    messages = [replace(m, is_test=True) for m in await room.messages(["a@example.org", "b@example.org"])]

    assert ids(await take(connection, *messages)) == [m.id for m in messages]


async def hold(connection: Connection, **conditions: object) -> int:
    names = ", ".join(conditions)
    places = ", ".join(f"${n}" for n in range(1, len(conditions) + 1))
    rule_id: int = await connection.fetchval(
        f"INSERT INTO hold_rule ({names}) VALUES ({places}) RETURNING id", *conditions.values()
    )
    return rule_id


@pytest.mark.parametrize(
    ("conditions", "held"),
    [
        ({"reason": "all"}, True),
        ({"account_id": "mine"}, True),
        ({"account_id": "other"}, False),
        ({"sender_domain": "ours.test"}, True),
        ({"sender_address": "me@ours.test"}, True),
        ({"recipient_domain": "example.org"}, True),
        ({"recipient_address": "grace@example.org"}, True),
        ({"recipient_address": "ada@example.org"}, False),
        ({"account_id": "other", "sender_domain": "ours.test"}, False),
        ({"account_id": "mine", "recipient_domain": "example.com"}, False),
        ({"sender_domain": "ours.test", "recipient_address": "grace@example.org"}, True),
    ],
)
async def test_a_rule_holds_what_fulfils_all_its_conditions(
    connection: Connection, room: Mailroom, conditions: dict[str, object], held: bool
) -> None:
    other = await Mailroom(connection).open("other")
    accounts = {"mine": room.account_id, "other": other.account_id}
    given = {k: accounts.get(str(v), v) if k == "account_id" else v for k, v in conditions.items()}
    rule_id = await hold(connection, **given)
    [message] = await room.messages(["Grace@example.org"])

    [result] = await take(connection, message)

    assert isinstance(result, AcceptedMessage)
    assert result.deliveries[0].state is (DeliveryState.HELD if held else DeliveryState.QUEUED)
    row = await connection.fetchrow("SELECT hold, hold_rule_id, hold_by_operator FROM delivery_queue")
    assert row is not None
    assert tuple(row) == ((True, rule_id, True) if held else (False, None, False))


async def test_what_is_held_is_not_settled_as_suppressed(connection: Connection, room: Mailroom) -> None:
    await connection.execute(
        "INSERT INTO suppression (account_id, key, mox_key, address, manual, reason)"
        " VALUES ($1, 'grace@example.org', 'grace@example.org', 'grace@example.org', true, '')",
        room.account_id,
    )
    [now] = await room.messages(["grace@example.org"])
    [later] = await room.messages(["grace@example.org"])
    later = replace(
        later, deliveries=(replace(later.deliveries[0], due_at=datetime.fromisoformat("2100-01-01T00:00Z")),)
    )

    def told(result: Result) -> tuple[DeliveryState, bool]:
        assert isinstance(result, AcceptedMessage)
        return result.deliveries[0].state, result.deliveries[0].suppressed

    assert [told(r) for r in await take(connection, now, later)] == [
        (DeliveryState.SUPPRESSED, True),
        (DeliveryState.QUEUED, True),
    ]
    await hold(connection, reason="all")
    [held] = await room.messages(["grace@example.org"])
    assert [told(r) for r in await take(connection, held)] == [(DeliveryState.HELD, True)]


async def test_an_expired_rule_holds_nothing(connection: Connection, room: Mailroom) -> None:
    await hold(connection, reason="over", expires_at=datetime.fromisoformat("2020-01-01T00:00Z"))

    await take(connection, *await room.messages(["grace@example.org"]))

    assert await connection.fetchval("SELECT hold FROM delivery_queue") is False
