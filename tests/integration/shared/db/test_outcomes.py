"""One function settles a delivery, whoever says so, however often."""

from datetime import timedelta

import asyncpg
import pytest

from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db import outcomes, starts
from shared.db.outcomes import AttemptFacts, Outcome, Recorded, Source
from shared.db.queue import DELIVERIES
from shared.events import Category, EventType

Connection = asyncpg.Connection


class Office:
    """A worker with claimed and started deliveries."""

    def __init__(self, connection: Connection, room: Mailroom, worker_id: int) -> None:
        self.connection = connection
        self.room = room
        self.worker_id = worker_id

    async def started(self, *recipients: str) -> list[int]:
        ids = await self.room.accept(list(recipients))
        await DELIVERIES.drain(self.connection)
        claimed = await DELIVERIES.claim(self.connection, self.worker_id, sites=20, lanes=5, rows=100)
        await starts.start(
            self.connection, self.worker_id, [self.candidate(i, r) for i, r in zip(ids, recipients, strict=True)]
        )
        # A site that never took a mail is met by one session: the next mail needs its place.
        await DELIVERIES.return_slots(self.connection, self.worker_id, sorted({row.slot_id for row in claimed}))
        return ids

    def candidate(self, delivery_id: int, recipient: str) -> starts.Candidate:
        domain = recipient.rpartition("@")[2]
        return starts.Candidate(
            delivery_id, self.room.account_id, recipient, domain, recipient, recipient, "me@ours.test", "ours.test"
        )

    def outcome(self, delivery_id: int, event: EventType, code: int, attempt: int = 1, **more: object) -> Outcome:
        return Outcome(delivery_id, Source.ATTEMPT, event, self.worker_id, attempt, code, **more)  # type: ignore[arg-type] # a test's shorthand

    async def record(self, *what: Outcome) -> Recorded:
        async with self.connection.transaction():
            return await outcomes.record(self.connection, what)

    async def report(
        self, delivery_id: int, action: str, *, code: int = 550, immediate: bool = True, counted: bool = True
    ) -> Outcome:
        (report_id,) = await self.room.ids.take(self.connection, 1)
        await self.connection.execute(
            """INSERT INTO report (id, inbound_message_id, account_id, delivery_id, kind, action, code, enhanced, text, category, immediate, counted)
            VALUES ($1, 1, $2, $3, 'dsn', $4, $5, '5.1.1', 'no such user', 'recipient', $6, $7)""",
            report_id, self.room.account_id, delivery_id, action, code, immediate, counted,
        )  # fmt: skip
        return Outcome(
            delivery_id, Source.REPORT, outcomes.report_event("dsn", action), code=code, enhanced="5.1.1", text="no such user",
            category=Category.RECIPIENT, immediate=immediate, counted=counted, report_id=report_id,
        )  # fmt: skip

    async def state(self, delivery_id: int) -> str:
        state: str = await self.connection.fetchval("SELECT state FROM delivery WHERE id = $1", delivery_id)
        return state

    async def events(self, delivery_id: int) -> list[str]:
        rows = await self.connection.fetch("SELECT type FROM event WHERE delivery_id = $1 ORDER BY id", delivery_id)
        return [row["type"] for row in rows]

    async def live(self, delivery_id: int) -> asyncpg.Record | None:
        return await self.connection.fetchrow("SELECT * FROM delivery_queue WHERE delivery_id = $1", delivery_id)


@pytest.fixture
async def office(connection: Connection) -> Office:
    return Office(connection, await Mailroom(connection).open(), await new_worker(connection))


