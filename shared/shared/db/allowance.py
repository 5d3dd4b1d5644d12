"""The arithmetic of an account's limits: what is still allowed, and when there is room again. :mod:`shared.db.budgets` keeps the numbers.

A day is kept in pieces of ten minutes, and a piece counts until all of it is a day ago. So in no 24 hours is more sent than the
limit says, and who is told to wait waits at most ten minutes longer than to the second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.errors import LimitReached, MessageLimitReached, RateLimited, RecipientLimitReached

DAY = timedelta(hours=24)
PIECE = timedelta(minutes=10)
AHEAD = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of an account; None: no limit."""

    per_day: int | None
    first_time_per_day: int | None
    per_second: int | None

    @property
    def any(self) -> bool:
        """Whether there is one; without, nothing is counted."""
        return any(limit is not None for limit in (self.per_day, self.first_time_per_day, self.per_second))


@dataclass(frozen=True, slots=True)
class Piece:
    """What was spent in ten minutes."""

    begins_at: datetime
    recipients: int
    first_time: int

    @property
    def counts_until(self) -> datetime:
        """The end of the first 24 hours that hold nothing of it."""
        return self.begins_at + PIECE + DAY


def begin_of_piece(moment: datetime) -> datetime:
    """Return when the piece that a moment lies in begins."""
    seconds = PIECE.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


@dataclass(slots=True)
class Allowance:
    """What an account may still send, while messages are taken."""

    limits: Limits
    moment: datetime
    paid_until: datetime
    """Until when the rate is used up; past: it is not."""
    spent: int
    """Recipients in the pieces that count."""
    spent_first_time: int
    known: set[str] = field(default_factory=set)
    """Those of the recipients in question that the account has written to."""
    taken: int = 0
    """Recipients taken since."""
    met: set[str] = field(default_factory=set)
    """First-time recipients taken since."""

    def take(self, recipients: int, keys: frozenset[str]) -> bool:
        """Take what a message needs, all of it or nothing; say whether it may go.

        Args:
            recipients: how many it has; who is named twice counts twice.
            keys: who they are.
        """
        if self._excess(recipients) > 0 or self._excess_first_time(keys) > 0 or self._is_too_fast():
            return False
        self.taken += recipients
        self.met |= self._strangers(keys)
        if self.limits.per_second is not None:
            cost = timedelta(seconds=recipients / self.limits.per_second)
            self.paid_until = max(self.paid_until, self.moment) + cost
        return True

    def refusal(self, recipients: int, keys: frozenset[str], pieces: Sequence[Piece]) -> LimitReached:
        """Return why a message may not go: by the limit that it has to wait for longest.

        Args:
            recipients: as for :meth:`take`, which refused it.
            keys: likewise.
            pieces: all that count, the oldest first, with what was taken since.
        """
        limits, found = self.limits, []
        if (excess := self._excess(recipients)) > 0:
            error: type[LimitReached] = MessageLimitReached
            text = f"this account sends to at most {limits.per_day} recipients a day, and {recipients} more would pass that"
            found.append((self._wait([(p, p.recipients) for p in pieces], excess), error, text))
        if (excess := self._excess_first_time(keys)) > 0:
            text = (
                f"this account writes to at most {limits.first_time_per_day} recipients a day that it has never written to,"
                f" and {len(self._strangers(keys))} more would pass that"
            )
            found.append((self._wait([(p, p.first_time) for p in pieces], excess), RecipientLimitReached, text))
        if self._is_too_fast():
            text = f"this account sends to at most {limits.per_second} recipients a second"
            found.append((_just_after(self.paid_until - self.moment - AHEAD), RateLimited, text))
        wait, error, text = max(found, key=lambda one: math.inf if one[0] is None else one[0])
        return error(text, facts={} if wait is None else {"retry_after": wait})

    def _excess(self, recipients: int) -> int:
        if self.limits.per_day is None:
            return 0
        return self.spent + self.taken + recipients - self.limits.per_day

    def _excess_first_time(self, keys: frozenset[str]) -> int:
        strangers = len(self._strangers(keys))
        if self.limits.first_time_per_day is None or not strangers:
            return 0
        return self.spent_first_time + len(self.met) + strangers - self.limits.first_time_per_day

    def _strangers(self, keys: frozenset[str]) -> frozenset[str]:
        return keys - self.known - self.met if self.limits.first_time_per_day is not None else frozenset()

    def _is_too_fast(self) -> bool:
        return self.limits.per_second is not None and self.paid_until - self.moment >= AHEAD

    def _wait(self, spent: Sequence[tuple[Piece, int]], excess: int) -> int | None:
        room_at = when_room(spent, excess)
        # RFC 9110 10.2.3: whole seconds.
        return None if room_at is None else max(1, math.ceil((room_at - self.moment).total_seconds()))


def when_room(spent: Sequence[tuple[Piece, int]], excess: int) -> datetime | None:
    """Return when an excess has passed out of the day; None where even an empty day is too small.

    Args:
        spent: each piece that counts, the oldest first, with what it holds.
        excess: how much has to go.
    """
    for piece, amount in spent:
        excess -= amount
        if excess <= 0:
            return piece.counts_until
    return None


def _just_after(wait: timedelta) -> int:
    """Return the least whole seconds that are more than a wait (RFC 9110 10.2.3): at its very end it is not over yet."""
    return math.floor(wait.total_seconds()) + 1
