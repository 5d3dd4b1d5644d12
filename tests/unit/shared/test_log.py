import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared import log


@pytest.fixture
def stream() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.BytesIO()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_service_level_and_time(stream: io.BytesIO) -> None:
    log.configure("delivery", "info", stream=stream)
    log.get("delivery.pipeline").info("attempted", delivery_id=17, outcome="delivered")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "attempted",
        "logger": "delivery.pipeline",
        "service": "delivery",
        "level": "info",
        "delivery_id": 17,
        "outcome": "delivered",
    }


def test_lower_levels_are_not_written(stream: io.BytesIO) -> None:
    log.configure("api", "warning", stream=stream)
    log.get("a").info("no")
    logging.getLogger("b").info("no")
    log.get("a").warning("yes")
    logging.getLogger("b").warning("yes")
    assert [line["logger"] for line in lines(stream)] == ["a", "b"]


def test_a_logger_made_before_the_configuration_works_after_it(stream: io.BytesIO) -> None:
    early = log.get("early")
    log.configure("api", "info", stream=stream)
    early.info("hello")
    assert lines(stream)[0]["logger"] == "early"


def test_context_is_in_every_line(stream: io.BytesIO) -> None:
    log.configure("api", "info", stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        log.get("a").info("ours")
        logging.getLogger("b").warning("theirs")
    assert [line["request_id"] for line in lines(stream)] == ["req_1", "req_1"]


def test_standard_logging_comes_the_same_way_with_its_traceback(stream: io.BytesIO) -> None:
    log.configure("api", "info", stream=stream)
    try:
        raise ValueError("bad thing")
    except ValueError:
        logging.getLogger("library").exception("it %s", "broke")
    (line,) = lines(stream)
    assert line["event"] == "it broke"
    assert line["level"] == "error"
    assert "ValueError: bad thing" in line["exception"]


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_an_address_in_a_traceback_is_hidden_above_debug(stream: io.BytesIO, level: log.Level, shown: bool) -> None:
    log.configure("api", level, stream=stream)
    try:
        raise ValueError("Key (address)=(someone.private@example.org) already exists")
    except ValueError:
        log.get("a").exception("failed")
    assert (b"someone.private@example.org" in stream.getvalue()) is shown
    assert b"already exists" in stream.getvalue()


@pytest.mark.parametrize("value", ["\ud800", 2**80, object(), {1: "\udfff"}, b"\xff", "line\nbreak\x00"])
def test_any_value_makes_exactly_one_line(stream: io.BytesIO, value: object) -> None:
    log.configure("api", "info", stream=stream)
    log.get("a").info("odd", value=value)
    assert len(lines(stream)) == 1


def test_a_broken_stream_stops_nobody(stream: io.BytesIO) -> None:
    log.configure("api", "info", stream=stream)
    stream.close()
    log.get("a").info("into the void")
    logging.getLogger("b").warning("into the void")
