"""Waiting for what a test expects, with a deadline instead of a sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


async def eventually(condition: Callable[[], T | Awaitable[T]], timeout: float = 10, *, what: str = "") -> T:
    """Call ``condition`` until it returns something true, and return that.

    Args:
        condition: plain or async; an AssertionError counts as "not yet".
        timeout: seconds after which the last AssertionError, or a new one, is raised.
        what: for the message.
    """
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
    while True:
        failure: AssertionError | None = None
        result: object = None
        try:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result  # type: ignore[return-value]  # awaited, so it is a T
        except AssertionError as error:
            failure = error
        if time.monotonic() >= deadline:
            raise failure or _not_in_time(timeout, what, result)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def eventually_sync(condition: Callable[[], T], timeout: float = 10, *, what: str = "") -> T:
    """As :func:`eventually`, for tests without an event loop."""
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
    while True:
        failure: AssertionError | None = None
        result: T | None = None
        try:
            result = condition()
            if result:
                return result
        except AssertionError as error:
            failure = error
        if time.monotonic() >= deadline:
            raise failure or _not_in_time(timeout, what, result)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _not_in_time(timeout: float, what: str, last: object) -> AssertionError:
    return AssertionError(f"{what or 'the condition'} did not come true within {timeout:g} s; last seen: {last!r}")
