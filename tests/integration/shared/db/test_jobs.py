"""Jobs and rules beside acceptors and workers: what is stepped when, what nothing slips through, and what a step costs."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fakes.waiting import eventually
from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db import hold_rules, holds, jobs, starts
from shared.db.engine import PLANS_BY_INDEX, SETTINGS, Pool, create_pool
from shared.db.hold_rules import NewRule
from shared.db.holds import Action, Kind
from shared.db.queue import DELIVERIES
from shared.db.selections import Asking, Selection, scan
from shared.db.starts import Candidate, Verdict
from shared.db.transaction import NoBell
from shared.errors import Conflict

Connection = asyncpg.Connection
Sessions = async_sessionmaker[AsyncSession]
ACCEPTORS = 6
HOLD = Action(Kind.HOLD, by_operator=False)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database_url, size=4, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def room(connection: Connection) -> Mailroom:
    return await Mailroom(connection).open()


async def entered(sessions: Sessions, action: Action, wanted: Selection) -> int:
    async with sessions() as session, session.begin():
        return (await jobs.create_job(session, action, wanted, account_id=wanted.account_id)).id


async def drain(pool: Pool) -> int:
    """Step whatever there is; return how many steps that took."""
    steps = 0
    while await jobs.step(pool, NoBell()) is not None:
        steps += 1
    return steps


async def test_a_later_filter_of_the_same_account_waits_and_those_of_others_do_not(
    sessions: Sessions, pool: Pool, room: Mailroom
) -> None:
    other = await Mailroom(room.connection).open("other")
    first = await entered(sessions, HOLD, Selection(account_id=room.account_id))
    later = await entered(sessions, Action(Kind.RELEASE, by_operator=False), Selection(account_id=room.account_id))
    theirs = await entered(sessions, HOLD, Selection(account_id=other.account_id))
    assert await jobs.step(pool, NoBell(), later) is None
    async with room.connection.transaction():
        await room.connection.execute("SELECT FROM job WHERE id = $1 FOR UPDATE", first)  # somebody is stepping it
        step = await jobs.step(pool, NoBell())
        assert step is not None
        assert step.job_id == theirs
        assert await jobs.step(pool, NoBell()) is None
    done = [await jobs.step(pool, NoBell()) for _ in range(2)]
    assert [step and step.job_id for step in done] == [first, later]


async def test_jobs_that_wait_are_bounded_for_each_account(sessions: Sessions, room: Mailroom) -> None:
    other = await Mailroom(room.connection).open("other")
    for _ in range(jobs.UNFINISHED):
        await entered(sessions, HOLD, Selection(account_id=room.account_id))
    with pytest.raises(Conflict):
        await entered(sessions, HOLD, Selection(account_id=room.account_id))
    await entered(sessions, HOLD, Selection(account_id=other.account_id))
    rule = NewRule(room.account_id, by_operator=False)
    async with sessions() as session, session.begin():
        await hold_rules.create_rule(session, rule)  # a rule has to hold, however much waits


async def test_a_job_takes_many_short_steps_and_leaves_later_mail_alone(
    sessions: Sessions, pool: Pool, room: Mailroom
) -> None:
    ids = await room.accept([f"u{n}@b.test" for n in range(jobs.CHANGED * 2 + 1)])
    job = await entered(sessions, HOLD, Selection(account_id=room.account_id))
    late = await room.accept(["late@b.test"])
    assert await drain(pool) == 3
    row = await room.connection.fetchrow("SELECT seen, changed, error FROM job WHERE id = $1", job)
    assert row is not None
    assert tuple(row) == (len(ids), len(ids), None)
    assert await room.connection.fetchval("SELECT hold FROM delivery_queue WHERE delivery_id = $1", late[0]) is False


async def test_six_racing_acceptors_and_a_rule_nothing_that_matches_starts(
    database_url: str, sessions: Sessions, pool: Pool, room: Mailroom
) -> None:
    stop, taken = asyncio.Event(), 0

    async def accept(number: int) -> None:
        nonlocal taken
        own = await asyncpg.connect(database_url)
        try:
            mine = Mailroom(own, room.account_id)
            while not stop.is_set():
                await mine.accept([f"u{number}@b.test", f"u{number}@other.test"])
                taken += 2
        finally:
            await own.close()

    async def more(count: int) -> None:
        goal = taken + count
        await eventually(lambda: taken >= goal, 30, what="acceptors go on")

    acceptors = [asyncio.create_task(accept(number)) for number in range(ACCEPTORS)]
    await more(100)
    async with sessions() as session, session.begin():
        rule, job = await hold_rules.create_rule(session, NewRule(None, by_operator=True, recipient_domain="b.test"))
        await more(50)  # accepted by those who cannot see the rule yet
    while (step := await jobs.step(pool, NoBell(), job.id)) is not None and not step.finished:
        pass
    await more(50)
    stop.set()
    await asyncio.gather(*acceptors)

    worker_id = await new_worker(room.connection)
    await room.connection.execute("UPDATE site SET conn_limit = 1000")
    while await DELIVERIES.drain(room.connection):
        pass
    started = 0
    while claimed := await DELIVERIES.claim(room.connection, worker_id, sites=20, lanes=20, rows=500):
        rows = await room.connection.fetch(
            "SELECT id, recipient, recipient_domain FROM delivery WHERE id = ANY ($1::bigint[])",
            [c.id for c in claimed],
        )
        candidates = [
            Candidate(row["id"], room.account_id, row["recipient"], row["recipient_domain"], row["recipient"], row["recipient"], "me@ours.test", "ours.test")
            for row in rows
        ]  # fmt: skip
        gates = await starts.start(room.connection, worker_id, candidates)
        stopped = [c for c in candidates if gates[c.delivery_id].verdict is not Verdict.START]
        await starts.hold(room.connection, worker_id, stopped)
        started += len(candidates) - len(stopped)
    domains = await room.connection.fetch(
        "SELECT d.recipient_domain, q.hold, q.hold_rule_id, q.hold_by_operator, count(*) AS n"
        " FROM delivery_queue q JOIN delivery d ON d.id = q.delivery_id GROUP BY 1, 2, 3, 4 ORDER BY 1"
    )
    assert [tuple(row) for row in domains] == [
        ("b.test", True, rule.id, True, taken // 2),
        ("other.test", False, None, False, taken // 2),
    ]
    assert started == taken // 2
    assert await room.connection.fetchval("SELECT count(*) FROM attempt") == started


async def test_a_rule_that_ended_between_verdict_and_hold_leaves_the_row_due(
    connection: Connection, room: Mailroom
) -> None:
    [delivery] = await room.accept(["a@b.test"])
    worker_id = await new_worker(connection)
    await DELIVERIES.drain(connection)
    await DELIVERIES.claim(connection, worker_id, sites=5, lanes=5, rows=5)
    candidate = Candidate(delivery, room.account_id, "a@b.test", "b.test", "a@b.test", "a@b.test", "me@ours.test", "ours.test")  # fmt: skip
    await connection.execute("INSERT INTO hold_rule (recipient_domain) VALUES ('b.test')")
    assert (await starts.start(connection, worker_id, [candidate]))[delivery].verdict is Verdict.HELD
    await connection.execute("UPDATE hold_rule SET removed_at = now(), expires_at = now()")
    await starts.hold(connection, worker_id, [candidate])
    row = await connection.fetchrow("SELECT hold, hold_rule_id, worker_id FROM delivery_queue")
    assert row is not None
    assert tuple(row) == (False, None, None)
    assert await connection.fetchval("SELECT count(*) FROM delivery_wake") == 1


async def test_mail_that_a_rule_held_while_it_ended_is_released_by_the_sweep(
    sessions: Sessions, pool: Pool, room: Mailroom
) -> None:
    async with sessions() as session, session.begin():
        rule, _ = await hold_rules.create_rule(session, NewRule(None, by_operator=True))
    await drain(pool)
    [delivery] = await room.accept(["a@b.test"])
    async with sessions() as session, session.begin():
        await hold_rules.remove_rule(session, rule.id, account_id=None, release=True)
    await drain(pool)
    # As an acceptor leaves it whose transaction had seen the rule and committed after all that.
    [late] = await room.accept(["b@b.test"])
    await room.connection.execute(
        "UPDATE delivery_queue SET hold = true, hold_by_operator = true, hold_rule_id = $1 WHERE delivery_id = $2",
        rule.id,
        late,
    )
    async with sessions() as session, session.begin():
        assert await hold_rules.release_ended(session) == 1
    async with sessions() as session, session.begin():
        assert await hold_rules.release_ended(session) == 0  # that job is on its way
    await drain(pool)
    held = await room.connection.fetch("SELECT delivery_id, hold FROM delivery_queue ORDER BY delivery_id")
    assert [tuple(row) for row in held] == [(delivery, False), (late, False)]


MOST_BUFFERS = 30_000
"""For one step over 1,000 candidates, of which each is looked up in four places. A scan of 200,000 rows would be far more."""
ROWS = 200_000


@pytest.fixture(params=["of a full table", "of an empty table"])
async def backlog(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url, server_settings={**SETTINGS, **PLANS_BY_INDEX})
    if request.param == "of an empty table":
        await connection.execute("ANALYZE")
    await connection.execute(
        f"""INSERT INTO message (id, account_id, door, message_id, sender, sender_domain, subject, size, header_size, smtputf8)
                SELECT n, 0, 'rest', n::text, 'a@b.test', 'b.test', '', 1, 1, false FROM generate_series(1, {ROWS}) n;
            INSERT INTO delivery (id, message_id, account_id, mail_from, recipient, recipient_domain, recipient_key)
                SELECT n, n, 0, '', 'c@d.test', 'd.test', 'c@d.test' FROM generate_series(1, {ROWS}) n;
            INSERT INTO delivery_queue (delivery_id, lane_id, hold, hold_by_account, hold_rule_id)
                SELECT n, 1, n % 1000 = 0, n % 1000 = 0, CASE WHEN n % 2000 = 0 THEN 7 END FROM generate_series(1, {ROWS}) n;
            INSERT INTO hold_rule (recipient_domain) SELECT 'x' || n FROM generate_series(1, 500) n"""
    )
    if request.param == "of a full table":
        await connection.execute("ANALYZE")
    yield connection
    await connection.close()


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]


@pytest.mark.parametrize("asking", [Asking.NOTHING, Asking.WHICH_SHOULD_HOLD])
async def test_a_step_reads_by_index_and_its_cost_does_not_grow_with_the_backlog(
    backlog: Connection, asking: Asking
) -> None:
    ids = await scan(backlog, Selection(account_id=0), 100_000, ROWS, jobs.SCANNED)
    assert len(ids) == jobs.SCANNED
    types = "bigint[], bigint, bigint, bigint, bigint, boolean, text, text, text, text, text, timestamptz, timestamptz, timestamptz, timestamptz, text"
    await backlog.execute(f"PREPARE step ({types}) AS {asking.value}")
    nulls = ", ".join(["NULL"] * 13)
    text = await backlog.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE step ('{{{','.join(map(str, ids))}}}', {jobs.CHANGED}, 0, {nulls})"
    )
    plan = json.loads(text)[0]["Plan"]
    assert [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"] == []
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < MOST_BUFFERS


async def test_who_releases_goes_from_held_row_to_held_row(backlog: Connection) -> None:
    async def pages(wanted: Selection) -> tuple[int, int]:
        await backlog.execute("SELECT pg_stat_force_next_flush()")
        before = await backlog.fetchval(
            "SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'delivery_queue'"
        )
        found = await scan(backlog, wanted, 0, ROWS, jobs.SCANNED)
        await backlog.execute("SELECT pg_stat_force_next_flush()")
        after = await backlog.fetchval("SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'delivery_queue'")
        return len(found), after - before

    for wanted, rows in ((Selection(held=True), 200), (Selection(rule_id=7), 100), (Selection(ids=(5, 6, 999_999)), 2)):
        found, fetched = await pages(wanted)
        assert found == rows
        assert fetched <= rows  # index-only reads fetch none at all
    assert await holds.count_held(backlog) == 200