async def test_a_delivery_is_settled_with_its_attempt_event_and_record(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    facts = AttemptFacts("message", "mx.b.test", "192.0.2.1", "TLSv1.3 X")
    recorded = await office.record(
        office.outcome(delivery, EventType.DELIVERED, 250, enhanced="2.0.0", text="2.0.0 ok", facts=facts)
    )
    assert recorded.accounts == {office.room.account_id}
    assert await office.state(delivery) == "delivered"
    assert await office.live(delivery) is None
    attempt = await office.connection.fetchrow("SELECT * FROM attempt WHERE delivery_id = $1", delivery)
    assert attempt is not None
    assert (attempt["n"], attempt["outcome"], attempt["code"], attempt["host"], attempt["tls"]) == (
        1,
        "delivered",
        250,
        "mx.b.test",
        "TLSv1.3 X",
    )
    row = await office.connection.fetchrow("SELECT * FROM delivery WHERE id = $1", delivery)
    assert row is not None
    assert row["attempts"] == 1
    assert row["keep_until"] - row["settled_at"] == timedelta(days=3)
    assert await office.events(delivery) == ["delivered"]
    assert await office.connection.fetchval("SELECT count(*) FROM event_pending") == 1


async def test_the_same_result_twice_is_one_event(office: Office) -> None:
    (delivery, later) = await office.started("a@b.test", "c@b.test")
    for _ in range(2):
        await office.record(office.outcome(delivery, EventType.DELIVERED, 250))
        await office.record(office.outcome(later, EventType.DELAYED, 451, retry_in=timedelta(hours=1)))
    assert await office.events(delivery) == ["delivered"]
    assert await office.events(later) == ["delayed"]


async def test_a_temporary_failure_comes_due_again_and_leaves_the_record_alone(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    await office.record(office.outcome(delivery, EventType.DELAYED, 451, retry_in=timedelta(minutes=7)))
    live = await office.live(delivery)
    assert live is not None
    assert (live["worker_id"], live["started_at"], live["attempt"]) == (None, None, 1)
    assert await office.connection.fetchval("SELECT due_at > now() + interval '6 minutes' FROM delivery_queue")
    assert await office.state(delivery) == "queued"
    assert await office.connection.fetchval("SELECT count(*) FROM delivery_wake") == 1


async def test_a_250_wins_even_when_the_lease_was_lost(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    other = await new_worker(office.connection)
    await office.connection.execute("UPDATE delivery_queue SET worker_id = $1, started_at = NULL", other)
    await office.record(office.outcome(delivery, EventType.DELIVERED, 250))
    assert await office.state(delivery) == "delivered"


async def test_any_other_result_after_a_lost_lease_ends_its_attempt_only(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    other = await new_worker(office.connection)
    await office.connection.execute("UPDATE delivery_queue SET worker_id = $1, started_at = NULL", other)
    await office.record(office.outcome(delivery, EventType.FAILED, 550, category=Category.RECIPIENT, immediate=True))
    assert await office.state(delivery) == "queued"
    assert await office.events(delivery) == []
    assert await office.connection.fetchval("SELECT outcome FROM attempt") == "failed"
    assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0


async def test_a_cancel_that_meets_a_temporary_failure_is_canceled_and_one_that_meets_a_250_is_delivered(
    office: Office,
) -> None:
    deferred, taken = await office.started("a@b.test", "c@b.test")
    await office.connection.execute("UPDATE delivery_queue SET cancel_at = now()")
    await office.record(
        office.outcome(deferred, EventType.DELAYED, 451, retry_in=timedelta(hours=1)),
        office.outcome(taken, EventType.DELIVERED, 250),
    )
    assert await office.state(deferred) == "canceled"
    assert await office.state(taken) == "delivered"


async def test_a_nul_and_broken_text_in_one_reply_do_not_touch_the_other_49(office: Office) -> None:
    recipients = [f"u{n}@b.test" for n in range(50)]
    ids = await office.started(*recipients)
    bad = "ok \x00 \udcff \x1b[2J"
    await office.record(
        *(
            office.outcome(i, EventType.DELIVERED, 250, text=bad if n == 7 else "ok", facts=AttemptFacts(host=bad))
            for n, i in enumerate(ids)
        )
    )
    states = await office.connection.fetch("SELECT state, text FROM delivery")
    assert {row["state"] for row in states} == {"delivered"}
    assert all("\x00" not in row["text"] for row in states)


@pytest.mark.parametrize(("immediate", "needed"), [(True, 1), (False, outcomes.FAILURES_IN_A_ROW)])
async def test_recipient_failures_suppress_at_once_or_three_in_a_row(
    office: Office, immediate: bool, needed: int
) -> None:
    for turn in range(1, needed + 1):
        (delivery,) = await office.started("a@b.test")
        recorded = await office.record(
            office.outcome(
                delivery, EventType.FAILED, 554, category=Category.RECIPIENT, immediate=immediate, counted=True
            )
        )
        assert bool(recorded.suppressing) == (turn == needed)
        assert await office.connection.fetchval("SELECT suppressing FROM event WHERE delivery_id = $1", delivery) == (
            turn == needed
        )
    row = await office.connection.fetchrow("SELECT * FROM suppression")
    assert row is not None
    assert (row["key"], row["manual"], row["account_id"]) == ("a@b.test", False, office.room.account_id)


async def test_a_success_between_failures_starts_the_count_again(office: Office) -> None:
    for event, code in (
        (EventType.FAILED, 554),
        (EventType.FAILED, 554),
        (EventType.DELIVERED, 250),
        (EventType.FAILED, 554),
    ):
        (delivery,) = await office.started("a@b.test")
        await office.record(office.outcome(delivery, event, code, category=Category.RECIPIENT, counted=True))
    assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0


async def test_a_connection_that_fails_never_suppresses_even_after_two_failures(office: Office) -> None:
    for code in (554, 554, 0, 0):
        (delivery,) = await office.started("a@b.test")
        await office.record(office.outcome(delivery, EventType.FAILED, code, counted=code != 0))
    assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0
    (delivery,) = await office.started("a@b.test")
    await office.record(office.outcome(delivery, EventType.FAILED, 0, counted=True, immediate=True))
    assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0


async def test_failures_that_do_not_speak_of_the_recipient_are_not_counted(office: Office) -> None:
    for _ in range(4):
        (delivery,) = await office.started("a@b.test")
        await office.record(office.outcome(delivery, EventType.FAILED, 550, category=Category.REPUTATION))
    assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0
    assert await office.connection.fetchval("SELECT count(*) FROM recipient_state") == 0


async def test_who_keeps_no_deliveries_has_no_failures_in_a_row(office: Office) -> None:
    await office.connection.execute("UPDATE account SET keep_deliveries_seconds = 0 WHERE id <> 0")
    for immediate in (False, False, False, True):
        assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0
        (delivery,) = await office.started("a@b.test")
        await office.record(office.outcome(delivery, EventType.FAILED, 554, counted=True, immediate=immediate))
    assert await office.connection.fetchval("SELECT reason FROM suppression") == "hard_bounce"


async def test_an_operator_who_gives_up_on_mail_suppresses_nobody(office: Office) -> None:
    for _ in range(4):
        (delivery,) = await office.started("a@b.test")
        await office.record(Outcome(delivery, Source.OPERATOR, EventType.FAILED, text="given up"))
    assert await office.connection.fetchval("SELECT count(*) FROM suppression") == 0


async def test_reports_of_failure_count_too(office: Office) -> None:
    for turn in (1, 2, 3):
        (delivery,) = await office.started("a@b.test")
        await office.record(
            await office.report(delivery, "failed", immediate=False)
        )  # parked until the attempt is settled
        await office.record(office.outcome(delivery, EventType.FAILED, 0))
        found = await office.connection.fetchval("SELECT failures FROM recipient_state")
        assert found == turn
    assert await office.connection.fetchval("SELECT reason FROM suppression") == "failures_in_a_row"


async def test_only_a_delay_says_that_the_next_attempt_is_the_last(office: Office) -> None:
    last, canceled = await office.started("a@b.test", "c@b.test")
    await office.connection.execute("UPDATE delivery_queue SET cancel_at = now() WHERE delivery_id = $1", canceled)
    await office.record(
        *(
            office.outcome(i, EventType.DELAYED, 451, retry_in=timedelta(hours=1), final_attempt_next=True)
            for i in (last, canceled)
        )
    )
    rows = await office.connection.fetch("SELECT type, final_attempt_next FROM event ORDER BY id")
    assert [tuple(row) for row in rows] == [("delayed", True), ("canceled", False)]


async def test_a_late_report_marks_the_delivered_mail_bounced_and_suppresses(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    await office.record(office.outcome(delivery, EventType.DELIVERED, 250))
    await office.record(await office.report(delivery, "failed"))
    assert await office.events(delivery) == ["delivered", "bounced"]
    row = await office.connection.fetchrow("SELECT state, bounced_at FROM delivery WHERE id = $1", delivery)
    assert row is not None
    assert row["state"] == "delivered"
    assert row["bounced_at"] is not None
    assert await office.connection.fetchval("SELECT reason FROM suppression") == "hard_bounce"


async def test_a_report_on_a_delivery_in_flight_waits_for_its_settle(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    await office.record(await office.report(delivery, "failed"))
    assert await office.events(delivery) == []
    await office.record(office.outcome(delivery, EventType.DELIVERED, 250))
    assert await office.events(delivery) == ["delivered", "bounced"]
    assert await office.connection.fetchval("SELECT count(*) FROM parked_report") == 0


async def test_a_failed_report_settles_a_delivery_that_waits_and_other_reports_are_events_only(office: Office) -> None:
    waiting, other = await office.started("a@b.test", "c@b.test")
    await office.record(
        *(office.outcome(i, EventType.DELAYED, 451, retry_in=timedelta(hours=1)) for i in (waiting, other))
    )
    await office.record(await office.report(waiting, "failed"), await office.report(other, "relayed"))
    assert await office.state(waiting) == "failed"
    assert await office.live(waiting) is None
    assert await office.state(other) == "queued"
    assert await office.events(other) == ["delayed", "relayed"]


async def test_events_of_one_delivery_rise_with_what_happened(office: Office) -> None:
    (delivery,) = await office.started("a@b.test")
    await office.record(
        office.outcome(delivery, EventType.DELAYED, 451, retry_in=timedelta()),
        Outcome(delivery, Source.OPERATOR, EventType.FAILED, text="an operator gave up"),
        await office.report(delivery, "failed"),
    )
    assert await office.events(delivery) == ["delayed", "failed", "failed"]


async def test_a_report_that_is_known_beforehand_is_recorded_once_and_only_with_what_it_is_about(
    office: Office,
) -> None:
    taken, stopped = await office.started("a@b.test", "c@b.test")
    report = Outcome(taken, Source.REPORT, EventType.FAILED, code=550, category=Category.RECIPIENT, immediate=True)
    result = office.outcome(taken, EventType.DELIVERED, 250, report=report)
    for _ in range(2):  # the answer to the first commit was lost
        await office.record(result)
    assert await office.events(taken) == ["delivered", "bounced"]
    await office.record(Outcome(stopped, Source.OPERATOR, EventType.FAILED))
    late = Outcome(stopped, Source.REPORT, EventType.COMPLAINED)
    await office.record(office.outcome(stopped, EventType.DELIVERED, 250, report=late))
    assert await office.events(stopped) == ["failed"]
