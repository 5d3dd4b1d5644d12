"""An HTTP server inside our own event loop, and the frame of a service's process around it."""

import asyncio
import contextlib
import errno
import math
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import FrameType

import uvicorn
import uvloop
from starlette.types import ASGIApp

from shared import log
from shared.errors import ConfigurationError
from shared.web.protocol import BoundedProtocol

EXIT_CONFIGURATION = 2
EXIT_FAILURE = 1

# Requests a process works on at once; more are answered with 503 at once instead of late.
CONCURRENCY_LIMIT = 4096


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals alone: the process has one place that decides what they mean."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Never called, because nothing is captured."""


@dataclass(slots=True)
class RunningServer:
    """A server that listens; ``host`` and ``port`` are what it is bound to."""

    host: str
    port: int
    _server: uvicorn.Server
    _task: asyncio.Task[None]

    @property
    def address(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def stop(self, grace: float) -> None:
        """Listen no more, let requests in flight take ``grace`` seconds, cancel the rest; a second call waits for the first."""
        self._server.config.timeout_graceful_shutdown = max(1, math.ceil(grace))
        self._server.should_exit = True
        await asyncio.shield(self._task)

    async def wait(self) -> None:
        """Wait until the server has stopped; raises what broke it."""
        await asyncio.shield(self._task)


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    setting: str,
    reuse_port: bool = False,
    protocol: type[BoundedProtocol] = BoundedProtocol,
) -> RunningServer:
    """Start serving and return once connections are accepted.

    Args:
        app: the application.
        host: address to listen on.
        port: 0 takes a free one.
        setting: the name of the setting that chose the port, for the error message.
        reuse_port: let several processes listen on the same port (SO_REUSEPORT).
        protocol: holds the limits of a request's head.

    Raises:
        ConfigurationError: the address cannot be listened on; names it and the setting.
    """
    listener = await _listen(host, port, setting=setting, reuse_port=reuse_port)
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONCURRENCY_LIMIT,
        timeout_keep_alive=75,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"http {host}:{port}")
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
    if not server.listening.is_set():
        listening.cancel()
        listener.close()
        await task
    bound = listener.getsockname()
    return RunningServer(bound[0], bound[1], server, task)


async def _listen(host: str, port: int, *, setting: str, reuse_port: bool) -> socket.socket:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:  # the latter for what no resolver takes for a name
        reason = getattr(error, "strerror", None) or "this is no host name"
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {reason}; set {setting} to an address of this machine"
        ) from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = "another process listens there" if error.errno == errno.EADDRINUSE else str(error.strerror).lower()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {reason}; stop it or choose another with {setting}"
        ) from None
    return listener


def run_service(service: str, main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run a service until it ends, and return the exit code for its process.

    SIGTERM and SIGINT set the event that ``main`` gets; a second one changes nothing, because the first is already obeyed.

    Args:
        service: its name in the log until ``main`` configures the log by its settings.
        main: reads its settings, works until the event is set, and cleans up.

    Returns:
        0 after an orderly end; 2 with one line on standard error where a setting is wrong; 1 with a traceback in the log
        after an unexpected error.
    """

    async def with_signals() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    log.configure(service, "info")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(with_signals())
    except ConfigurationError as error:
        sys.stderr.write(f"{service}: {error.message}\n")
        return EXIT_CONFIGURATION
    except Exception as error:  # noqa: BLE001 - the last frame of the process: nothing above could answer it
        log.get(__name__).critical("service_failed", exc_info=error)
        return EXIT_FAILURE
    return 0
