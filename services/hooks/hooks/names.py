"""Host names to addresses as the system does it (hosts file, resolver), without letting one dead name hold up the others."""

import asyncio
import contextlib
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from shared.clock import Monotonic, monotonic

REMEMBERED_SECONDS = 5.0
"""How long an answer is used again; each use is checked by the outbound policy."""
_REMEMBERED_NAMES = 10_000

Answers = tuple[str, ...]


def ask_system(host: str) -> Answers:
    """Return the addresses of a name in the system's order of preference; blocks.

    Raises:
        OSError: it has none, or nobody could say (``socket.gaierror``).
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class Names:
    """The resolver of a process's calls.

    Each name that is asked for has a thread of its own while it lasts. Not the event loop's executor: its few threads are
    shared, a dead name keeps one for half a minute, and a process waits for them all before it ends.

    Args:
        ask: looks a name up, blocking.
        clock: ages what is remembered.
    """

    def __init__(self, ask: Callable[[str], Answers] = ask_system, clock: Monotonic = monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Answers]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[Answers]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of a name.

        Raises:
            OSError: it has none, or nobody could say.
        """
        known = self._known.get(host)
        if known is not None and self._clock() - known[0] < REMEMBERED_SECONDS:
            return known[1]
        waiting = self._asking.get(host)
        if waiting is None:
            waiting = self._begin(host)
        return await asyncio.shield(waiting)  # others may wait for the same answer

    def _begin(self, host: str) -> "asyncio.Future[Answers]":
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answers] = loop.create_future()
        self._asking[host] = waiting

        def ask() -> None:
            try:
                found: Answers | OSError = self._ask(host)
            except OSError as error:
                found = error
            except UnicodeError:  # a label that the idna codec of the socket module refuses
                found = OSError(f"{host} is no host name")
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
                loop.call_soon_threadsafe(self._answered, host, found)

        threading.Thread(target=ask, name=f"name {host}", daemon=True).start()
        return waiting

    def _answered(self, host: str, found: Answers | OSError) -> None:
        waiting = self._asking.pop(host)
        if isinstance(found, OSError):
            waiting.set_exception(found)
            waiting.exception()  # marked as seen: whoever asked may have given up waiting
            return
        waiting.set_result(found)
        self._known[host] = (self._clock(), found)
        self._known.move_to_end(host)
        if len(self._known) > _REMEMBERED_NAMES:
            self._known.popitem(last=False)
