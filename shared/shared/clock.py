"""The one clock. Code below the wiring takes times as arguments; tests pass their own."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the current moment as an aware UTC datetime."""

Monotonic = Callable[[], float]
"""Returns seconds that never go back; only differences mean something."""


def utc_now() -> datetime:
    """Return the current moment, aware, in UTC."""
    return datetime.now(UTC)


monotonic: Monotonic = time.monotonic
