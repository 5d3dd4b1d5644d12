"""The outcomes a test asks for by a local part: ``550@...``, ``xtemperror@...``, ``rcptto451@...``.

Read by the inbound listener in local mode and by delivery for sandbox keys. The whole local part is read, case-sensitively;
addresses that carry a from_id of ours are exempt, which is the caller's to check.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["reply", "timeout", "bounce", "complaint", "greylist"]


@dataclass(frozen=True, slots=True)
class Simulated:
    """What to do instead of taking the mail."""

    stage: Literal["mail", "rcpt", "data"]
    """After which command; a bounce or complaint always comes after DATA."""
    kind: Kind
    """``reply``: answer code. ``timeout``: stay silent. ``greylist``: answer code the first time, then accept.
    ``bounce``, ``complaint``: accept, then send a report (a DSN with code and enhanced, an ARF message)."""
    code: int
    enhanced: str


_BY_ENDING: tuple[tuple[str, Kind, int, str], ...] = (
    ("temperror", "reply", 451, "4.0.0"),
    ("permerror", "reply", 550, "5.0.0"),
    ("timeout", "timeout", 451, "4.0.0"),
    ("bounce", "bounce", 550, "5.1.1"),
    ("complaint", "complaint", 250, "2.0.0"),
    ("greylist", "greylist", 451, "4.0.0"),
)


def simulate_recipient(local: str) -> Simulated | None:
    """Return what a recipient's local part asks for: at RCPT TO where it begins with ``rcptto``, else after DATA."""
    return _simulated(local, "rcpt" if local.startswith("rcptto") else "data")


def simulate_sender(local: str) -> Simulated | None:
    """Return what a sender's local part asks for at MAIL FROM; only one that begins with ``mailfrom`` asks for anything.

    A sender cannot ask for a report: those come to senders.
    """
    if not local.startswith("mailfrom"):
        return None
    simulated = _simulated(local, "mail")
    return None if simulated is None or simulated.kind in {"bounce", "complaint"} else simulated


def _simulated(local: str, stage: Literal["mail", "rcpt", "data"]) -> Simulated | None:
    for ending, kind, code, enhanced in _BY_ENDING:
        if local.endswith(ending):
            return Simulated("data" if kind in {"bounce", "complaint"} else stage, kind, code, enhanced)
    digits = local[-3:]
    if len(digits) == 3 and digits.isascii() and digits.isdecimal() and 400 <= int(digits) <= 599:
        return Simulated(stage, "reply", int(digits), f"{digits[0]}.0.0")
    return None
