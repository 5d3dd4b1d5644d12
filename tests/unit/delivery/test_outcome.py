"""Every result of an attempt becomes exactly one outcome."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.outcome import Result, Tried, decide, notice
from shared.db.lanes import SiteName
from shared.db.outcomes import AttemptFacts, Outcome
from shared.events import EventType, OperatorEventKind
from shared.worker.backoff import CALLS, DELIVERY_DEFAULT, DELIVERY_MOX, Schedule, custom

STAGES = ["connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "message"]


def _decide(
    result: Result,
    *,
    attempt: int = 1,
    schedule: Schedule = DELIVERY_MOX,
    age: timedelta = timedelta(),
    time_left: timedelta | None = None,
) -> Outcome:
    return decide(Tried(7, 3, attempt, age, schedule, time_left), result, random=Random(1))


def _refused(
    code: int,
    enhanced: str = "",
    *,
    stage: str = "rcpt",
    permanent: bool = False,
    pipelined: bool = False,
    text: str = "no",
) -> Result:
    return Result(False, code, enhanced, text, AttemptFacts(stage), permanent, pipelined)


@given(
    accepted=st.booleans(),
    code=st.sampled_from([0, 220, 250, 354, *range(400, 600)]),
    stage=st.sampled_from(STAGES),
    permanent=st.booleans(),
    pipelined=st.booleans(),
    attempt=st.integers(1, 40),
    schedule=st.sampled_from([DELIVERY_MOX, DELIVERY_DEFAULT, CALLS]),
)
def test_stage_and_reply_give_one_outcome(
    accepted: bool, code: int, stage: str, permanent: bool, pipelined: bool, attempt: int, schedule: Schedule
) -> None:
    result = Result(accepted, code, "", "text", AttemptFacts(stage), permanent, pipelined)
    outcome = _decide(result, attempt=attempt, schedule=schedule)
    assert outcome.event in (EventType.DELIVERED, EventType.DELAYED, EventType.FAILED)
    assert (outcome.event is EventType.DELIVERED) == accepted
    assert (outcome.retry_in is not None) == (outcome.event is EventType.DELAYED)
    assert (outcome.delivery_id, outcome.worker_id, outcome.attempt, outcome.code) == (7, 3, attempt, code)


@pytest.mark.parametrize(
    ("result", "event"),
    [
        (_refused(550, "5.1.1"), EventType.FAILED),
        (_refused(451, "4.3.0"), EventType.DELAYED),
        (_refused(0), EventType.DELAYED),
        (_refused(0, permanent=True), EventType.FAILED),
        (_refused(552, pipelined=True), EventType.DELAYED),
        (_refused(552, pipelined=False), EventType.FAILED),
        (_refused(552, stage="message", pipelined=True), EventType.FAILED),
        (_refused(601), EventType.DELAYED),
        (_refused(554, stage="greeting"), EventType.FAILED),
    ],
)
def test_what_a_reply_means(result: Result, event: EventType) -> None:
    assert _decide(result).event is event


def test_the_last_attempt_of_a_schedule_fails_and_an_old_mail_expires() -> None:
    assert _decide(_refused(451), attempt=7).event is EventType.DELAYED
    assert _decide(_refused(451), attempt=8).event is EventType.FAILED
    assert (
        _decide(_refused(451), attempt=20, schedule=DELIVERY_DEFAULT, age=timedelta(hours=60)).event
        is EventType.DELAYED
    )
    assert (
        _decide(_refused(451), attempt=20, schedule=DELIVERY_DEFAULT, age=timedelta(hours=71)).event is EventType.FAILED
    )


def test_only_failures_that_speak_of_the_recipient_suppress_at_once() -> None:
    assert _decide(_refused(550, "5.1.1", text="no such user")).immediate
    assert not _decide(_refused(451, "4.1.1")).immediate
    assert not _decide(_refused(0, permanent=True)).immediate
    assert not _decide(Result(True, 250, "2.0.0", "ok", AttemptFacts("message"))).immediate


@pytest.mark.parametrize(
    ("code", "text", "seconds"),
    [
        (451, "greylisted, try again in 5 minutes", (300, 310)),
        (421, "4.7.0 too fast, please try again in 00:04:30", (270, 280)),
        (451, "try again in 59 minutes", (3540, 3620)),
        (451, "try again in 2 hours", (445, 454)),
        (451, "try again in 10 seconds", (445, 454)),
        (451, "try again in 99999999999999999999 seconds", (445, 454)),
        (0, "connection refused, try again in 5 minutes", (445, 454)),
    ],
)
def test_a_wait_that_a_temporary_refusal_asks_for_is_taken_within_bounds(
    code: int, text: str, seconds: tuple[int, int]
) -> None:
    outcome = _decide(_refused(code, text=text))
    assert outcome.retry_in is not None
    assert seconds[0] <= outcome.retry_in.total_seconds() <= seconds[1]


def test_no_wait_is_read_from_a_refusal_for_good() -> None:
    assert _decide(_refused(550, text="try again in 5 minutes")).event is EventType.FAILED


def test_the_attempts_of_the_schedule_count_when_others_ask_for_waits() -> None:
    asking = _refused(451, text="try again in 5 minutes")
    assert [_decide(asking, attempt=n).event for n in (7, 8)] == [EventType.DELAYED, EventType.FAILED]


@pytest.mark.parametrize(
    ("attempt", "schedule", "age", "time_left", "final"),
    [
        (6, DELIVERY_MOX, timedelta(hours=4), None, False),
        (7, DELIVERY_MOX, timedelta(hours=8), None, True),
        (8, DELIVERY_MOX, timedelta(hours=16), None, False),  # it failed: nothing follows
        (20, DELIVERY_DEFAULT, timedelta(hours=63), None, False),
        (20, DELIVERY_DEFAULT, timedelta(hours=65), None, True),
        (1, custom("two", [60], 2, None), timedelta(), None, True),
        (1, DELIVERY_MOX, timedelta(), timedelta(minutes=30), False),
        (1, DELIVERY_MOX, timedelta(), timedelta(minutes=20), True),
        (1, DELIVERY_MOX, timedelta(), timedelta(minutes=5), True),
    ],
)
def test_a_delay_says_whether_the_next_attempt_is_the_last(
    attempt: int, schedule: Schedule, age: timedelta, time_left: timedelta | None, final: bool
) -> None:
    outcome = _decide(_refused(451), attempt=attempt, schedule=schedule, age=age, time_left=time_left)
    assert outcome.final_attempt_next is final


SITE = SiteName("domain", "b.test")


def test_operators_are_told_of_a_block_and_not_of_who_was_written_to() -> None:
    text = "Client host [192.0.2.1] blocked using zen.spamhaus.org <kim@b.test>"
    told = notice(SITE, _decide(_refused(550, "5.7.1", text=text)), "192.0.2.1")
    assert told is not None
    assert (told.kind, told.subject) == (OperatorEventKind.SOURCE_BLOCKED, "b.test from 192.0.2.1")
    assert (told.facts["code"], told.facts["source_ip"]) == (550, "192.0.2.1")
    assert "kim@" not in repr(told)
    delayed = notice(SITE, _decide(_refused(421, "4.7.0", text="temporarily deferred due to user complaints")), None)
    assert delayed is not None
    assert delayed.subject == "b.test"
    assert notice(SITE, _decide(_refused(550, "5.1.1", text="no such user")), None) is None
    assert notice(SITE, _decide(Result(True, 250, "", "ok", AttemptFacts())), None) is None
