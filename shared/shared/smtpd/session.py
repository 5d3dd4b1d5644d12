"""What a handler sees: the connection, the message, and the calls it answers."""

from dataclasses import dataclass, field
from typing import Protocol

from shared.smtpd.grammar import Parameters
from shared.smtpd.reply import Reply
from shared.smtpd.wire import Wire


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What was negotiated: version as ``TLSv1.3``, cipher as OpenSSL names it."""

    version: str
    cipher: str


def tls_facts(wire: Wire) -> TlsFacts | None:
    """Return what TLS was negotiated on a connection, None in plaintext."""
    tls = wire.tls
    if tls is None:
        return None
    cipher = tls.cipher()
    return TlsFacts(tls.version() or "", cipher[0] if cipher else "")


@dataclass(slots=True)
class Session:
    """The facts of one SMTP connection. The core writes them, handlers read them."""

    number: int
    """Counts the connections of this listener; for logs."""
    peer_ip: str
    peer_port: int
    local_ip: str
    local_port: int
    ehlo_name: str = ""
    """What the peer calls itself, unverified; empty before EHLO and after STARTTLS."""
    esmtp: bool = False
    """EHLO rather than HELO."""
    tls: TlsFacts | None = None
    login: object | None = None
    """Who has authenticated, as the listener's ``Auth`` put it; None before AUTH and after STARTTLS."""
    mail_from: str | None = None
    """Sender of the open transaction, empty for ``<>``; None where none is open."""
    recipients: list[str] = field(default_factory=list)
    """Recipients accepted so far in the open transaction."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A received message and how it came."""

    mail_from: str
    """Without angle brackets, as sent; empty for the null reverse-path."""
    recipients: tuple[str, ...]
    """At least one, in the order of the accepted RCPTs; duplicates stay."""
    content: bytes
    """The message, dots removed, with CRLF line ends only."""
    mail_params: Parameters
    rcpt_params: tuple[Parameters, ...]
    """One mapping for each of ``recipients``."""
    smtputf8: bool
    """SMTPUTF8 was given to MAIL (RFC 6531)."""
    body8bit: bool
    """BODY=8BITMIME was given to MAIL (RFC 6152)."""
    tls: TlsFacts | None
    peer_ip: str
    ehlo_name: str
    esmtp: bool


class Handler(Protocol):
    """Decides about mail; the core speaks the protocol.

    None accepts with the default reply, a :class:`Reply` is sent as it is, codes 421 and 521 also end the connection.
    An exception is answered 451 4.3.0 and logged. When the peer disconnects while a call is running, the call is
    cancelled: the peer has not seen a reply and sends the message again. One call per connection runs at a time.
    """

    async def on_connect(self, session: Session) -> Reply | None:
        """Decide about a connection; the reply replaces the greeting, from 400 on it ends the connection."""

    async def on_mail(self, session: Session, sender: str, params: Parameters) -> Reply | None:
        """Decide about a sender (empty for ``<>``)."""

    async def on_rcpt(self, session: Session, recipient: str, params: Parameters) -> Reply | None:
        """Decide about a recipient; earlier ones are in ``session.recipients``."""

    async def on_message(self, session: Session, envelope: Envelope) -> Reply:
        """Take the message. A 2xx makes it ours (RFC 5321 4.2.5): answer it only once it is committed."""
