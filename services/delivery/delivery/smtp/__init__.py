"""The SMTP client core: protocol without policy. It reports and never decides.

The journey of a mail:

1. ``connect`` dials an address, greets and starts TLS (``session``); ``extensions`` reads what the server offers.
2. ``Session.send`` checks that the mail can go over this session at all, then runs one ``transaction``: MAIL, every RCPT
   and DATA in one write where the server takes PIPELINING, one by one where not.
3. ``content`` doubles the dots; ``connection`` moves octets; ``reply`` reads answers within bounds.
4. ``Sent`` has exactly one result for each recipient, whatever happened on the way.
5. The session takes the next mail, or ``quit`` ends it. Failures before a transaction are the tree in ``errors``.
"""

from delivery.smtp.errors import SmtpError
from delivery.smtp.extensions import Extensions
from delivery.smtp.facts import Mail, RcptResult, ReplyFacts, Sent, Stage, Target, Timeouts, TlsFacts, TlsMode
from delivery.smtp.session import Session, connect, opportunistic_context

__all__ = [
    "Extensions",
    "Mail",
    "RcptResult",
    "ReplyFacts",
    "Sent",
    "Session",
    "SmtpError",
    "Stage",
    "Target",
    "Timeouts",
    "TlsFacts",
    "TlsMode",
    "connect",
    "opportunistic_context",
]
