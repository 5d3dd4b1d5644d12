"""The other side of the world: a small SMTP server (RFC 5321) that takes mail for some mailboxes and refuses others."""

import contextlib
import re
import socketserver
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

HOSTNAME = "mx.customer.example"

_LONGEST_LINE = 4_096
_LARGEST_MAIL = 8 * 1024 * 1024
_IDLE_SECONDS = 120
_PATH = re.compile(rb"(?:FROM|TO):\s*<([^<>\s]*)>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was taken."""

    mail_from: str
    recipient: str
    content: bytes
    """With CRLF line ends, the added dots removed."""
    reply: str


@dataclass(slots=True)
class Seen:
    """What the server saw so far."""

    connections: int = 0
    transactions: int = 0
    """MAIL commands."""
    mails: list[Mail] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    """Reply by refused recipient."""


class Remote:
    """The server, on a free port of loopback; a context manager."""

    def __init__(self, unknown: frozenset[str]) -> None:
        """Take the addresses that it has no mailbox for."""
        self.unknown, self.seen = unknown, Seen()
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.remote = self

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        """Serve from now on."""
        threading.Thread(target=self._server.serve_forever, name="demo-remote", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no further connections."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    remote: Remote

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what the demo misses, it says itself."""


class _Session(socketserver.StreamRequestHandler):
    timeout = _IDLE_SECONDS
    server: _Server

    def handle(self) -> None:
        """Serve one connection; RFC 5321 4.1.4 has the order of the commands."""
        remote = self.server.remote
        remote.seen.connections += 1
        self._mail_from: str | None = None
        self._recipients: list[str] = []
        with contextlib.suppress(OSError):  # it left, or was silent for too long
            self._reply(f"220 {HOSTNAME} ESMTP")
            while (line := self.rfile.readline(_LONGEST_LINE)).endswith(b"\n"):
                if not self._command(line.strip()):
                    return

    def _command(self, line: bytes) -> bool:
        """Answer one command; return whether the session goes on."""
        verb = line[:4].upper()
        if verb in (b"EHLO", b"HELO"):
            self._reset()
            extensions = ("PIPELINING", "8BITMIME", "SMTPUTF8", f"SIZE {_LARGEST_MAIL}", "ENHANCEDSTATUSCODES")
            texts = (HOSTNAME, *extensions) if verb == b"EHLO" else (HOSTNAME,)
            self._reply("\r\n".join(f"250{' ' if text is texts[-1] else '-'}{text}" for text in texts))
        elif verb == b"MAIL":
            self._mail(line)
        elif verb == b"RCPT":
            self._rcpt(line)
        elif verb == b"DATA":
            return self._data()
        elif verb in (b"RSET", b"NOOP"):
            if verb == b"RSET":
                self._reset()
            self._reply("250 2.0.0 Ok")
        elif verb == b"QUIT":
            self._reply("221 2.0.0 Bye")
            return False
        else:
            self._reply("500 5.5.2 This command is not known here")
        return True

    def _mail(self, line: bytes) -> None:
        path = _PATH.search(line)
        if path is None:
            self._reply("501 5.5.4 MAIL FROM:<address>")
            return
        self._reset()
        self.server.remote.seen.transactions += 1
        self._mail_from = path[1].decode("utf-8", "replace")
        self._reply("250 2.1.0 Ok")

    def _rcpt(self, line: bytes) -> None:
        path = _PATH.search(line)
        if self._mail_from is None or path is None or not path[1]:
            self._reply("503 5.5.1 MAIL first, then RCPT TO:<address>")
            return
        recipient = path[1].decode("utf-8", "replace")
        if recipient in self.server.remote.unknown:
            refusal = f"550 5.1.1 <{recipient}> has no mailbox here"
            self.server.remote.seen.refusals[recipient] = refusal
            self._reply(refusal)
            return
        self._recipients.append(recipient)
        self._reply("250 2.1.5 Ok")

    def _data(self) -> bool:
        if not self._recipients or self._mail_from is None:
            self._reply("503 5.5.1 No valid recipients")  # RFC 5321 3.3
            return True
        self._reply("354 End with a line that is only a full stop")
        lines: list[bytes] = []
        size = 0
        while (line := self.rfile.readline(_LONGEST_LINE)) != b".\r\n":
            size += len(line)
            if not line.endswith(b"\r\n") or size > _LARGEST_MAIL:
                return False
            # RFC 5321 4.5.2
            lines.append(line.removeprefix(b"."))
        seen = self.server.remote.seen
        reply = f"250 2.0.0 Ok: taken as {len(seen.mails) + 1:04d}"
        seen.mails += [Mail(self._mail_from, recipient, b"".join(lines), reply) for recipient in self._recipients]
        self._reset()
        self._reply(reply)
        return True

    def _reset(self) -> None:
        self._mail_from, self._recipients = None, []

    def _reply(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")
