"""The arithmetic of limits against a model that remembers every send: never too much in any 24 hours, and no wait too short or too long."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.db.allowance import DAY, PIECE, Allowance, Limits, Piece, begin_of_piece
from shared.errors import LimitReached, MessageLimitReached, RateLimited, RecipientLimitReached

START = datetime(2026, 11, 20, 13, 7, 42, 500_000, tzinfo=UTC)
NEVER = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Mail:
    recipients: int
    keys: frozenset[str]


@dataclass(frozen=True)
class Sent:
    at: datetime
    recipients: int
    strangers: frozenset[str]


@dataclass
class Kept:
    """What the database keeps of an account: the pieces, whom it knows, until when its rate is paid for."""

    limits: Limits
    pieces: dict[datetime, Piece] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    paid_until: datetime = NEVER

    def counting(self, moment: datetime) -> list[Piece]:
        return [self.pieces[begin] for begin in sorted(self.pieces) if begin > moment - DAY - PIECE]

    def open(self, moment: datetime) -> Allowance:
        counting = self.counting(moment)
        return Allowance(
            self.limits,
            moment,
            self.paid_until,
            sum(piece.recipients for piece in counting),
            sum(piece.first_time for piece in counting),
            set(self.known),
        )

    def close(self, allowance: Allowance) -> list[Piece]:
        begin = begin_of_piece(allowance.moment)
        before = self.pieces.get(begin, Piece(begin, 0, 0))
        self.pieces[begin] = Piece(begin, before.recipients + allowance.taken, before.first_time + len(allowance.met))
        self.known |= allowance.met
        self.paid_until = allowance.paid_until
        return self.counting(allowance.moment)


@dataclass
class Model:
    """Every send with its time."""

    limits: Limits
    sent: list[Sent] = field(default_factory=list)

    def within(self, moment: datetime) -> list[Sent]:
        """Return what was sent in the 24 hours before a moment, its ends included."""
        return [one for one in self.sent if one.at >= moment - DAY]

    def exceeds(self, mail: Mail, moment: datetime) -> bool:
        """Say whether a mail at a moment would be too much, by the day to the microsecond or by the second."""
        known = {key for one in self.sent for key in one.strangers}
        strangers = mail.keys - known
        day = self.within(moment)
        per_day, first_time, rate = self.limits.per_day, self.limits.first_time_per_day, self.limits.per_second
        return (
            (per_day is not None and sum(one.recipients for one in day) + mail.recipients > per_day)
            or (
                first_time is not None
                and bool(strangers)
                and sum(len(one.strangers) for one in day) + len(strangers) > first_time
            )
            or (rate is not None and self.is_too_fast(rate, moment))
        )

    def is_too_fast(self, rate: int, moment: datetime) -> bool:
        """Say whether since any of the sends so much was sent as takes until a second after a moment, or longer."""
        total = timedelta()
        for one in reversed(self.sent):
            total += timedelta(seconds=one.recipients / rate)
            if one.at + total - moment >= timedelta(seconds=1):
                return True
        return False


GAPS = st.one_of(
    st.just(timedelta()),
    st.timedeltas(timedelta(), timedelta(seconds=3)),
    st.timedeltas(timedelta(), timedelta(hours=7)),
    st.sampled_from([PIECE, DAY, DAY - PIECE, DAY + PIECE, timedelta(seconds=1)]),
)
MAILS = st.builds(Mail, st.integers(1, 6), st.frozensets(st.sampled_from("abcdefgh"), min_size=1, max_size=4))
LIMITS = st.builds(
    Limits,
    st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(1, 4),
)
BATCHES = st.lists(st.tuples(GAPS, st.lists(MAILS, min_size=1, max_size=4)), min_size=1, max_size=25)


def play(
    limits: Limits, batches: list[tuple[timedelta, list[Mail]]]
) -> Iterator[tuple[Kept, Model, datetime, list[tuple[Mail, LimitReached]]]]:
    """Take mail in batches, as the accepting transaction does; yield what is kept, and what was refused."""
    kept, model, moment = Kept(limits), Model(limits), START
    for gap, mails in batches:
        moment += gap
        allowance, refused = kept.open(moment), []
        for mail in mails:
            met = set(allowance.met)
            if allowance.take(mail.recipients, mail.keys):
                model.sent.append(Sent(moment, mail.recipients, frozenset(allowance.met - met)))
            else:
                refused.append(mail)
        pieces = kept.close(allowance)
        yield kept, model, moment, [(mail, allowance.refusal(mail.recipients, mail.keys, pieces)) for mail in refused]


@settings(max_examples=400, deadline=None)
@given(LIMITS, BATCHES)
def test_no_24_hours_hold_more_than_the_limit(limits: Limits, batches: list[tuple[timedelta, list[Mail]]]) -> None:
    for _, model, moment, _ in play(limits, batches):
        day = model.within(moment)
        assert limits.per_day is None or sum(one.recipients for one in day) <= limits.per_day
        first_time = sum(len(one.strangers) for one in day)
        assert limits.first_time_per_day is None or first_time <= limits.first_time_per_day
        if limits.per_second is not None and model.sent:
            *earlier, last = model.sent
            # All but the last of them: it may be of any size.
            assert not Model(limits, earlier).is_too_fast(limits.per_second, last.at)


@settings(max_examples=400, deadline=None)
@given(LIMITS, BATCHES)
def test_a_wait_is_long_enough_and_not_ten_minutes_too_long(
    limits: Limits, batches: list[tuple[timedelta, list[Mail]]]
) -> None:
    for kept, model, moment, refused in play(limits, batches):
        for mail, error in refused:
            wait = error.facts.get("retry_after")
            strangers = mail.keys - kept.known
            if wait is None:
                alone = Model(limits, [Sent(moment - 2 * DAY, 1, frozenset(kept.known))])
                assert alone.exceeds(mail, moment), "an empty day would do, so there is something to wait for"
                continue
            assert isinstance(wait, int)
            assert wait >= 1
            assert kept.open(moment + timedelta(seconds=wait)).take(mail.recipients, mail.keys)
            earlier = timedelta(seconds=wait - 1)
            if not isinstance(error, RateLimited):
                earlier -= PIECE
            assert model.exceeds(mail, moment + max(earlier, timedelta())) or earlier < timedelta()
            assert strangers or not isinstance(error, RecipientLimitReached)


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (Limits(1, 1, 1), MessageLimitReached),
        (Limits(None, 1, 1), RecipientLimitReached),
        (Limits(9, None, 1), RateLimited),
        (Limits(2, 0, None), RecipientLimitReached),
        (Limits(0, 0, None), MessageLimitReached),
    ],
)
def test_it_is_told_by_the_limit_that_lasts_longest(limits: Limits, kind: type[LimitReached]) -> None:
    mails = [Mail(1, frozenset("a")), Mail(1, frozenset("b"))]
    ((_, _, _, refused),) = play(limits, [(timedelta(), mails)])
    assert [type(error) for _, error in refused][-1] is kind


def test_what_counts_and_what_does_not_any_more() -> None:
    limits = Limits(1, None, None)
    kept = Kept(limits)
    at = datetime(2026, 11, 20, 12, 9, 59, tzinfo=UTC)
    allowance = kept.open(at)
    assert allowance.take(1, frozenset("a"))
    kept.close(allowance)
    end = datetime(2026, 11, 21, 12, 10, tzinfo=UTC)
    assert not kept.open(end - timedelta(microseconds=1)).take(1, frozenset("a"))
    assert kept.open(end).take(1, frozenset("a"))
