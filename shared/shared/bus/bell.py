"""Ringing and listening over NATS, at most one ring per subject every 5 ms."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable

import nats
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.clock import monotonic, utc_now
from shared.events import Subject

_COALESCE_SECONDS = 0.005
_MAX_NAMES = 500
"""Names in one ring at most; a ring without names means "look everywhere"."""
_RETRY_SECONDS = 1.0

Heard = Callable[[tuple[str, ...]], None]
"""Receives the names of a ring; empty where everything should be looked at."""

_log = structlog.get_logger(__name__)


class Bus:
    """One process's connection to the doorbell. Without a URL it is mute, and everybody polls."""

    def __init__(self, url: str | None, *, name: str) -> None:
        self._url = url
        self._name = name
        self._client: Client | None = None
        self._listeners: list[tuple[Subject, str | None, Heard]] = []
        self._pending: dict[Subject, set[str] | None] = {}
        self._last_rung: dict[Subject, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = ""

    @property
    def connected(self) -> bool:
        """Whether rings get through right now."""
        return self._client is not None and self._client.is_connected

    @property
    def configured(self) -> bool:
        """Whether there is a NATS to connect to at all."""
        return self._url is not None

    def listen(self, subject: Subject, heard: Heard, *, group: str | None = None) -> None:
        """Call ``heard`` for each ring on ``subject``; with ``group``, one member of the group hears each. Before :meth:`start`."""
        self._listeners.append((subject, group, heard))

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._url is not None:
            self._spawn(self._connect(self._url))

    def ring(self, subject: Subject, *names: str) -> None:
        """Say that there is something new about ``names``; returns at once, never raises."""
        if not self.connected:
            return
        waiting = subject in self._pending
        known = self._pending.setdefault(subject, set())
        if known is not None:
            known.update(names)
            if not names or len(known) > _MAX_NAMES:
                self._pending[subject] = None
        if not waiting:
            loop = asyncio.get_running_loop()
            since = monotonic() - self._last_rung.get(subject, float("-inf"))
            if since >= _COALESCE_SECONDS:
                loop.call_soon(self._publish, subject)
            else:
                loop.call_later(_COALESCE_SECONDS - since, self._publish, subject)

    async def close(self) -> None:
        """Send what is pending and disconnect."""
        if self.connected and self._client is not None:
            for subject in list(self._pending):
                self._publish(subject)
            await asyncio.sleep(0)  # lets the publishing tasks hand their bytes to the client before it flushes
            with contextlib.suppress(Exception):  # the bell may be lost; the work it announced is in the database
                await self._client.flush(timeout=1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            with contextlib.suppress(Exception):  # as above: nothing depends on a clean goodbye
                await self._client.close()

    def _publish(self, subject: Subject) -> None:
        if subject not in self._pending:
            return
        names = self._pending.pop(subject)
        self._last_rung[subject] = monotonic()
        payload = orjson.dumps({"names": sorted(names or ()), "at": utc_now()})
        if self._client is not None and self._client.is_connected:
            self._spawn(self._send(self._client, subject, payload))

    async def _send(self, client: Client, subject: Subject, payload: bytes) -> None:
        try:
            await client.publish(subject.value, payload)
        except (nats.errors.Error, OSError) as error:
            _log.debug("ring_lost", subject=subject.value, error=type(error).__name__)

    async def _connect(self, url: str) -> None:
        while True:
            try:
                client = await nats.connect(
                    url,
                    name=self._name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RETRY_SECONDS,
                    connect_timeout=5,
                    ping_interval=20,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                )
            except (nats.errors.Error, OSError, TimeoutError) as error:
                await self._on_error(error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for subject, group, heard in self._listeners:
                await client.subscribe(subject.value, queue=group or "", cb=_hearer(heard))
            self._client = client
            self._complained = ""
            _log.info("bus_connected")
            self._everyone_look()
            return

    def _everyone_look(self) -> None:
        for _, _, heard in self._listeners:  # rings were missed while we were away
            heard(())

    async def _on_error(self, error: Exception) -> None:
        if (
            self._complained != type(error).__name__
        ):  # once per kind and outage: a server that is down says so every second
            self._complained = type(error).__name__
            _log.warning(
                "bus_unavailable", error=type(error).__name__, detail=str(error)[:200], consequence="polling only"
            )

    async def _on_disconnected(self) -> None:
        _log.warning("bus_disconnected", consequence="polling only")

    async def _on_reconnected(self) -> None:
        self._complained = ""
        _log.info("bus_reconnected")
        self._everyone_look()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _hearer(heard: Heard) -> Callable[[Msg], Awaitable[None]]:
    async def hear(message: Msg) -> None:
        heard(_names(message.data))

    return hear


def _names(payload: bytes) -> tuple[str, ...]:
    try:
        content = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return ()
    names: Iterable[object] = content.get("names", ()) if isinstance(content, dict) else ()
    return tuple(name for name in names if isinstance(name, str))
