"""How often a client may fail to log in: per address and per network around it, in windows of a minute and of a day.

Each process counts for itself, and forgets when it ends. What is counted are wrong credentials only; a request without any costs
nothing. A success takes back what the same address failed before, so that a person who mistypes is not locked out for the day.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shared.clock import Clock, utc_now

_PREFIXES = {4: (32, 26, 21), 6: (64, 48, 32)}
"""Address classes, the narrowest first: one host, its neighbours, its provider's block."""
_LIMITS = ((60, (10, 30, 90)), (24 * 3600, (50, 150, 450)))
"""Seconds of a window, and the failures that each class may have in it."""
_MOST_REMEMBERED = 100_000
"""Networks per window and class; beyond it the oldest are forgotten, while the wider classes still count them."""

Classes = tuple[str, str, str]


@dataclass(slots=True)
class _Window:
    seconds: int
    limits: Sequence[int]
    number: int = 0
    counts: tuple[dict[str, int], ...] = field(default_factory=lambda: ({}, {}, {}))


class FailureLimiter:
    """Counts failed logins by address class. Not shared between event loops."""

    def __init__(self, *, now: Clock = utc_now) -> None:
        """Take the clock that the windows are aligned to."""
        self._now = now
        self._windows = tuple(_Window(seconds, limits) for seconds, limits in _LIMITS)

    def may_try(self, remote: str) -> bool:
        """Say whether one more failure of this address would still be within every limit."""
        classes = _classes(remote)
        return all(
            counts.get(name, 0) < limit
            for window in self._current()
            for counts, name, limit in zip(window.counts, classes, window.limits, strict=True)
        )

    def failed(self, remote: str) -> None:
        """Count a failure."""
        classes = _classes(remote)
        for window in self._current():
            for counts, name in zip(window.counts, classes, strict=True):
                if name not in counts and len(counts) >= _MOST_REMEMBERED:
                    del counts[next(iter(counts))]
                counts[name] = counts.get(name, 0) + 1

    def succeeded(self, remote: str) -> None:
        """Take back, in every class, what this very address failed before."""
        classes = _classes(remote)
        for window in self._current():
            own = window.counts[0].get(classes[0], 0)
            if not own:
                continue
            for counts, name in zip(window.counts, classes, strict=True):
                left = counts.get(name, 0) - own
                if left > 0:
                    counts[name] = left
                else:
                    counts.pop(name, None)

    def _current(self) -> Iterator[_Window]:
        moment = int(self._now().timestamp())
        for window in self._windows:
            number = moment // window.seconds
            if number != window.number:
                window.number = number
                for counts in window.counts:
                    counts.clear()
            yield window


def _classes(remote: str) -> Classes:
    """Return the networks that an address belongs to; what is no address, such as a Unix socket, is a class of its own."""
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return remote, remote, remote
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # RFC 4291 2.5.5.2: a dual-stack socket shows IPv4 clients so
    narrow, middle, wide = (
        str(ipaddress.ip_network((address, length), strict=False)) for length in _PREFIXES[address.version]
    )
    return narrow, middle, wide
