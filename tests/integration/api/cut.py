"""A connection to Postgres that can be cut where it hurts: around a COMMIT."""

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

Cut = Literal["before commit", "after commit"]


class CuttablePostgres:
    """Forwards a Unix socket to a Postgres.

    ``url`` is as the one given, by way of here. ``cut`` cuts the next connection that commits: before the COMMIT gets
    through, or after Postgres has answered it and before anyone hears. ``down`` refuses new connections and cuts those that
    are, at their next word.
    """

    def __init__(self, url: str) -> None:
        [folder] = parse_qs(urlsplit(url).query)["host"]
        self._target = f"{folder}/.s.PGSQL.5432"
        self._folder = tempfile.mkdtemp(prefix="cut")
        self.url = url.replace(folder, self._folder)
        self.cut: Cut | None = None
        self.down = False
        self.then_down = False
        """Whether Postgres is to be down from the cut on."""
        self.cuts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, f"{self._folder}/.s.PGSQL.5432")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, Path(self._folder))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self.down:
                await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_unix_connection(self._target)
        back = asyncio.create_task(self._copy(their_reader, writer))
        try:
            while data := await reader.read(65536):
                if self.down:
                    return
                if self.cut is not None and b"COMMIT;" in data:
                    mode, self.cut = self.cut, None
                    self.cuts += 1
                    if mode == "after commit":
                        back.cancel()
                        await asyncio.gather(back, return_exceptions=True)
                        their_writer.write(data)
                        answer = b""
                        while b"COMMIT\x00" not in answer:  # CommandComplete
                            answer += await their_reader.read(65536)
                    self.down = self.then_down
                    return
                their_writer.write(data)
                await their_writer.drain()
        except OSError:
            return
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            their_writer.close()
            with contextlib.suppress(OSError):
                await their_writer.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()  # Postgres has said goodbye
