"""The words of the SMTP client: where to, what, and what became of it."""

import unicodedata
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum

LONGEST_CREDENTIAL = 1_024
"""Octets of a user name or password; more would not fit in the lines of an exchange."""


class Stage(Enum):
    """How far an SMTP session had come."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    MESSAGE = "message"
    """The content, and the reply to its end."""
    QUIT = "quit"


class TlsMode(Enum):
    """What TLS a connection uses."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    """STARTTLS where it is offered (RFC 7435)."""
    REQUIRED = "required"
    """STARTTLS, or no delivery."""
    IMPLICIT = "implicit"
    """TLS from the first octet (RFC 8314 3.3)."""


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """A reply of a server, cleaned."""

    code: int
    enhanced: str
    """``class.subject.detail``; empty where the server sends none."""
    text: str
    """The whole reply without the codes in front of its lines, lines separated by newlines."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A SOCKS5 proxy."""

    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """A server to connect to."""

    host: str
    """Its name, for SNI, certificate and records; or its address where it has none."""
    ip: str
    port: int = 25
    source_ip: str | None = None
    """Our address to connect from; None leaves it to the system."""
    dual_stack: bool = False
    """It has addresses of both families, this one among them."""
    proxy: Proxy | None = None
    """What the connection goes through; then ``source_ip`` is not ours to choose."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Longest waits per phase in seconds (RFC 5321 4.5.3.2)."""

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    starttls: float = 120.0
    """For the reply and again for the handshake."""
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    """For the server to take the next part of the content."""
    message: float = 600.0
    """For the reply to the end of the content."""
    quit: float = 10.0
    auth: float = 120.0
    """For each reply of an exchange."""
    silence: float = 2.0
    """Since the server spoke last: after more, content is not sent before it has said that it is still there."""

    @classmethod
    def all(cls, seconds: float) -> "Timeouts":
        """Return the same limit for every phase; nobody waits longer than 10 s for a goodbye."""
        shorter = {"quit": min(seconds, 10.0), "silence": min(seconds, 2.0)}
        return cls(**{phase.name: seconds for phase in fields(cls)} | shorter)


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a server that asks (RFC 4954)."""

    user: str
    password: str = field(repr=False)
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")
    """Which may be used, the one we like best first: from a proof that ends with this exchange to the password itself."""
    without_tls: bool = False
    """Whether the login may be shown to a server that was not reached by TLS."""

    def __post_init__(self) -> None:
        for what, text in (("user name", self.user), ("password", self.password)):
            if any(unicodedata.category(letter) in {"Cc", "Cs", "Co"} for letter in text):
                raise ValueError(f"the {what} of a login holds no control characters")
            if not 0 < len(text.encode()) <= LONGEST_CREDENTIAL:
                raise ValueError(f"the {what} of a login has 1 to {LONGEST_CREDENTIAL} octets")


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What TLS was negotiated."""

    version: str
    """As ``TLSv1.3``."""
    cipher: str
    verified: bool
    """The certificate was checked against the system's trust and the host's name, and the session would not stand without."""
    certificate: bytes
    """The server's certificate in DER, for checks of one's own; empty where it sent none."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One transaction: an envelope and its content."""

    mail_from: str
    """Without angle brackets; empty for the null reverse-path."""
    recipients: tuple[str, ...]
    content: Sequence[bytes] | AsyncIterable[bytes]
    """The complete message with CRLF line ends, in any pieces. What is not a sequence can be sent in one transaction only."""
    size: int
    """Octets of the content; content of another size is not sent to its end."""
    smtputf8: bool = False
    """Needs SMTPUTF8 (RFC 6531): non-ASCII addresses or header fields."""
    body8bit: bool = False
    """Needs 8BITMIME (RFC 6152): octets over 127 in the body."""
    require_tls: bool = False
    """Is to be passed on over verified TLS only (RFC 8689); the caller has seen that this session is such, and offers it."""

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a transaction needs at least one recipient")

    @classmethod
    def of(cls, mail_from: str, recipients: Sequence[str], content: bytes, *, smtputf8: bool = False) -> "Mail":
        """Return a mail whose content is in memory as a whole; whether it needs 8BITMIME is seen from it."""
        return cls(mail_from, tuple(recipients), (content,), len(content), smtputf8, has_eight_bit_body(content))


def body_start(content: bytes) -> int:
    """Return where the body begins, with the empty line before it (RFC 5322 2.1); the size where there is none."""
    if content.startswith(b"\r\n"):
        return 0
    end = content.find(b"\r\n\r\n")
    return len(content) if end < 0 else end + 2


def has_eight_bit_body(content: bytes) -> bool:
    """Say whether octets over 127 come behind the header, which may have its own (RFC 6532) and is not meant by 8BITMIME."""
    return not content.isascii() and not content[body_start(content) :].isascii()


@dataclass(frozen=True, slots=True)
class RcptResult:
    """What became of one recipient."""

    recipient: str
    accepted: bool
    """The server took responsibility for the message (RFC 5321 4.2.5)."""
    stage: Stage
    """Where it was decided."""
    code: int
    """The server's reply code; 0 where it gave none."""
    enhanced: str
    """``class.subject.detail``; empty where the server sends none."""
    text: str
    """The whole reply without the codes in front of its lines, lines separated by newlines; what happened where code is 0."""
    in_doubt: bool = False
    """The end of the content was sent and no answer came: the server may have accepted the message all the same."""

    @property
    def untouched(self) -> bool:
        """The server took no notice of it: the session ended before its transaction did begin."""
        return self.stage is Stage.MAIL and self.code in {0, 421} and not self.in_doubt


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a mail."""

    results: tuple[RcptResult, ...]
    """One for each recipient, in their order."""
