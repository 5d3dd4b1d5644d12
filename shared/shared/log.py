"""Structured logs: JSON lines on standard error, one wide line per unit of work.

What belongs in a line: ids first, what was decided last. What does not: contents, secrets, and above ``debug`` the
addresses of recipients. The message of an exception may quote an address (Postgres names the row that it refused), so
above ``debug`` addresses in tracebacks are blacked out. Values are not searched: who logs a field answers for it.

Usage::

    log = log.get(__name__)
    log.info("submitted", message_id=17, deliveries=3, outcome="accepted")
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, BinaryIO, Literal

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

Level = Literal["debug", "info", "warning", "error"]
EventDict = MutableMapping[str, Any]

_ADDRESS = re.compile(r"[^\s<>\"'(),;:=]+@[^\s<>\"'(),;]+")


def get(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; it may be made before :func:`configure` is called."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def configure(service: str, level: Level, *, stream: BinaryIO | None = None) -> None:
    """Send everything that is logged, by us or through ``logging``, to one stream as JSON lines.

    Args:
        service: in every line.
        level: the lowest level that is written.
        stream: standard error where it is None.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    writer = _Writer(stream if stream is not None else sys.stderr.buffer)
    hide = [] if level == "debug" else [_hide_addresses]

    def add_names(logger: _Writer | None, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        if logger is not None and logger.name:
            event["logger"] = logger.name
        return event

    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_names,
        structlog.processors.format_exc_info,
        *hide,
    ]
    structlog.configure(
        processors=[*before, _render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=writer.named,
        # A cached logger would keep the first stream for ever; a line is written once per unit of work, not per step.
        cache_logger_on_first_use=False,
    )
    handler = _Handler(writer, before)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # These libraries announce every start, request or packet at info.
    for chatty in ("uvicorn.access", "uvicorn.error", "httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


class _Writer:
    """Writes whole lines. A log that cannot be written must never stop mail, so a broken stream is passed over."""

    def __init__(self, stream: BinaryIO, name: str = "") -> None:
        self._stream, self.name = stream, name

    def named(self, name: str = "") -> "_Writer":
        return _Writer(self._stream, name)

    def msg(self, line: bytes) -> None:
        # A pipe without a reader, a closed file: there is nowhere left to say so.
        # (A buffered stream locks each write itself, so lines of threads do not mix.)
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + b"\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = log = msg


class _Handler(logging.Handler):
    """Passes records of ``logging`` through the same steps as our own."""

    def __init__(self, writer: _Writer, steps: list[Processor]) -> None:
        super().__init__()
        self._writer, self._steps = writer, steps

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Any = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            method = record.levelname.lower()
            for step in self._steps:
                event = step(None, method, event)
            self._writer.msg(_render(None, method, event))
        except (TypeError, ValueError, KeyError):  # a foreign format string that does not fit its arguments
            self.handleError(record)


def _hide_addresses(_logger: object, _method: str, event: EventDict) -> EventDict:
    text = event.get("exception")
    if isinstance(text, str) and "@" in text:
        event["exception"] = _ADDRESS.sub("<address>", text)
    return event


def _render(_logger: object, _method: str, event: EventDict) -> bytes:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # orjson refuses lone surrogates and integers beyond 64 bits; a log line is not the place to insist.
        return json.dumps({str(key): value for key, value in event.items()}, default=repr).encode()
