"""The start gate: what was held, canceled or suppressed before it never goes out, whatever raced with the claim."""

import asyncpg
import pytest

from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db import starts
from shared.db.queue import DELIVERIES
from shared.db.starts import Candidate, Verdict

Connection = asyncpg.Connection


@pytest.fixture
async def room(connection: Connection) -> Mailroom:
    return await Mailroom(connection).open()


async def _claimed(room: Mailroom, *recipients: str) -> tuple[int, list[Candidate]]:
    ids = await room.accept(list(recipients))
    worker_id = await new_worker(room.connection)
    await DELIVERIES.drain(room.connection)
    await DELIVERIES.claim(room.connection, worker_id, sites=20, lanes=5, rows=100)
    return worker_id, [
        Candidate(i, room.account_id, r, r.rpartition("@")[2], r, r.replace(".", ""), "me@ours.test", "ours.test")
        for i, r in zip(ids, recipients, strict=True)
    ]


async def _verdicts(room: Mailroom, worker_id: int, candidates: list[Candidate]) -> list[Verdict]:
    gates = await starts.start(room.connection, worker_id, candidates)
    return [gates[c.delivery_id].verdict for c in candidates]


async def test_a_start_is_recorded_with_its_number_before_anything_is_sent(room: Mailroom) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test")
    gates = await starts.start(room.connection, worker_id, candidates)
    assert gates[candidates[0].delivery_id] == starts.Gate(Verdict.START, 1)
    attempt = await room.connection.fetchrow("SELECT n, finished_at, worker_id FROM attempt")
    assert attempt is not None
    assert (attempt["n"], attempt["finished_at"], attempt["worker_id"]) == (1, None, worker_id)


async def test_a_start_repeated_after_a_lost_answer_is_the_same_start(room: Mailroom) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test")
    first = await starts.start(room.connection, worker_id, candidates)
    again = [candidate.delivery_id for candidate in candidates]
    assert await starts.start(room.connection, worker_id, candidates, repeated=again) == first
    assert await _verdicts(room, worker_id, candidates) == [Verdict.NOT_OURS]  # not repeated: somebody else has it
    assert await room.connection.fetchval("SELECT count(*) FROM attempt") == 1


RULES = {
    "everything": "DEFAULT VALUES",
    "the account": "(account_id) VALUES ($1)",
    "the sender's domain": "(sender_domain) VALUES ('ours.test')",
    "the sender": "(sender_address) VALUES ('me@ours.test')",
    "the recipient's domain": "(recipient_domain) VALUES ('b.test')",
    "the recipient": "(recipient_address) VALUES ('a@b.test')",
}


@pytest.mark.parametrize("what", RULES)
async def test_a_hold_rule_made_while_rows_sit_claimed_stops_them(room: Mailroom, what: str) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test")
    sql = f"INSERT INTO hold_rule {RULES[what]}"
    await room.connection.execute(sql, *([room.account_id] if "$1" in sql else []))
    assert await _verdicts(room, worker_id, candidates) == [Verdict.HELD]
    assert await room.connection.fetchval("SELECT count(*) FROM attempt") == 0


@pytest.mark.parametrize(
    "columns",
    [
        "(sender_domain) VALUES ('other.test')",
        "(sender_domain, recipient_domain) VALUES ('ours.test', 'other.test')",
        "(expires_at) VALUES (now() - interval '1 second')",
    ],
)
async def test_a_rule_holds_only_when_all_its_conditions_do(room: Mailroom, columns: str) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test")
    await room.connection.execute(f"INSERT INTO hold_rule {columns}")
    assert await _verdicts(room, worker_id, candidates) == [Verdict.START]


async def test_a_row_held_or_canceled_while_claimed_does_not_start(room: Mailroom) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test", "b@b.test", "c@b.test")
    await room.connection.execute(
        "UPDATE delivery_queue SET hold = true WHERE delivery_id = $1", candidates[0].delivery_id
    )
    await room.connection.execute(
        "UPDATE delivery_queue SET cancel_at = now() WHERE delivery_id = $1", candidates[1].delivery_id
    )
    assert await _verdicts(room, worker_id, candidates) == [Verdict.HELD, Verdict.CANCELED, Verdict.START]


@pytest.mark.parametrize("by_mox_key", [False, True])
async def test_a_suppressed_recipient_does_not_start_and_another_accounts_list_means_nothing(
    room: Mailroom, by_mox_key: bool
) -> None:
    worker_id, candidates = await _claimed(room, "a.x@b.test", "c@b.test")
    stranger = await room.connection.fetchval("INSERT INTO account (name) VALUES ('stranger') RETURNING id")
    sql = """INSERT INTO suppression (account_id, key, mox_key, match_by_mox_key, address, manual, reason)
        VALUES ($1, $2, $3, $4, 'x', true, 'manual')"""
    key, mox_key = ("other", candidates[0].mox_key) if by_mox_key else (candidates[0].recipient_key, "other")
    await room.connection.execute(sql, room.account_id, key, mox_key, by_mox_key)
    await room.connection.execute(sql, stranger, candidates[1].recipient_key, candidates[1].mox_key, by_mox_key)
    assert await _verdicts(room, worker_id, candidates) == [Verdict.SUPPRESSED, Verdict.START]


async def test_disabled_accounts_and_domains_wait(room: Mailroom) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test")
    await room.connection.execute("UPDATE account SET disabled_at = now() WHERE id = $1", room.account_id)
    assert await _verdicts(room, worker_id, candidates) == [Verdict.DISABLED]


async def test_rows_of_another_worker_and_settled_rows_are_not_ours(room: Mailroom) -> None:
    _, candidates = await _claimed(room, "a@b.test", "c@b.test")
    stranger = await new_worker(room.connection)
    assert await _verdicts(room, stranger, candidates) == [Verdict.NOT_OURS, Verdict.NOT_OURS]


async def test_judging_starts_nothing(room: Mailroom) -> None:
    worker_id, candidates = await _claimed(room, "a@b.test")
    gates = await starts.judge(room.connection, worker_id, candidates)
    assert gates[candidates[0].delivery_id] == starts.Gate(Verdict.START, 0)
    assert await room.connection.fetchval("SELECT count(*) FROM attempt") == 0
