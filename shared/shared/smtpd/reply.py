"""SMTP replies: code, enhanced code and text, encoded once."""

import re
from dataclasses import dataclass, field

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_LINE_ROOM = 500  # RFC 5321 4.5.3.1.5: a reply line has at most 512 octets, code and CRLF included
_LINES = 50


@dataclass(frozen=True, slots=True)
class Reply:
    r"""One reply of a server.

    Args:
        code: 200 to 599 (RFC 5321 4.2.1).
        enhanced: ``class.subject.detail`` (RFC 3463) with the class of ``code``; empty where none belongs
            (greeting, EHLO and 3xx; RFC 2034 4).
        text: for a person; several lines are separated by ``\n``. What is not printable ASCII becomes ``?``, so
            that text from elsewhere cannot forge a reply.

    Raises:
        ValueError: code or enhanced code is none, or their classes differ.
    """

    code: int
    enhanced: str
    text: str
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            message = f"an SMTP reply code lies between 200 and 599, not {self.code}"
            raise ValueError(message)
        if self.enhanced and not re.fullmatch(rf"{self.code // 100}\.\d{{1,3}}\.\d{{1,3}}", self.enhanced):
            message = f"enhanced code {self.enhanced!r} does not fit reply code {self.code}"
            raise ValueError(message)
        object.__setattr__(self, "wire", self._encode())

    def _encode(self) -> bytes:
        prefix = f"{self.enhanced} " if self.enhanced else ""
        room = _LINE_ROOM - len(prefix)
        lines = [_UNPRINTABLE.sub("?", line)[:room] for line in self.text.splitlines()[:_LINES]] or [""]
        last = len(lines) - 1
        # RFC 2034 4: every line of a multi-line reply carries the same enhanced code.
        encoded = (
            f"{self.code}{' ' if number == last else '-'}{prefix}{line}\r\n" for number, line in enumerate(lines)
        )
        return "".join(encoded).encode("ascii")


OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient OK")
START_DATA = Reply(354, "", "Send the message, end it with <CRLF>.<CRLF>")
CHUNK_OK = Reply(250, "2.0.0", "Chunk received")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
BYE = Reply(221, "2.0.0", "Goodbye")
HELP = Reply(
    214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH\nSee RFC 5321."
)
CANNOT_VERIFY = Reply(252, "2.0.0", "Cannot verify the address here; send mail to find out")

SHUTTING_DOWN = Reply(421, "4.3.2", "This server is shutting down, try again in a moment")
TOO_MANY_SESSIONS = Reply(421, "4.3.2", "Too many connections at the moment, try again later")
TOO_MANY_FROM_YOU = Reply(421, "4.7.0", "Too many connections from your address, close some first")
IDLE_TOO_LONG = Reply(421, "4.4.2", "Nothing received for too long, closing the connection")
SESSION_TOO_LONG = Reply(421, "4.4.2", "This connection has been open for too long, connect again")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing the connection")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands without a message, closing the connection")

TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients in one transaction, send the others in a new one")
LOCAL_ERROR = Reply(451, "4.3.0", "Something failed here, try again later")
NO_MEMORY = Reply(452, "4.3.1", "Too much mail is arriving at once, try again in a moment")

BARE_LINE_END = Reply(500, "5.5.2", "Bare CR or LF received; lines end with CRLF (RFC 5321 2.3.8)")
LINE_TOO_LONG = Reply(500, "5.5.2", "Command line too long")
NOT_UTF8 = Reply(500, "5.5.2", "The command is not valid UTF-8")
UNKNOWN_COMMAND = Reply(500, "5.5.2", "Command not recognized")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
NO_ARGUMENT_ALLOWED = Reply(501, "5.5.4", "This command takes no argument")
NEEDS_NAME = Reply(501, "5.5.4", "Give your host name or address literal")
HELLO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
NESTED_MAIL = Reply(503, "5.5.1", "A transaction is open already; send RSET to give it up")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
RECIPIENT_FIRST = Reply(503, "5.5.1", "Send RCPT first")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")  # RFC 5321 3.3
RCPT_TOO_LATE = Reply(503, "5.5.1", "RCPT cannot follow BDAT in one transaction (RFC 3030 2)")
CHUNKS_STARTED = Reply(503, "5.5.1", "DATA cannot follow BDAT in one transaction (RFC 3030 2)")
CHUNK_FAILED = Reply(503, "5.5.1", "An earlier chunk failed; send RSET (RFC 3030 2)")
CHUNK_SYNTAX = Reply(501, "5.5.4", "Syntax: BDAT <size> [LAST]")
TLS_ACTIVE = Reply(503, "5.5.1", "TLS is active already")
TLS_MISSING = Reply(502, "5.5.1", "TLS is not available here")
AUTH_OK = Reply(235, "2.7.0", "Authentication succeeded")
AUTH_FIRST = Reply(530, "5.7.0", "Authentication required")
AUTH_REFUSED = Reply(535, "5.7.8", "User name or password is wrong")
AUTH_ACTIVE = Reply(503, "5.5.1", "You are logged in already")
AUTH_SYNTAX = Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_TOO_LONG = Reply(535, "5.7.8", "The exchange does not end")
AUTH_FAILED_HERE = Reply(454, "4.7.0", "Authentication cannot be checked now, try again later")
NOT_BASE64 = Reply(501, "5.5.2", "That is not base64")
NOT_IN_TRANSACTION = Reply(503, "5.5.1", "Not within a mail transaction")
TLS_FIRST = Reply(538, "5.7.11", "Encryption required: send STARTTLS first")  # RFC 4954 6
TOO_BIG = Reply(552, "5.3.4", "Message is larger than this server accepts")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "An address with non-ASCII characters needs SMTPUTF8 in MAIL (RFC 6531 3.4)")
