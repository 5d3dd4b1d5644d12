"""How a call of the webapi is read: the form, then the JSON."""

import functools
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.webapi import send, values
from api.webapi.faults import Fault
from api.webapi.form import read_call

FORM = "application/x-www-form-urlencoded"
READERS: dict[str, values.Reader[Any]] = {
    "moment": values.moment,
    "pair": values.pair,
    "mapping": values.mapping,
    "text": values.text,
    "flag": values.flag,
}


def read(reader: values.Reader[Any], document: str) -> Any:
    return reader(values.parse(document.encode()), "here")


def code_of(reading: Callable[[], object]) -> str | None:
    """Return the code with which something is refused, None where it is not."""
    try:
        reading()
    except Fault as fault:
        return fault.code
    return None


@pytest.mark.parametrize(
    ("kind", "document", "expected"),
    [
        ("text", "null", ""),
        ("text", ' \t\r\n"a" trailing', "a"),
        ("flag", "null", False),
        ("pair", "[]", ("", "")),
        ("pair", "null", ("", "")),
        ("pair", '["a"]', ("a", "")),
        ("pair", '["a", "b", "c"]', ("a", "b")),
        ("mapping", "null", {}),
        ("mapping", '{"A": "1", "a": "2", "A": "3", "b": null}', {"A": "3", "a": "2", "b": ""}),
        ("moment", "null", None),
        ("moment", '"2026-11-20T13:00:00.123456789+05:30"', datetime.fromisoformat("2026-11-20T13:00:00.123456+05:30")),
    ],
)
def test_what_values_mean(kind: str, document: str, expected: object) -> None:
    found = read(READERS[kind], document)
    assert found == expected
    if isinstance(found, datetime):
        assert found.utcoffset() == timedelta(hours=5, minutes=30)


@pytest.mark.parametrize(
    ("kind", "document", "code"),
    [
        ("text", "1", "protocol"),
        ("text", '"a\nb"', "protocol"),
        ("text", '"\\u0000"', "user"),
        ("text", '"\\udc00"', "user"),
        ("flag", '"true"', "protocol"),
        ("flag", "1", "protocol"),
        ("pair", '{"a": "b"}', "protocol"),
        ("mapping", '{"a": {}}', "protocol"),
        ("mapping", '{"\\u0000": ""}', "user"),
        ("moment", '"2026-11-20 13:00:00Z"', "protocol"),
        ("moment", '"0001-01-01T00:00:00+05:00"', "protocol"),
        ("moment", '"2026-02-30T00:00:00Z"', "protocol"),
        ("moment", "0", "protocol"),
        ("text", "", "protocol"),
        ("text", "Infinity", "protocol"),
        ("text", "1" * 10_000, "protocol"),
    ],
)
def test_what_values_may_not_be(kind: str, document: str, code: str) -> None:
    with pytest.raises(Fault) as found:
        read(READERS[kind], document)
    assert found.value.code == code


def test_the_last_of_two_spellings_of_a_key_counts() -> None:
    found = read(send.read_send, '{"Subject": "a", "SUBJECT": "b", "to": [null, {"address": "x"}]}')
    assert found.subject == "b"
    assert found.to == (send.NameAddress(), send.NameAddress(address="x"))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text() | st.sampled_from(["To", "extra", "HEADERS", "Name"]), one), max_leaves=20))  # fmt: skip
def test_any_json_is_read_or_refused_with_a_code(value: object) -> None:
    body = urlencode({"request": json.dumps(value)}).encode()
    assert code_of(lambda: read(send.read_send, read_call(FORM, body).document.decode())) in {None, "protocol", "user"}


@given(st.binary(max_size=200), st.sampled_from([FORM, "multipart/form-data; boundary=x", "", "text/plain"]))
def test_any_body_is_read_or_refused(body: bytes, content_type: str) -> None:
    for whole in (body, b"request=" + body, b"--x\r\n" + body + b"\r\n--x--"):
        assert code_of(functools.partial(read_call, content_type, whole)) in {None, "protocol"}


@given(st.text(min_size=1))
def test_a_form_gives_back_what_was_put_in(text: str) -> None:
    body = urlencode([("other", "x"), ("request", text), ("request", "second")]).encode()
    assert read_call(FORM, body).document.decode() == text
