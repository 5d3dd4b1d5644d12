"""AUTH (RFC 4954): the frame of an exchange, bounded in lines and octets. What the mechanisms say is the handler's."""

import binascii
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from shared.smtpd import reply as replies
from shared.smtpd.reply import Reply
from shared.smtpd.session import Session

_ARGUMENT = re.compile(r"([A-Za-z0-9_-]{1,20})(?: +(\S+))?")  # RFC 4422 3.1: names of mechanisms
_MOST_STEPS = 6
"""Responses of a client in one exchange; SCRAM needs three."""


class Exchange(Protocol):
    """One run of a mechanism."""

    async def step(self, response: bytes | None) -> bytes | Reply:
        """Take a response, None where the client has sent none with its command yet.

        Returns:
            The next challenge, or the reply that ends the exchange: 235 once ``session.login`` says who it is, else a refusal.
        """


class Auth(Protocol):
    """The mechanisms of a listener."""

    def offered(self, session: Session) -> Sequence[str]:
        """Return the names of the mechanisms that this session may use, upper case; empty where TLS must come first."""

    def begin(self, session: Session, mechanism: str) -> Exchange:
        """Begin an exchange of an offered mechanism."""


async def authenticate(
    auth: Auth, session: Session, argument: str, *, read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], None]
) -> Reply:
    """Carry out one AUTH command (RFC 4954 4).

    Args:
        auth: the mechanisms.
        session: whose it is.
        argument: what follows AUTH.
        read: returns the next line.
        write: queues octets for the client.

    Returns:
        The reply that ends it.
    """
    offered = auth.offered(session)
    if not offered:
        return replies.TLS_FIRST
    match = _ARGUMENT.fullmatch(argument)
    if match is None:
        return replies.AUTH_SYNTAX
    mechanism = match[1].upper()
    if mechanism not in offered:
        return Reply(504, "5.5.4", f"Mechanism not offered; choose one of {' '.join(offered)}")
    response = None
    if match[2] is not None:
        response = b"" if match[2] == "=" else _decoded(match[2].encode())  # RFC 4954 4: = is a response of no octets
        if response is None:
            return replies.NOT_BASE64
    return await _carry_out(auth.begin(session, mechanism), response, read, write)


async def _carry_out(
    exchange: Exchange,
    response: bytes | None,
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], None],
) -> Reply:
    for _ in range(_MOST_STEPS):
        answer = await exchange.step(response)
        if isinstance(answer, Reply):
            return answer
        write(b"334 " + binascii.b2a_base64(answer, newline=False) + b"\r\n")
        line = await read()
        if line == b"*":
            return replies.AUTH_CANCELLED
        response = _decoded(line)
        if response is None:
            return replies.NOT_BASE64
    return replies.AUTH_TOO_LONG


def _decoded(line: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except (binascii.Error, ValueError):
        return None
