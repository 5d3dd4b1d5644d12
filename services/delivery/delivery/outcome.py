"""What an attempt's result means: delivered, tried again later, or failed. The protocol code reports, this file decides."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from shared.db.outcomes import AttemptFacts, Outcome, Source
from shared.db.workers import MAX_LOSSES
from shared.events import Category, EventType
from shared.mail.classify import classify
from shared.worker.backoff import DELIVERY_DEFAULT, DELIVERY_MOX, DELIVERY_SCHEDULES, Schedule

_LATE = timedelta(hours=4)
_LATE_FOR_MOX = 5
"""Attempts."""


@dataclass(frozen=True, slots=True)
class Result:
    """One recipient's result of one attempt, as the protocol reported it."""

    accepted: bool
    code: int
    """SMTP reply code; 0 where there was no reply."""
    enhanced: str
    text: str
    facts: AttemptFacts
    permanent: bool = False
    """For results without a reply: no later attempt can end differently (null MX, too large for the host)."""
    pipelined: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """The attempt that had the result."""

    delivery_id: int
    worker_id: int
    attempt: int
    accepted_at: datetime
    retry_schedule: str


def decide(tried: Tried, result: Result, *, now: datetime, random: Random) -> Outcome:
    """Return what the result means for the delivery."""
    if result.accepted:
        return _outcome(tried, result, EventType.DELIVERED)
    if not _is_permanent(result):
        schedule, age = DELIVERY_SCHEDULES.get(tried.retry_schedule, DELIVERY_DEFAULT), now - tried.accepted_at
        wait = schedule.next_wait(tried.attempt, age, random)
        if wait is not None:
            outcome = _outcome(tried, result, EventType.DELAYED, retry_in=wait)
            late = _is_late(schedule, tried.attempt, age + wait)
            return replace(outcome, late=late, tried_for=_tried_for(schedule, tried.attempt, age, wait))
    return _outcome(tried, result, EventType.FAILED)


def _is_late(schedule: Schedule, attempt: int, age_at_next: timedelta) -> bool:
    """Say whether the sender should know by now: mox tells after the fifth attempt; else when the next comes at an age of four hours or more."""
    if schedule.name == DELIVERY_MOX.name:
        return attempt >= _LATE_FOR_MOX
    return age_at_next >= _LATE


def _tried_for(schedule: Schedule, attempt: int, age: timedelta, wait: timedelta) -> timedelta:
    """Return when the schedule's last attempt comes, from now on and jitter apart; the next one comes after ``wait``."""
    rest = timedelta()
    while schedule.max_attempts is None or attempt < schedule.max_attempts:
        following = schedule.waits[min(attempt, len(schedule.waits)) - 1]
        if schedule.give_up_after is not None and age + rest + following > schedule.give_up_after:
            break
        rest += following
        attempt += 1
    return max(rest, wait)


def _is_permanent(result: Result) -> bool:
    if result.code == 0:
        return result.permanent
    if result.code == 552 and result.facts.stage == "rcpt" and result.pipelined:
        return False  # RFC 5321 4.5.3.1.10: some servers say 552 for "too many recipients"
    return 500 <= result.code < 600


def _outcome(tried: Tried, result: Result, event: EventType, *, retry_in: timedelta | None = None) -> Outcome:
    classified = None if event is EventType.DELIVERED else classify(result.code, result.enhanced, result.text)
    return Outcome(
        delivery_id=tried.delivery_id,
        source=Source.ATTEMPT,
        event=event,
        worker_id=tried.worker_id,
        attempt=tried.attempt,
        code=result.code,
        enhanced=result.enhanced,
        text=result.text,
        category=classified.category if classified else None,
        immediate=classified.immediate if classified else False,
        retry_in=retry_in,
        facts=result.facts,
    )


def expired(delivery_id: int, worker_id: int) -> Outcome:
    """Return the end of a delivery that its sender wanted no later than now."""
    return Outcome(
        delivery_id=delivery_id,
        source=Source.GATE,
        event=EventType.FAILED,
        worker_id=worker_id,
        category=Category.TRANSIENT,
        text="expired: it was not delivered by the time its sender had set",
    )


def lost_too_often(delivery_id: int) -> Outcome:
    """Return the end of a delivery whose workers died in mid-attempt again and again."""
    return Outcome(
        delivery_id=delivery_id,
        source=Source.OPERATOR,
        event=EventType.FAILED,
        category=Category.INFRASTRUCTURE,
        text=f"given up: {MAX_LOSSES} workers died while they were sending this mail; whether it arrived is not known",
    )
