"""Every result of an attempt becomes exactly one outcome."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.outcome import Result, Tried, decide
from shared.db.outcomes import AttemptFacts, Outcome
from shared.events import EventType

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
STAGES = ["connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "message"]


def _decide(result: Result, *, attempt: int = 1, schedule: str = "mox", age: timedelta = timedelta()) -> Outcome:
    return decide(Tried(7, 3, attempt, NOW - age, schedule), result, now=NOW, random=Random(1))


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
    schedule=st.sampled_from(["mox", "default", "one that was removed"]),
)
def test_stage_and_reply_give_one_outcome(
    accepted: bool, code: int, stage: str, permanent: bool, pipelined: bool, attempt: int, schedule: str
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
    assert _decide(_refused(451), attempt=20, schedule="default", age=timedelta(hours=60)).event is EventType.DELAYED
    assert _decide(_refused(451), attempt=20, schedule="default", age=timedelta(hours=71)).event is EventType.FAILED


def test_only_failures_that_speak_of_the_recipient_suppress_at_once() -> None:
    assert _decide(_refused(550, "5.1.1", text="no such user")).immediate
    assert not _decide(_refused(451, "4.1.1")).immediate
    assert not _decide(_refused(0, permanent=True)).immediate
    assert not _decide(Result(True, 250, "2.0.0", "ok", AttemptFacts("message"))).immediate
