"""A long line in front of a server: what the server says arrives only when the client has said all it can, and is counted."""

import asyncio
from typing import Self

_QUIET_TURNS = 30
"""Turns of the event loop without an octet on either side, after which nobody has anything to say; all of them share this loop."""


class LongLine:
    """Relays one connection after the other to a port of this host and counts the round trips, whatever time they take."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.round_trips = 0
        """Times the client had to wait for the other end, the greeting included."""
        self._server_port = port
        self._moved = 0
        self._held = bytearray()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
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
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._out(reader, far_writer))
                group.create_task(self._back(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    async def _out(self, reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self._moved += len(data)
            far_writer.write(data)
        far_writer.write_eof()

    async def _back(self, far_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await far_reader.read(65_536):
            self._moved += len(data)
            self._held += data
            if len(self._held) == len(data):
                asyncio.get_running_loop().call_soon(self._release, writer, self._moved, _QUIET_TURNS)

    def _release(self, writer: asyncio.StreamWriter, moved: int, turns: int) -> None:
        if turns and not writer.is_closing():
            turns = _QUIET_TURNS if moved != self._moved else turns - 1
            asyncio.get_running_loop().call_soon(self._release, writer, self._moved, turns)
            return
        self.round_trips += 1
        writer.write(bytes(self._held))
        self._held.clear()
