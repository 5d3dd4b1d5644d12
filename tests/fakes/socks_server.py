"""A SOCKS5 proxy for tests (RFC 1928, RFC 1929): real sockets that lead where the client asks, and no code shared with what it tests."""

import asyncio
import contextlib
import ipaddress
import socket
import struct
from dataclasses import dataclass, field
from typing import Self


@dataclass
class SocksServer:
    """``login`` is the user name and password that it wants; ``status`` other than 0 is answered instead of a connection."""

    login: tuple[str, str] | None = None
    status: int = 0
    greeting: bytes | None = None
    """Sent instead of its choice of a method."""
    bound: bytes = b"\x01\x7f\x00\x00\x01\x00\x00"
    """Type, address and port in its answer to a request."""
    silent: bool = False
    requests: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if await self._greeted(reader, writer):
                await self._connect(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            writer.close()

    async def _greeted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        version, count = await reader.readexactly(2)
        assert version == 5
        methods = await reader.readexactly(count)
        if self.silent:
            await reader.read()
            return False
        if self.greeting is not None:
            writer.write(self.greeting)
            return False
        wanted = 2 if self.login else 0
        writer.write(bytes([5, wanted if wanted in methods else 0xFF]))
        if wanted not in methods:
            return False
        if self.login is None:
            return True
        _, length = await reader.readexactly(2)
        user = await reader.readexactly(length)
        password = await reader.readexactly((await reader.readexactly(1))[0])
        good = (user.decode(), password.decode()) == self.login
        writer.write(bytes([1, 0 if good else 1]))
        return good

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, command, _, kind = await reader.readexactly(4)
        assert (version, command) == (5, 1)
        assert kind in {1, 4}, "addresses only: a name would be looked up again"
        address = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        self.requests.append((address, port))
        if self.status:
            writer.write(bytes([5, self.status, 0]) + self.bound)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(address, port)
        except OSError:
            writer.write(bytes([5, 5, 0]) + self.bound)
            return
        sock = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # In pieces: the answer need not come as one.
        for octet in bytes([5, 0, 0]) + self.bound:
            writer.write(bytes([octet]))
            await writer.drain()
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
