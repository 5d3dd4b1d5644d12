"""What an attempt's result means: delivered, tried again later, or failed. The protocol code reports, this file decides."""

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from shared.db.lanes import SiteName
from shared.db.operator_events import Notice
from shared.db.outcomes import AttemptFacts, Outcome, Source
from shared.db.workers import MAX_LOSSES
from shared.events import Category, EventType, OperatorEventKind
from shared.mail.classify import Classified, classify, without_addresses
from shared.mail.retry_after import asked_wait
from shared.mail.status import clean_text
from shared.worker.backoff import DELIVERY_MOX, Schedule

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
    dual_stack: bool = False
    """The server has an address of the other family too, where the next attempt goes."""
    not_the_mail: bool = False
    """Whatever the reply says, it is about us, as that to a login: the mail is tried again."""
    category: Category | None = None
    """What it is about, where that is known without reading the reply; then it never suppresses."""

    @property
    def for_all(self) -> bool:
        """Whether no question is needed to know it of the next mail too: it is for good, or an operator says it instead of a server."""
        return self.permanent or (self.code != 0 and not self.facts.host)


@dataclass(frozen=True, slots=True)
class Tried:
    """The attempt that had the result."""

    delivery_id: int
    worker_id: int
    attempt: int
    age: timedelta
    """How long ago the first attempt began."""
    schedule: Schedule
    time_left: timedelta | None = None
    """How long the sender still wants it; None: as long as the schedule lasts."""


def decide(tried: Tried, result: Result, *, random: Random) -> Outcome:
    """Return what the result means for the delivery."""
    if result.accepted:
        return _outcome(tried, result, EventType.DELIVERED)
    if not _is_permanent(result) or _is_of_one_family(tried, result):
        # RFC 5321 4.5.4.1 leaves the waits to us. Where a temporary refusal names one, whoever comes earlier is refused again.
        asked = asked_wait(result.text) if 400 <= result.code < 500 else None
        wait = tried.schedule.next_wait(tried.attempt, tried.age, random, asked=asked)
        if wait is not None:
            outcome = _outcome(tried, result, EventType.DELAYED, retry_in=wait)
            return replace(outcome, late=_is_late(tried, wait), tried_for=_tried_for(tried, wait))
    return _outcome(tried, result, EventType.FAILED)


def _is_late(tried: Tried, wait: timedelta) -> bool:
    """Say whether the sender should know by now: mox tells after the fifth attempt; else when the next comes at an age of four hours or more."""
    if tried.schedule.name == DELIVERY_MOX.name:
        return tried.attempt >= _LATE_FOR_MOX
    return tried.age + wait >= _LATE


def _tried_for(tried: Tried, wait: timedelta) -> timedelta:
    """Return when the schedule's last attempt comes, from now on and jitter apart; the next one comes after ``wait``."""
    schedule, attempt, rest = tried.schedule, tried.attempt, wait
    while not schedule.is_last(attempt + 1, tried.age + rest):
        attempt += 1
        rest += schedule.plain_wait(attempt)
    return rest


def _final_next(tried: Tried, wait: timedelta) -> bool:
    """Say whether no more than one attempt follows: by the schedule, or because the sender's time is up."""
    if tried.schedule.is_last(tried.attempt + 1, tried.age + wait):
        return True
    following = tried.schedule.plain_wait(tried.attempt + 1)
    return tried.time_left is not None and wait + following >= tried.time_left


_SLOW_DOWN = re.compile(
    r"too many (?:concurrent |simultaneous |open |smtp )*(?:connection|session|message|mail|email|command)|too (?:fast|frequent)"
    r"|slow(?:ing)? down|throttl|\brate\b|(?:connection|message|sending|hourly|daily) (?:limit|quota)|unexpected volume",
    re.IGNORECASE,
)


def asks_to_slow_down(code: int, text: str) -> bool:
    """Say whether a reply is about how much we send at once, so that less would be taken."""
    return 400 <= code < 500 and _SLOW_DOWN.search(text[:1000]) is not None


def _is_permanent(result: Result) -> bool:
    if result.not_the_mail:
        return False
    if result.code == 0:
        return result.permanent
    if result.code == 552 and result.facts.stage == "rcpt" and result.pipelined:
        return False  # RFC 5321 4.5.3.1.10: some servers say 552 for "too many recipients"
    return 500 <= result.code < 600


def _is_of_one_family(tried: Tried, result: Result) -> bool:
    """Say whether a refusal may be meant for one of our addresses only (RFC 3463 3.8): servers block each family by itself."""
    return tried.attempt == 1 and result.dual_stack and result.enhanced.startswith("5.7.")


def _outcome(tried: Tried, result: Result, event: EventType, *, retry_in: timedelta | None = None) -> Outcome:
    classified = None if event is EventType.DELIVERED else _classified(result)
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
        counted=classified.counted if classified else False,
        final_attempt_next=retry_in is not None and _final_next(tried, retry_in),
        retry_in=retry_in,
        facts=result.facts,
    )


def _classified(result: Result) -> Classified:
    if result.category is not None:
        return Classified(result.category, immediate=False, counted=False)
    return classify(result.code, result.enhanced, result.text)


def notice(site: SiteName, outcome: Outcome, source_ip: str | None) -> Notice | None:
    """Return what operators are to be told of an outcome: that our address, our name or our login is refused, which only they can mend."""
    if outcome.category is Category.REPUTATION:
        kind = OperatorEventKind.SOURCE_BLOCKED
        subject = f"{site.name} from {source_ip}" if source_ip else site.name
        text = f"{site.name} refuses mail because of our address or name; its recipients are not suppressed for it"
    elif outcome.facts.stage == "auth" and outcome.code:
        kind, subject = OperatorEventKind.LOGIN_REFUSED, site.name
        text = f"{site.name} refuses our login; its mail waits, and fails when its time is over"
    else:
        return None
    return Notice(
        kind,
        subject,
        text,
        {
            "site": site.key,
            "source_ip": source_ip,
            "host": outcome.facts.host,
            "host_ip": outcome.facts.ip,
            "stage": outcome.facts.stage,
            "code": outcome.code,
            "enhanced_code": outcome.enhanced,
            "reply": without_addresses(clean_text(outcome.text)),
            "delivery": str(outcome.delivery_id),
        },
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
