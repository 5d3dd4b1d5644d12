"""FUTURERELEASE (RFC 4865): the two parameters of MAIL that ask to hold a message, and the line that offers them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from shared.errors import BadInput
from shared.smtpd.reply import Reply

KEYWORDS = frozenset({"HOLDFOR", "HOLDUNTIL"})

_SECONDS = re.compile(r"[1-9][0-9]{0,8}")  # RFC 4865 5: future-release-integer
# RFC 4865 5: an RFC 3339 date-time in UTC, with the Z.
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:)([0-9]{2})(\.[0-9]{1,9})?Z", re.IGNORECASE)

_BOTH = Reply(501, "5.5.4", "Give HOLDFOR or HOLDUNTIL, not both")
_BAD_FOR = Reply(501, "5.5.4", "HOLDFOR takes seconds, 1 to 9 digits without a leading zero")
_BAD_UNTIL = Reply(501, "5.5.4", "HOLDUNTIL takes a time in UTC such as 2026-11-20T12:00:00Z")
_PAST = Reply(554, "5.5.4", "HOLDUNTIL lies in the past")


class HoldRefused(BadInput):
    """A message cannot be held as asked; ``reply`` says why."""

    code = "smtp_hold"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


def offer(now: datetime, longest: timedelta) -> str:
    """Return the line of the EHLO reply: seconds and moment at most (RFC 4865 4)."""
    until = (now + longest).astimezone(UTC)
    return f"FUTURERELEASE {int(longest.total_seconds())} {until:%Y-%m-%dT%H:%M:%SZ}"


def held_until(params: Mapping[str, str | None], now: datetime, longest: timedelta) -> datetime | None:
    """Return until when MAIL asks to hold a message, None where it does not.

    Raises:
        HoldRefused: the parameters are malformed, or ask for the past or for longer than is offered.
    """
    if params.keys() >= KEYWORDS:
        raise HoldRefused(_BOTH)  # RFC 4865 5
    if "HOLDFOR" in params:
        seconds = params["HOLDFOR"]
        if seconds is None or not _SECONDS.fullmatch(seconds):
            raise HoldRefused(_BAD_FOR)
        if int(seconds) > longest.total_seconds():
            raise HoldRefused(_too_long(longest))
        return now + timedelta(seconds=int(seconds))
    if "HOLDUNTIL" in params:
        moment = _moment(params["HOLDUNTIL"])
        if moment <= now:
            raise HoldRefused(_PAST)
        if moment > now + longest:
            raise HoldRefused(_too_long(longest))
        return moment
    return None


def _moment(text: str | None) -> datetime:
    match = _MOMENT.fullmatch(text or "")
    if match is None:
        raise HoldRefused(_BAD_UNTIL)
    second = "59" if match[2] == "60" else match[2]  # a leap second has no datetime
    try:
        moment = datetime.fromisoformat(f"{match[1].upper()}{second}+00:00")
    except ValueError:  # the 31st of June
        raise HoldRefused(_BAD_UNTIL) from None
    return moment + timedelta(seconds=float(match[3] or 0))


def _too_long(longest: timedelta) -> Reply:
    return Reply(554, "5.5.4", f"A message is held for at most {int(longest.total_seconds())} seconds")
