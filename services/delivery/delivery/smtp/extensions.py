"""What a server offers in its EHLO reply (RFC 5321 4.1.1.1)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_LIMIT = re.compile(r"([A-Z0-9-]+)=([1-9][0-9]{0,5})")  # RFC 9422 4: positive, at most six digits


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions of a session; all absent after HELO."""

    esmtp: bool = False
    pipelining: bool = False
    """RFC 2920."""
    size: int | None = None
    """Largest message in octets (RFC 1870); None where no limit is known."""
    size_offered: bool = False
    """SIZE may be given to MAIL."""
    eight_bit_mime: bool = False
    """RFC 6152."""
    smtputf8: bool = False
    """RFC 6531."""
    enhanced_status_codes: bool = False
    """RFC 2034."""
    chunking: bool = False
    """RFC 3030."""
    starttls: bool = False
    """RFC 3207."""
    requiretls: bool = False
    """RFC 8689."""
    dsn: bool = False
    """RFC 3461."""
    rcpt_max: int | None = None
    """Recipients of one transaction (RFC 9422); None where no limit is known."""
    mail_max: int | None = None
    """Transactions of one session (RFC 9422); None where no limit is known."""
    auth: tuple[str, ...] = ()
    """SASL mechanisms (RFC 4954)."""
    keywords: frozenset[str] = field(default_factory=frozenset)
    """Every keyword, upper case."""


def parse_extensions(lines: Sequence[str]) -> Extensions:
    """Read the lines of an EHLO reply; the first one greets.

    What is malformed counts as not offered; parameters that an extension does not define are ignored.
    """
    offered: dict[str, str] = {}
    for line in lines[1:]:
        keyword, _, parameters = line.strip().upper().partition(" ")
        if keyword.startswith("AUTH="):  # an old spelling, from before RFC 4954
            keyword, parameters = "AUTH", keyword[5:] + " " + parameters
        if keyword:
            offered.setdefault(keyword, parameters.strip())
    size = offered.get("SIZE", "")
    limits = _limits(offered.get("LIMITS", ""))
    return Extensions(
        esmtp=True,
        pipelining="PIPELINING" in offered,
        size=int(size)
        if size.isascii() and size.isdigit() and len(size) <= 20 and int(size)
        else None,  # RFC 1870 4: 0 is no limit
        size_offered="SIZE" in offered,
        eight_bit_mime="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        enhanced_status_codes="ENHANCEDSTATUSCODES" in offered,
        chunking="CHUNKING" in offered,
        starttls="STARTTLS" in offered,
        requiretls="REQUIRETLS" in offered,
        dsn="DSN" in offered,
        rcpt_max=limits.get("RCPTMAX"),
        mail_max=limits.get("MAILMAX"),
        auth=tuple(offered.get("AUTH", "").split()),
        keywords=frozenset(offered),
    )


def _limits(text: str) -> dict[str, int]:
    limits: dict[str, int] = {}
    for word in text.split():
        match = _LIMIT.fullmatch(word)
        if match is None or match[1] in limits:
            return {}  # one that is malformed or given twice makes all of them doubtful
        limits[match[1]] = int(match[2])
    return limits
