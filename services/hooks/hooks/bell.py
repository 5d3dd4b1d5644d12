"""The doorbell as this process uses it: its own rings reach its own loops at once, with or without a bus."""

import asyncio

from shared.db.transaction import Bell
from shared.events import Subject


class LocalBell:
    """Rings the bus and wakes the loops of this process.

    Args:
        bus: how the other processes hear.
    """

    def __init__(self, bus: Bell) -> None:
        self.events_heard = asyncio.Event()
        self.calls_heard = asyncio.Event()
        self._bus = bus

    def ring(self, subject: Subject, *names: str) -> None:
        """Say that there is something new about ``names``; returns at once, never raises."""
        self._bus.ring(subject, *names)
        if subject is Subject.CALL_DUE:
            self.calls_heard.set()
        elif subject is Subject.EVENT_RECORDED:
            self.events_heard.set()
