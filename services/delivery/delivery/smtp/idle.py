"""Sessions between two mails: kept for whoever next wants the same server, and ended when for a while nobody does."""

import asyncio
from collections.abc import Hashable

from delivery.smtp.session import Session


class IdleSessions:
    """Keeps one idle session for each key, so that a server sees no more connections than it did while they worked.

    Args:
        seconds: how long one is kept; none is where it is 0.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Hashable, tuple[Session, asyncio.TimerHandle]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def keep(self, key: Hashable, session: Session) -> bool:
        """Keep a session if it can be of use; False where the caller must end it.

        Args:
            key: all that makes one session as good as another: destination, TLS policy, source address, login.
            session: nobody else holds it any more.
        """
        if self._seconds <= 0 or not session.usable:
            return False
        if key in self._kept:
            if self._kept[key][0].usable:
                return False
            self._let_go(key)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._let_go, key)
        self._kept[key] = session, timer
        return True

    def take(self, key: Hashable) -> Session | None:
        """Return a session to go on with, None where there is none; the server may have ended it in the meantime."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        session, timer = kept
        if not session.usable:
            self._let_go(key)
            return None
        timer.cancel()
        del self._kept[key]
        return session

    async def close(self) -> None:
        """End all of them, and wait until that is done."""
        self._seconds = 0
        for key in list(self._kept):
            self._let_go(key)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _let_go(self, key: Hashable) -> None:
        session, timer = self._kept.pop(key)
        timer.cancel()
        task = asyncio.get_running_loop().create_task(session.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
