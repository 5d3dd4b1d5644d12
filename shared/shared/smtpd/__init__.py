"""The one SMTP server core: protocol without policy.

The journey of a message:

1. ``listener`` accepts the connection within its limits and starts a conversation.
2. ``wire`` hands over lines and octets, bounded in space and time, before and after STARTTLS.
3. ``conversation`` answers the commands; ``grammar`` reads their arguments; ``reply`` writes the answers.
4. ``transaction`` gathers the envelope and reads the content; ``data`` finds its end and refuses bare line ends.
   An exchange of AUTH is framed by ``auth``; its mechanisms are the listener's.
5. The handler decides (``session``): connection, sender, each recipient, and the message; a 250 is its promise.
   ``metrics`` counts what the peers were answered.

A message ends only with CRLF.CRLF, and none with a bare CR or LF is accepted, so nothing can be smuggled in.
"""

from shared.smtpd.auth import Auth, Exchange
from shared.smtpd.config import SmtpdConfig
from shared.smtpd.listener import Listener, serve
from shared.smtpd.metrics import SmtpdMetrics
from shared.smtpd.reply import Reply
from shared.smtpd.session import Envelope, Handler, Session, TlsFacts

__all__ = [
    "Auth",
    "Envelope",
    "Exchange",
    "Handler",
    "Listener",
    "Reply",
    "Session",
    "SmtpdConfig",
    "SmtpdMetrics",
    "TlsFacts",
    "serve",
]
