import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.schemas.accounts import Account
from api.schemas.mailbox import split_mailbox
from api.schemas.messages import SendMessage

MINIMAL = {"from": "a@example.com"}


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ada@example.com", "", "ada@example.com"),
        (" ada@example.com ", "", "ada@example.com"),
        ("<ada@example.com>", "", "ada@example.com"),
        ("Ada <ada@example.com>", "Ada", "ada@example.com"),
        ("Ada Lovelace<ada@example.com>", "Ada Lovelace", "ada@example.com"),
        ('"Lovelace, Ada" <ada@example.com>', "Lovelace, Ada", "ada@example.com"),
        ('"Ada \\"Countess\\" L." <ada@example.com>', 'Ada "Countess" L.', "ada@example.com"),
        ('"a <b>" <ada@example.com>', "a <b>", "ada@example.com"),
        ('Ada "the" L. <ada@example.com>', 'Ada "the" L.', "ada@example.com"),
        ('"a<b"@example.com', "", '"a<b"@example.com'),
        ('Ada <"a>b"@example.com>', "Ada", '"a>b"@example.com'),
        ('"Ada" L. <ada@example.com>', '"Ada" L.', "ada@example.com"),
        ("Ada <ada@example.com", "", "Ada <ada@example.com"),
        ("ada@example.com>", "", "ada@example.com>"),
        ("", "", ""),
    ],
)
def test_mailboxes_as_people_write_them(text: str, name: str, address: str) -> None:
    assert split_mailbox(text) == (name, address)


@given(st.text(st.characters(exclude_characters='"\\<', codec="utf-8"), max_size=40))
def test_a_name_survives_in_quotes(name: str) -> None:
    assert split_mailbox(f'"{name}" <ada@example.com>') == (name, "ada@example.com")


@given(st.text())
def test_any_text_is_split_somehow(text: str) -> None:
    name, address = split_mailbox(text)
    assert len(name) + len(address) <= len(text)


@given(st.binary(max_size=200), st.booleans())
def test_files_survive_base64_with_and_without_line_breaks(content: bytes, broken: bool) -> None:
    text = base64.encodebytes(content).decode() if broken else base64.b64encode(content).decode()
    message = SendMessage.model_validate({**MINIMAL, "attachments": [{"filename": "a", "content": text}]})
    assert message.attachments[0].content == content


@pytest.mark.parametrize("text", ["YQ", "YQ=", "YQ==YQ==", "Y Q==", "YQ==\t", "_-==", "ä", 7, None])
def test_what_is_no_base64(text: object) -> None:
    with pytest.raises(ValidationError, match="base64"):
        SendMessage.model_validate({**MINIMAL, "attachments": [{"filename": "a", "content": text}]})


@given(st.datetimes(timezones=st.timezones()).filter(lambda moment: moment.year > 1900))
def test_times_with_a_zone_are_taken(moment: datetime) -> None:
    offset = moment.utcoffset()
    assert offset is not None
    whole = moment.replace(tzinfo=timezone(timedelta(minutes=offset // timedelta(minutes=1))))
    try:
        whole.astimezone(UTC)
    except OverflowError:
        return
    message = SendMessage.model_validate({**MINIMAL, "date": whole.isoformat()})
    assert message.date == whole


@pytest.mark.parametrize(
    "text",
    ["2026-11-20T13:00:00", "2026-11-20", "20261120T130000Z", "0001-01-01T00:00:00+23:59", "now", "1", 1.5, True],
)
def test_other_times_are_not(text: object) -> None:
    with pytest.raises(ValidationError):
        SendMessage.model_validate({**MINIMAL, "date": text})


def test_times_are_answered_in_utc_with_microseconds() -> None:
    row = json.loads(
        Account(
            id="1",
            name="a",
            created_at=datetime(2026, 11, 20, 14, 0, tzinfo=timezone(timedelta(hours=1))),
            disabled_at=None,
            keep_deliveries_seconds=1,
            keep_calls_seconds=1,
            messages_per_day=None,
            first_time_recipients_per_day=None,
            messages_per_second=None,
            retry_schedule="mox",
            dsn_to_sender=False,
        ).model_dump_json()
    )
    assert row["created_at"] == "2026-11-20T13:00:00.000000Z"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_nothing_but_a_validation_error_comes_of_any_json(value: object) -> None:
    for candidate in (value, {**MINIMAL, "to": value}, {**MINIMAL, "attachments": [value]}, {**MINIMAL, "date": value}):
        with contextlib.suppress(ValidationError):
            SendMessage.model_validate(candidate)
