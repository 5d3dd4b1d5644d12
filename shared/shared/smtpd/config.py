"""What a listener is told: limits, times and what it offers."""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.smtpd.auth import Auth
from shared.smtpd.metrics import SmtpdMetrics
from shared.smtpd.reply import Reply
from shared.smtpd.session import Session


def _nothing_more(_: Session) -> Sequence[str]:
    return ()


def _nobody_asks(_: Reply) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpdConfig:
    """Everything about a listener that is not a decision about mail. Sizes are octets, times seconds.

    The defaults are at or above the minima of RFC 5321 4.5.3.
    """

    hostname: str
    """Our name in the greeting and in the EHLO reply."""
    max_size: int = 52_428_800
    """Largest message; announced as SIZE (RFC 1870)."""
    max_recipients: int = 1_000
    """Recipients of one transaction; announced as LIMITS RCPTMAX (RFC 9422)."""
    max_line: int = 4_096
    """Longest command line with its CRLF; RFC 5321 4.5.3.1.4 asks for 512, the extensions for more."""
    max_commands: int = 5_000
    """Commands between two accepted messages."""
    max_errors: int = 20
    """Commands between two accepted messages that this core refuses for syntax or sequence."""
    command_timeout: float = 300.0
    """Longest wait for a command (RFC 5321 4.5.3.2.7)."""
    data_timeout: float = 180.0
    """Longest pause within a message."""
    transaction_timeout: float = 1_800.0
    """Longest time from MAIL to the end of the message."""
    session_timeout: float = 7_200.0
    """Longest time of a connection, up to the end of its last transaction."""
    half_close_timeout: float = 30.0
    """Longest time that answering may take once the peer has closed its side; it may have left altogether."""
    session_limit: int = 1_000
    """Connections at once."""
    per_ip_limit: int = 100
    """Connections at once from one address; an IPv6 network of 64 bits counts as one."""
    memory_limit: int = 100_663_296
    """Octets of messages being received or handled at once, all connections together; beyond it 452."""
    tls: ssl.SSLContext | None = None
    """Offer STARTTLS with this context. Loading a renewed certificate into it serves the next handshakes."""
    implicit_tls: bool = False
    """Start TLS at once instead of offering STARTTLS (RFC 8314 3.3)."""
    tls_timeout: float = 60.0
    """Longest time of a TLS handshake."""
    auth: Auth | None = None
    """Offer AUTH with these mechanisms (RFC 4954); None: there is no such command."""
    smtputf8: bool = True
    chunking: bool = True
    mail_parameters: frozenset[str] = field(default_factory=frozenset)
    """Further parameters of MAIL that the handler understands, upper case; any other is refused with 555."""
    rcpt_parameters: frozenset[str] = field(default_factory=frozenset)
    """Parameters of RCPT that the handler understands, upper case."""
    ehlo_lines: Callable[[Session], Sequence[str]] = _nothing_more
    """Further lines of the EHLO reply, asked for each EHLO (it may depend on TLS)."""
    on_refusal: Callable[[Reply], None] = _nobody_asks
    """Told when this core itself refuses a message that no handler sees: for a parameter of MAIL, or for its content."""
    metrics: SmtpdMetrics | None = None
    """Where sessions and replies are counted; listeners of one process share it."""
    reuse_port: bool = False
    """Let several processes listen on one port (SO_REUSEPORT)."""

    def __post_init__(self) -> None:
        if self.implicit_tls and self.tls is None:
            raise ValueError("implicit_tls needs a TLS context in tls")
