"""A real HTTP server that receives webhooks and answers by script: slow, wrong, broken or down.

In a test::

    async with WebhookReceiver([Behaviour(status=500), Behaviour()]) as receiver:
        ...  # receiver.url
        await receiver.wait_for(2)

As a process: ``python tests/fakes/webhook_receiver.py --port 0 --status 500,200`` prints one JSON object per line: first
where it listens, then each request.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Received:
    """One request; header names in lower case."""

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered.

    Attributes:
        status, headers, body: the answer.
        delay: seconds before it.
        close: end the connection after the answer and say so.
        silent_close: end the connection after the answer without saying so, as after an idle limit.
        drop: end it "before" the answer, in its "head" or in its "body".
        raw: sent instead of an answer, then the connection ends.
        endless: a body that does not end, chunked.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay: float = 0.0
    close: bool = False
    silent_close: bool = False
    drop: Literal["before", "head", "body"] | None = None
    raw: bytes | None = None
    endless: bool = False


Script = Sequence[Behaviour] | Callable[[Received], Behaviour]


@dataclass(slots=True)
class WebhookReceiver:
    """Behaviours are used up in order and the last one stays; or a function chooses by request."""

    script: Script = (Behaviour(),)
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    on_request: Callable[[Received], None] | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}/hook"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.drop_connections()
        await asyncio.gather(*self._handlers)

    def drop_connections(self) -> None:
        """End every connection at once, also those that idle."""
        for writer in list(self._open):
            writer.transport.abort()

    async def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """Wait until this many requests have come, and return all."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return list(self.requests)

    async def wait_until_closed(self, timeout: float = 10.0) -> None:
        """Wait until no connection is open."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: not self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self._open.add(writer)
        self.connections += 1
        number = self.connections
        try:
            while (request := await self._read(reader, number)) is not None:
                async with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                if self.on_request is not None:
                    self.on_request(request)
                if not await self._answer(reader, writer, self._behaviour(request)):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            self._open.discard(writer)
            self._handlers.discard(task)
            async with self._arrived:
                self._arrived.notify_all()

    def _behaviour(self, request: Received) -> Behaviour:
        if callable(self.script):
            return self.script(request)
        return self.script[min(request.number, len(self.script)) - 1]

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Received | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(len(self.requests) + 1, connection, method, path, headers, body)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behaviour: Behaviour) -> bool:
        """Answer as told; returns whether the connection goes on."""
        if behaviour.delay:
            # A caller sends nothing while it waits, so what can be read now is that it has gone.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), behaviour.delay)
                return False
        if behaviour.drop == "before":
            return False
        if behaviour.raw is not None:
            writer.write(behaviour.raw)
            await writer.drain()
            return False
        framing = (
            ("Transfer-Encoding", "chunked") if behaviour.endless else ("Content-Length", str(len(behaviour.body)))
        )
        fields = [framing, *behaviour.headers, *([("Connection", "close")] if behaviour.close else [])]
        head = (
            f"HTTP/1.1 {behaviour.status} Scripted\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in fields)
            + "\r\n"
        )
        if behaviour.drop == "head":
            writer.write(head[:20].encode("latin-1"))
            await writer.drain()
            return False
        writer.write(head.encode("latin-1"))
        if behaviour.drop == "body":
            writer.write(behaviour.body[:-1])
            await writer.drain()
            return False
        while behaviour.endless:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()
        writer.write(behaviour.body)
        await writer.drain()
        return not (behaviour.close or behaviour.silent_close)


def as_json(request: Received) -> str:
    """Return a request as one line; the body as text where it is UTF-8, else in base64."""
    try:
        body = {"body": request.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(request.body).decode()}
    return json.dumps(
        {
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "connection": request.connection,
            **body,
        }
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--status", default="200", help="statuses in order, separated by commas; the last one stays")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    script = [Behaviour(status=int(status), delay=options.delay) for status in options.status.split(",")]
    show = lambda request: print(as_json(request), flush=True)  # noqa: E731, T201 - its output is its purpose
    async with WebhookReceiver(script, options.host, options.port, on_request=show) as receiver:
        print(json.dumps({"url": receiver.url}), flush=True)  # noqa: T201 - its output is its purpose
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
