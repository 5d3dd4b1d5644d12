"""A scripted SMTP server: real sockets, plain data, and no code shared with what it tests.

In a test: ``async with ScriptedSmtpServer(Script(rcpt={"no@b.test": "550 5.1.1 Unknown"})) as server``. In a test that
is not async: ``with smtp_server_thread(script) as server``. For tests that drive other processes::

    python tests/fakes/smtp_server.py --port 2525 --script '{"rcpt": {"no@b.test": "550 5.1.1 Unknown"}}'

prints one JSON line when it listens and one for each message it takes.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Reply = str
"""A reply as it goes over the wire, without the last CRLF: ``550 5.1.1 Unknown`` or several lines with CRLF between."""

Answer = Reply | list[Reply] | Mapping[str, Reply | list[Reply]] | Callable[[str], Reply | None] | None
"""One reply; a list of them, used in turn and the last for ever; by address (``*`` for the rest); or a function of it."""


@dataclass
class Script:
    """What the server says. None and unknown addresses mean the usual positive reply."""

    greeting: Reply = "220 fake.test ESMTP"
    ehlo: Reply | list[Reply] | None = None
    """Replaces the whole EHLO reply."""
    extensions: list[str] = field(
        default_factory=lambda: ["SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
    )
    pipelining: bool = True
    """Announce PIPELINING. Pipelined commands are answered in any case."""
    helo: Reply = "250 fake.test"
    mail: Answer = None
    rcpt: Answer = None
    data: Answer = None
    message: Answer = None
    """The reply to the end of the content, by DATA or BDAT, by the first recipient."""
    auth: list[Reply] = field(default_factory=list)
    """What is said to AUTH and, after a 334, to each line of the client; what it says is recorded among the commands."""
    rset: Reply = "250 2.0.0 Reset"
    starttls: Reply = "220 2.0.0 Go ahead"
    stall: str | None = None
    """Stage at which it falls silent: connect, ehlo, starttls, auth, mail, rcpt, data, message, rset, quit."""
    drop: str | None = None
    """Stage at which it closes instead of answering; ``content`` closes within the content."""
    drop_after: str | None = None
    """Stage after whose reply it closes."""
    tls: ssl.SSLContext | None = None
    """Announce STARTTLS with this context."""
    implicit_tls: bool = False
    inject: bytes = b""
    """Octets sent right behind the reply to STARTTLS, in plaintext."""


@dataclass
class Message:
    """A message that was taken."""

    mail_from: str
    recipients: list[str]
    content: bytes
    """With CRLF line ends, dots removed."""
    mail_params: list[str]
    tls: bool
    session: int


@dataclass
class Session:
    """What one client did."""

    number: int
    commands: list[str] = field(default_factory=list)
    bursts: int = 0
    """How often the client had to be waited for: round trips as the server sees them."""
    tls: bool = False
    closed: bool = False


class ScriptedSmtpServer:
    """The server; see the module."""

    def __init__(self, script: Script | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script = script or Script()
        self.host = host
        self.port = port
        self.sessions: list[Session] = []
        self.messages: list[Message] = []
        self.on_message: Callable[[Message], None] | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        context = self.script.tls if self.script.implicit_tls else None
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=context, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def wait_for(self, count: int, timeout: float = 20.0) -> list[Message]:
        """Wait until that many messages were taken."""
        await self._until(
            lambda: len(self.messages) >= count, timeout, lambda: f"{len(self.messages)} of {count} messages"
        )
        return self.messages

    async def wait_for_sessions(self, count: int, timeout: float = 20.0, *, closed: bool = False) -> list[Session]:
        """Wait until that many clients have come, or have come and gone."""

        def seen() -> int:
            return sum(1 for session in self.sessions if session.closed or not closed)

        await self._until(lambda: seen() >= count, timeout, lambda: f"{seen()} of {count} sessions")
        return self.sessions

    async def _until(self, condition: Callable[[], bool], timeout: float, what: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"the fake SMTP server saw {what()} within {timeout:g} s") from None

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        session = Session(len(self.sessions) + 1, tls=writer.get_extra_info("ssl_object") is not None)
        self.sessions.append(session)
        await self._notify()
        try:
            await _Client(self, session, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client left; what it did before is recorded
        finally:
            writer.transport.abort() if self.script.drop else writer.close()
            session.closed = True
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, ssl.SSLError):
                await self._notify()

    async def take(self, message: Message) -> None:
        self.messages.append(message)
        if self.on_message is not None:
            self.on_message(message)
        await self._notify()


class _DropError(ConnectionError):
    """The script says to close here."""


class _Client:
    def __init__(
        self, server: ScriptedSmtpServer, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.script = server.script
        self.session = session
        self.reader = reader
        self.writer = writer
        self.used: dict[tuple[str, str], int] = {}
        self.mail_from: str | None = None
        self.mail_params: list[str] = []
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self.reply("connect", self.script.greeting)
        while line := await self.line():
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self.session.commands.append(text)
            if not await self.command(text):
                return

    async def line(self) -> bytes:
        if b"\n" not in self.reader._buffer:  # type: ignore[attr-defined]  # the only way to count round trips
            self.session.bursts += 1
        return await self.reader.readline()

    async def command(self, text: str) -> bool:
        verb, _, argument = text.partition(" ")
        match verb.upper():
            case "EHLO":
                await self.reply("ehlo", self.turn("ehlo", "", self.script.ehlo) or self.ehlo_reply())
            case "HELO":
                await self.reply("ehlo", self.script.helo)
            case "MAIL":
                await self.mail(argument)
            case "RCPT":
                await self.rcpt(argument)
            case "DATA":
                await self.data()
            case "BDAT" if "CHUNKING" in self.script.extensions:
                await self.chunk(argument)
            case "AUTH" if self.script.auth:
                await self.auth()
            case "RSET":
                self.mail_from, self.recipients = None, []
                await self.reply("rset", self.script.rset)
            case "STARTTLS" if self.script.tls is not None:
                await self.starttls(self.script.tls)
            case "QUIT":
                await self.reply("quit", "221 2.0.0 Bye")
                return False
            case "NOOP":
                await self.reply("noop", "250 2.0.0 OK")
            case _:
                await self.reply("other", "502 5.5.1 Not implemented")
        return True

    def ehlo_reply(self) -> Reply:
        lines = ["fake.test", *self.script.extensions, *["PIPELINING"] * self.script.pipelining]
        if self.script.tls is not None and not self.session.tls:
            lines.append("STARTTLS")
        return "\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines)

    async def mail(self, argument: str) -> None:
        path, params = _path(argument)
        reply = self.turn("mail", path, self.script.mail) or "250 2.1.0 OK"
        if reply.startswith("2"):
            self.mail_from, self.mail_params, self.recipients = path, params, []
        await self.reply("mail", reply)

    async def rcpt(self, argument: str) -> None:
        path, _ = _path(argument)
        reply = self.turn("rcpt", path, self.script.rcpt) or (
            "250 2.1.5 OK" if self.mail_from is not None else "503 5.5.1 MAIL first"
        )
        if reply.startswith("2"):
            self.recipients.append(path)
        await self.reply("rcpt", reply)

    async def data(self) -> None:
        usual = "354 Go ahead" if self.recipients else "503 5.5.1 No valid recipients"
        reply = self.turn("data", self.recipients[0] if self.recipients else "", self.script.data) or usual
        await self.reply("data", reply)
        if not reply.startswith("354"):
            return
        lines = []
        while (line := await self.line()) != b".\r\n":
            if not line or self.script.drop == "content":
                raise _DropError
            lines.append(line[1:] if line.startswith(b".") else line)
        await self.message(b"".join(lines), "554 5.5.1 No recipients")

    async def chunk(self, argument: str) -> None:
        """BDAT of the whole content (RFC 3030); the octets are read in any case."""
        content = await self.reader.readexactly(int(argument.removesuffix(" LAST")))
        if self.script.drop == "content":
            raise _DropError
        await self.message(content, "503 5.5.1 No valid recipients")

    async def message(self, content: bytes, nobody: Reply) -> None:
        first = self.recipients[0] if self.recipients else ""
        reply = self.turn("message", first, self.script.message) or ("250 2.0.0 Taken" if self.recipients else nobody)
        message = Message(
            self.mail_from or "",
            self.recipients,
            content,
            self.mail_params,
            self.session.tls,
            self.session.number,
        )
        self.mail_from, self.recipients = None, []
        if reply.startswith("2") and self.script.drop != "message" and self.script.stall != "message":
            await self.server.take(message)
        await self.reply("message", reply)

    async def auth(self) -> None:
        for reply in self.script.auth:
            await self.reply("auth", reply)
            if not reply.startswith("334"):
                return
            self.session.commands.append((await self.line()).decode().rstrip("\r\n"))

    async def starttls(self, context: ssl.SSLContext) -> None:
        reply = self.script.starttls
        await self.reply("starttls", reply, self.script.inject)
        if not reply.startswith("220"):
            return
        # StreamWriter.start_tls of Python 3.11 suits a server.
        await self.writer.start_tls(context)
        self.session.tls = True
        self.mail_from, self.recipients = None, []

    def turn(self, stage: str, key: str, answer: Answer) -> Reply | None:
        """Choose the reply whose turn it is."""
        if callable(answer):
            return answer(key)
        if isinstance(answer, Mapping):
            answer = answer.get(key, answer.get("*"))
        if isinstance(answer, list):
            number = self.server_turn(stage, key)
            answer = answer[min(number, len(answer) - 1)]
        return answer

    def server_turn(self, stage: str, key: str) -> int:
        turns = self.server.__dict__.setdefault("turns", {})
        number = turns.get((stage, key), 0)
        turns[stage, key] = number + 1
        return int(number)

    async def reply(self, stage: str, reply: Reply, behind: bytes = b"") -> None:
        if self.script.drop == stage:
            raise _DropError
        if self.script.stall == stage:
            await self.reader.read()  # until the client gives up
            raise _DropError
        self.writer.write(reply.encode("utf-8", "surrogateescape") + b"\r\n" + behind)
        await self.writer.drain()
        if self.script.drop_after == stage:
            raise _DropError


def _path(argument: str) -> tuple[str, list[str]]:
    """Split ``FROM:<path> A=b C`` into path and parameters."""
    path, _, params = argument.partition(":")[2].strip().removeprefix("<").partition(">")
    return path, params.split()


@contextlib.contextmanager
def smtp_server_thread(script: Script | None = None, port: int = 0) -> Iterator[ScriptedSmtpServer]:
    """Run the server in a thread of its own, for tests that are not async."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-smtp", daemon=True)
    thread.start()

    async def start() -> ScriptedSmtpServer:
        return await ScriptedSmtpServer(script, port=port).__aenter__()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _as_json(message: Message) -> dict[str, Any]:
    return {
        "event": "message",
        "mail_from": message.mail_from,
        "recipients": message.recipients,
        "content_base64": base64.b64encode(message.content).decode(),
        "tls": message.tls,
        "session": message.session,
    }


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _main(options: argparse.Namespace) -> None:
    server = ScriptedSmtpServer(Script(**json.loads(options.script)), options.host, options.port)
    server.on_message = lambda message: _print(_as_json(message))
    async with server:
        _print({"event": "listening", "host": server.host, "port": server.port})
        await asyncio.Event().wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="{}", help="fields of Script as a JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(_options()))
