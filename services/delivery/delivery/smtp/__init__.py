"""The SMTP client core: protocol without policy. It reports and never decides.

The journey of a mail:

1. ``connect`` dials an address, if need be through a proxy (``socks``), greets, starts TLS and logs in (``opening``, ``auth``); ``extensions`` reads what is offered.
2. ``Session.send`` makes the mail fit what the server offers (``fitting``) or says why it cannot go there.
3. ``rounds`` deals the recipients out to transactions, as many to each as the server takes. A ``transaction`` is one write
   with PIPELINING, MAIL, every RCPT and DATA, with CHUNKING the content too; without it one command after the other.
4. ``content`` doubles the dots; ``connection`` moves octets; ``reply`` reads answers within bounds.
5. ``Sent`` has exactly one result for each recipient, whatever happened on the way.
6. The session takes the next mail, waits for it a while in ``idle``, or ``quit`` ends it. Failures before a transaction are
   the tree in ``errors``.
"""

from delivery.smtp.errors import SmtpError
from delivery.smtp.extensions import Extensions
from delivery.smtp.facts import (
    Login,
    Mail,
    Proxy,
    RcptResult,
    ReplyFacts,
    Sent,
    Stage,
    Target,
    Timeouts,
    TlsFacts,
    TlsMode,
)
from delivery.smtp.idle import IdleSessions
from delivery.smtp.opening import connect, opportunistic_context, verifying_context
from delivery.smtp.session import Session

__all__ = [
    "Extensions",
    "IdleSessions",
    "Login",
    "Mail",
    "Proxy",
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
    "verifying_context",
]
