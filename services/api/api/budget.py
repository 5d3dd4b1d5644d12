"""How many bytes of requests a process holds at once: beyond it, an answer now is better than no memory later."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import Overloaded


class ByteBudget:
    """Counts bytes in hand. Not shared between event loops."""

    def __init__(self, limit: int) -> None:
        """Take the number of bytes that may be held."""
        self._limit = limit
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes in hand."""
        return self._held

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Begin with nothing; what was taken is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._held -= share.taken

    def _take(self, count: int) -> None:
        # A single request larger than the whole budget passes when it is alone: the limit on requests is another setting.
        if self._held and self._held + count > self._limit:
            raise Overloaded("this process has as many requests in hand as it takes; try again in a moment")
        self._held += count


class Share:
    """One request's part of the budget."""

    __slots__ = ("_budget", "taken")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.taken = 0

    def reach(self, total: int) -> None:
        """Hold ``total`` bytes, taking what is missing.

        Raises:
            Overloaded: the process holds as much as it may.
        """
        if total > self.taken:
            self._budget._take(total - self.taken)  # noqa: SLF001 - the two classes are one thing
            self.taken = total
