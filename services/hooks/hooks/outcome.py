"""What an answer means: delivered, tried again later, or failed. The transport reports, this file decides."""

import email.utils
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from shared.db.calls import CallResult
from shared.db.workers import MAX_LOSSES
from shared.lifecycle import CallState
from shared.worker.backoff import CALLS

SHORTEST_RETRY_AFTER = timedelta(seconds=1)
LONGEST_RETRY_AFTER = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to."""

    code: int
    """HTTP status; 0 where there was no answer."""
    text: str = ""
    """What went wrong, in words; empty for an answer."""
    response: str = ""
    """The beginning of the answer's body."""
    retry_after: str = ""
    """The header field as it came."""
    permanent: bool = False
    """No later attempt can end differently."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The attempt that had the answer."""

    call_id: int
    worker_id: int
    attempt: int
    created_at: datetime
    """When the call was made by the fan-out."""


def decide(tried: Tried, answer: Answer, *, now: datetime, random: Random) -> CallResult:
    """Return what the answer means for the call."""
    if 200 <= answer.code < 300:
        return _result(tried, answer, CallState.DELIVERED)
    if answer.code == 410:  # RFC 9110 15.5.11: gone, likely for good; Standard Webhooks: disable the endpoint
        return _result(tried, answer, CallState.FAILED, disable_endpoint=True)
    if not answer.permanent:
        wait = CALLS.next_wait(tried.attempt, now - tried.created_at, random)
        if wait is not None:
            return _result(tried, answer, None, retry_in=_retry_after(answer.retry_after, now) or wait)
    return _result(tried, answer, CallState.FAILED)


def lost_too_often(call_id: int) -> CallResult:
    """Return the end of a call whose workers died in mid-attempt again and again."""
    text = f"given up: {MAX_LOSSES} workers died while they were making this call; whether it was received is not known"
    return CallResult(call_id, CallState.FAILED, text=text)


def _result(
    tried: Tried,
    answer: Answer,
    state: CallState | None,
    *,
    retry_in: timedelta | None = None,
    disable_endpoint: bool = False,
) -> CallResult:
    return CallResult(
        call_id=tried.call_id,
        state=state,
        worker_id=tried.worker_id,
        attempt=tried.attempt,
        retry_in=retry_in,
        code=answer.code,
        text=answer.text or _text(answer.code),
        response=answer.response,
        disable_endpoint=disable_endpoint,
    )


def _text(code: int) -> str:
    if 200 <= code < 300:
        return ""
    if 300 <= code < 400:
        return f"the endpoint answered {code}; redirects are not followed, change the endpoint's URL instead"
    if code == 410:
        return "the endpoint answered 410 and was disabled"
    return f"the endpoint answered {code}"


def _retry_after(value: str, now: datetime) -> timedelta | None:
    """Read a Retry-After field, seconds or a date (RFC 9110 10.2.3), within our limits; None where it says nothing."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        wanted = timedelta(seconds=min(int(value[:9]), 10**8))
    else:
        try:
            moment = email.utils.parsedate_to_datetime(value)
            wanted = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - now
        except (ValueError, OverflowError):
            return None
    return min(max(wanted, SHORTEST_RETRY_AFTER), LONGEST_RETRY_AFTER)
