"""Answers by question until their time is over, bounded in number; the oldest entry goes first."""

from typing import Generic, TypeVar

from shared.clock import Monotonic, monotonic

K = TypeVar("K")
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """A dict whose entries expire. A hit costs one lookup and one comparison."""

    __slots__ = ("_capacity", "_clock", "_entries")

    def __init__(self, capacity: int, clock: Monotonic = monotonic) -> None:
        """Take how many entries to keep at most."""
        self._capacity, self._clock = capacity, clock
        self._entries: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what was put under the key if it has not expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        until, value = entry
        if until <= self._clock():
            del self._entries[key]
            return None
        return value

    def put(self, key: K, value: V, seconds: float) -> None:
        """Keep a value for some seconds; without any, not at all."""
        self._entries.pop(key, None)
        if seconds <= 0:
            return
        while len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + seconds, value)
