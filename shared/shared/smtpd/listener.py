"""The listener: accepts connections within limits, and stops without dropping a message."""

import asyncio
import contextlib
import errno
import ipaddress
from collections import Counter
from typing import cast

import structlog

from shared.errors import ConfigurationError
from shared.smtpd.config import SmtpdConfig
from shared.smtpd.conversation import Conversation
from shared.smtpd.reply import TOO_MANY_FROM_YOU, TOO_MANY_SESSIONS, Reply
from shared.smtpd.session import Handler, Session, tls_facts
from shared.smtpd.transaction import Memory
from shared.smtpd.wire import Wire

log = structlog.get_logger()

_REFUSALS_AT_ONCE = 100
_LAST_WORDS_SECONDS = 1.0


class Listener:
    """One listening address with its connections; :func:`serve` makes it."""

    def __init__(self, config: SmtpdConfig, handler: Handler) -> None:
        self._config = config
        self._handler = handler
        self._memory = Memory(config.memory_limit)
        self._server: asyncio.Server | None = None
        self._conversations: dict[Wire, Conversation] = {}
        self._tasks: dict[Wire, asyncio.Task[None]] = {}
        self._wires: set[Wire] = set()
        self._gone = asyncio.Event()
        self._refusals = 0
        self._per_client: Counter[str] = Counter()
        self._number = 0

    @property
    def port(self) -> int:
        """The port listened on; the one given unless that was 0."""
        return self.address[1]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port listened on."""
        if self._server is None or not self._server.sockets:
            raise ConfigurationError("the SMTP listener is not listening")
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    @property
    def sessions(self) -> int:
        """Connections being served."""
        return len(self._conversations)

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            ConfigurationError: the address cannot be listened on; says which and why.
        """
        config = self._config
        context = config.tls if config.implicit_tls else None
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Wire(self._opened, self._closed, config.half_close_timeout),
                host,
                port,
                ssl=context,
                ssl_handshake_timeout=config.tls_timeout if context is not None else None,
                reuse_port=config.reuse_port or None,
                backlog=1_000,
            )
        except OSError as error:
            why = "the port is in use by another program" if error.errno == errno.EADDRINUSE else str(error)
            raise ConfigurationError(f"cannot listen for SMTP on {host}:{port}: {why}") from error

    async def close(self, grace: float) -> None:
        """Stop listening, tell idle peers 421, let open transactions finish for ``grace`` seconds, then cut them off."""
        if self._server is not None:
            self._server.close()
        for conversation in list(self._conversations.values()):
            conversation.close_when_idle()
        tasks = set(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                log.warning("smtpd.cut_off", sessions=len(late))
                await asyncio.wait(late)
        if self._wires:
            self._gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), _LAST_WORDS_SECONDS)
        for wire in list(self._wires):
            wire.abort()

    def _opened(self, wire: Wire) -> None:
        self._number += 1
        self._wires.add(wire)
        session = _session(wire, self._number)
        conversation = Conversation(wire, session, self._handler, self._config, self._memory)
        client = _client(session.peer_ip)
        refusal = self._refusal(client)
        metrics = self._config.metrics
        if refusal is None:
            self._per_client[client] += 1
            self._conversations[wire] = conversation
            if metrics is not None:
                metrics.served()
            work = conversation.run()
        else:
            turned_away = self._refusals < _REFUSALS_AT_ONCE
            if metrics is not None:
                metrics.refused("turned_away" if turned_away else "dropped")
            if not turned_away:
                wire.abort()
                return
            self._refusals += 1
            work = conversation.refuse(refusal)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[wire] = task
        task.add_done_callback(lambda done: self._done(wire, client, done))

    def _refusal(self, client: str) -> Reply | None:
        if len(self._conversations) >= self._config.session_limit:
            return TOO_MANY_SESSIONS
        if self._per_client[client] >= self._config.per_ip_limit:
            return TOO_MANY_FROM_YOU
        return None

    def _done(self, wire: Wire, client: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(wire, None)
        if self._conversations.pop(wire, None) is None:
            self._refusals -= 1
        else:
            self._per_client[client] -= 1
            if self._per_client[client] <= 0:
                del self._per_client[client]
            if self._config.metrics is not None:
                self._config.metrics.ended()
        if not task.cancelled() and task.exception() is not None:
            log.error("smtpd.session_failed", exc_info=task.exception())
            wire.abort()

    def _closed(self, wire: Wire) -> None:
        # The peer will not see a reply any more and sends again: what still runs for it is given up.
        task = self._tasks.get(wire)
        if task is not None:
            task.cancel()
        self._wires.discard(wire)
        if not self._wires:
            self._gone.set()


async def serve(config: SmtpdConfig, handler: Handler, host: str, port: int) -> Listener:
    """Listen on ``host:port`` (0 takes a free port) in the running loop, asyncio's or uvloop's.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    listener = Listener(config, handler)
    await listener.start(host, port)
    return listener


def _session(wire: Wire, number: int) -> Session:
    peer = cast("tuple[str, int] | None", wire.transport.get_extra_info("peername")) or ("", 0)
    local = cast("tuple[str, int] | None", wire.transport.get_extra_info("sockname")) or ("", 0)
    return Session(number, _plain(peer[0]), peer[1], _plain(local[0]), local[1], tls=tls_facts(wire))


def _plain(ip: str) -> str:
    """Write an IPv4 client of an IPv6 socket as IPv4, without the zone."""
    return ip.removeprefix("::ffff:").partition("%")[0]


def _client(ip: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 that an IPv6 host commands."""
    if ":" not in ip:
        return ip
    return str(ipaddress.IPv6Network((ip, 64), strict=False))
