from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest

from hooks.payload import PayloadImpossible, build
from shared.db.calls import LoadedCall, LoadedEvent, LoadedMail
from shared.events import EventType

EVENT = LoadedEvent(
    id=41,
    type="failed",
    created_at=datetime(2026, 5, 1, 12, 0, 0, 7, tzinfo=UTC),
    delivery_id=9_007_199_254_740_993,
    report_id=None,
    attempt=2,
    code=550,
    enhanced="5.1.1",
    text="no such user",
    category="recipient",
    suppressing=True,
    final_attempt_next=False,
)
MAIL = LoadedMail(
    message=12,
    message_id="<a@b>",
    recipient="them@theirs.test",
    from_id="abc",
    subject="Grüße <&>",
    extra='{"order": "17", "a": "b"}',
    tags=("x", "y"),
    is_test=False,
)
CALL = LoadedCall(id=5, endpoint_id=2, account_id=3, created_at=EVENT.created_at, event=EVENT, mail=MAIL)


def test_a_payload_says_what_happened_to_which_mail() -> None:
    assert orjson.loads(build(CALL, "posthouse")) == {
        "type": "failed",
        "id": "41",
        "created_at": "2026-05-01T12:00:00.000007Z",
        "account_id": "3",
        "test": False,
        "data": {
            "message_id": "<a@b>",
            "message": "12",
            "delivery": "9007199254740993",
            "recipient": "them@theirs.test",
            "from_id": "abc",
            "subject": "Grüße <&>",
            "attempt": 2,
            "code": 550,
            "enhanced_code": "5.1.1",
            "text": "no such user",
            "category": "recipient",
            "suppressing": True,
            "final_attempt_next": False,
            "dsn": False,
            "extra": {"order": "17", "a": "b"},
            "tags": ["x", "y"],
        },
    }


def test_what_is_not_known_is_null_or_empty() -> None:
    event = replace(EVENT, type="canceled", attempt=None, code=0, enhanced="", text=None, category=None)
    mail = replace(MAIL, from_id=None, extra=None, tags=())
    data = orjson.loads(build(replace(CALL, event=event, mail=mail), "posthouse"))["data"]
    empty = {name: data[name] for name in ("attempt", "code", "enhanced_code", "text", "category", "from_id", "extra")}
    assert empty == {
        "attempt": None,
        "code": None,
        "enhanced_code": None,
        "text": "",
        "category": None,
        "from_id": None,
        "extra": {},
    }
    assert data["tags"] == []


@pytest.mark.parametrize("event_type", [kind for kind in EventType if kind is not EventType.RECEIVED])
def test_metadata_and_tags_come_with_every_event_of_a_delivery(event_type: EventType) -> None:
    mail = replace(MAIL, extra='{"a-b": "1", "UPPER": "2", "": "☹"}', tags=("welcome", "grün"))  # case 75: verbatim
    event = replace(EVENT, type=event_type.value)
    data = orjson.loads(build(replace(CALL, event=event, mail=mail), "posthouse"))["data"]
    assert data["extra"] == {"a-b": "1", "UPPER": "2", "": "☹"}
    assert data["tags"] == ["welcome", "grün"]


@pytest.mark.parametrize(
    ("event_type", "report_id", "dsn"),
    [
        ("bounced", 8, True),
        ("bounced", None, True),
        ("delayed", 8, True),
        ("failed", None, False),
        ("complained", 8, False),
        ("unrecognized", 8, False),
    ],
)
def test_dsn_says_whether_a_status_notification_brought_the_news(
    event_type: str, report_id: int | None, dsn: bool
) -> None:
    event = replace(EVENT, type=event_type, report_id=report_id)
    assert orjson.loads(build(replace(CALL, event=event), "posthouse"))["data"]["dsn"] is dsn


def test_mail_of_a_sandbox_says_so() -> None:
    assert orjson.loads(build(replace(CALL, mail=replace(MAIL, is_test=True)), "posthouse"))["test"] is True


def test_the_body_is_the_same_in_every_attempt() -> None:
    elsewhere = replace(EVENT, created_at=EVENT.created_at.astimezone(timezone(timedelta(hours=2))))
    assert build(replace(CALL, event=elsewhere), "posthouse") == build(CALL, "posthouse")


@pytest.mark.parametrize(
    ("call", "endpoint_format", "reason"),
    [
        (None, "posthouse", "event was removed"),
        (replace(CALL, event=None), "posthouse", "event was removed"),
        (replace(CALL, mail=None), "posthouse", "message was removed"),
        (CALL, "mox", "format mox"),
        (replace(CALL, event=replace(EVENT, type="received", delivery_id=None), mail=None), "posthouse", "received"),
    ],
)
def test_what_cannot_be_told_says_why(call: LoadedCall | None, endpoint_format: str, reason: str) -> None:
    with pytest.raises(PayloadImpossible, match=reason):
        build(call, endpoint_format)
